"""Standard output and error that take no text, as on a full disk (``>/dev/full``)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pythia_fast.outlet import Outlet, say_last
from tests.support.command_line import ENVIRONMENT, HEAD, command, start_in_shell

#: The module prints, which is held back until the stream is flushed; three rows are done, one is a dead letter.
APP = (
    HEAD
    + """
import contextlib
with contextlib.suppress(OSError):
    print("the module says hello")

@app.batch_handler(source=MemoryConsumer([b"1", b"2", b"3"]), sink=FileProducer(path="out.ndjson"), decoder="raw")
def copy(batch):
    batch.reject([False, True, False], reason="odd")
    return {"a": [1] * len(batch)}
"""
)
FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


@pytest.fixture(params=["buffered", "unbuffered"], autouse=True)
def buffering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed fails at once, or when it is flushed."""
    monkeypatch.setitem(ENVIRONMENT, "PYTHONUNBUFFERED", "1" if request.param == "unbuffered" else "")


def start(folder: Path, redirected: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return start_in_shell(redirected, *command(*arguments), folder=folder)


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["shown", "quiet"])
def test_a_run_is_done_whose_summary_cannot_be_written(tmp_path: Path, quiet: tuple[str, ...]) -> None:
    (tmp_path / "shop.py").write_text(APP)
    finished = start(tmp_path, ">/dev/full", "run", "shop:app", "--until-end", *quiet)
    assert finished.returncode == 0, finished.stderr
    assert len((tmp_path / "out.ndjson").read_text().splitlines()) == 2
    told = "standard output did not take the summary: No space left on device"
    assert finished.stderr.count(told) == (0 if quiet else 1)
    assert "Traceback" not in finished.stderr
    assert "Exception ignored" not in finished.stderr


def test_a_run_is_done_that_can_say_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    assert start(tmp_path, ">/dev/full 2>/dev/full", "run", "shop:app", "--until-end").returncode == 0


@pytest.mark.parametrize("arguments", [("version",), ("--help",), ("dlq", "list", "letters.ndjson"), ("doctor",)])
def test_a_result_that_cannot_be_written_is_a_failure(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "letters.ndjson").touch()
    finished = start(tmp_path, ">/dev/full", *arguments)
    assert finished.returncode == 1
    assert finished.stderr == "error: standard output did not take the result: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "code"), [(("run", "nowhere:app"), 3), (("run",), 2), (("replay", "x", "--app", "a:b"), 2)]
)
def test_an_error_that_cannot_be_told_has_its_exit_code(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    assert start(tmp_path, ">/dev/full 2>/dev/full", *arguments).returncode == code


def test_a_replay_goes_on_while_its_notes_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "rows.ndjson").write_text("1\n2\n3\n")
    finished = start(tmp_path, "2>/dev/full", "replay", "rows.ndjson", "--app", "shop:app")
    assert finished.returncode == 0
    assert len((tmp_path / "out.ndjson").read_text().splitlines()) == 2


def test_a_demo_goes_on_while_nothing_of_it_can_be_shown(tmp_path: Path) -> None:
    finished = start(tmp_path, ">/dev/full 2>/dev/full", "demo", "--rows", "2000", "--workers", "1")
    assert finished.returncode == 0
    assert (tmp_path / "demo-output" / "report.json").exists()


def test_a_library_that_shows_a_run_leaves_nothing_for_the_interpreters_exit() -> None:
    with FULL.open("w") as stream:
        outlet = Outlet(stream)
        outlet.write("a line\n")
        outlet.flush()
        assert outlet.trouble is not None
        outlet.close(0)
        assert say_last(stream, "the end\n") == "No space left on device"


def test_lines_in_a_file_keep_their_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        stream.write("held back\n")
        assert say_last(stream, "the end\n") == ""
    assert (tmp_path / "log").read_text() == "held back\nthe end\n"
