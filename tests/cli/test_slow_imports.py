"""An import of the app that takes long, in the command itself: it is told of, with its place."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from pythia_fast.cli import target
from pythia_fast.pool.nursery_process import thread_count
from tests.support.command_line import running


def test_one_that_hangs_is_told_of_with_its_place_and_ends_at_a_signal(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\n\ndef connect():\n    time.sleep(1000)\n\nconnect()\n")
    with running(tmp_path, "run", "hangs:app") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "module 'hangs' has been importing for 10 s, and nothing begins before it has. Stop it with Ctrl-C or "
            "SIGTERM. It is there:\n"
        )
        assert [process.stderr.readline().strip() for _ in range(4)] == [
            f'File "{tmp_path / "hangs.py"}", line 6, in <module>',
            "connect()",
            f'File "{tmp_path / "hangs.py"}", line 4, in connect',
            "time.sleep(1000)",
        ]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in err


def test_it_is_told_of_at_growing_intervals_by_a_thread_that_is_gone_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(target, "SLOW_IMPORT_S", 0.05)
    monkeypatch.setattr(target, "LOOK_S", 0.001)
    monkeypatch.setattr(target, "say_last", lambda _stream, text, timeout: told.append(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "told_of", type(sys)("told_of"))
    monkeypatch.setattr(sys.modules["told_of"], "told", told, raising=False)
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nfrom pythia_fast import App\nfrom told_of import told\n"
        "while len(told) < 3:\n    time.sleep(0.001)\napp = App('slow')\n"
    )
    threads, began = thread_count(), time.monotonic()
    try:
        assert target.load_app("slow_to_import:app").name == "slow"
    finally:
        sys.modules.pop("slow_to_import", None)
    assert thread_count() == threads
    assert len(told) == 3
    assert time.monotonic() - began >= 4 * 0.05  # 0.05, 0.1, 0.2 s
