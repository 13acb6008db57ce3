"""Runs whose standard input, output or error was closed by who started them (``>&-``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pythia_fast.report import RunReport
from tests.support.command_line import HEAD, command, start_in_shell

#: Where a pool process' standard streams lead.
APP = (
    HEAD
    + """
import os

@app.batch_handler(source=MemoryConsumer([b"1", b"2"]), sink=FileProducer(path="led.ndjson"), decoder="raw")
def look(batch):
    os.write(2, b"a library complains")
    return {"led": [" ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in CLOSED)] * len(batch)}
"""
)


def start_closed(closed: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Have a shell start this without some of the standard streams."""
    return start_in_shell(" ".join(f"{fd}>&-" for fd in closed), *arguments, folder=folder)


def assert_led_nowhere(folder: Path, closed: str) -> None:
    nowhere = " ".join(["/dev/null"] * len(closed))
    assert (folder / "led.ndjson").read_text() == f'{{"led":"{nowhere}"}}\n' * 2


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["shown", "quiet"])
@pytest.mark.parametrize("closed", ["1", "2", "012"])
def test_a_run_goes_on_without_standard_streams(tmp_path: Path, closed: str, quiet: tuple[str, ...]) -> None:
    (tmp_path / "shop.py").write_text(f"CLOSED = {[int(fd) for fd in closed]}\n{APP}")
    arguments = command("run", "shop:app", "--until-end", "--report", "run.json", *quiet)
    finished = start_closed(closed, *arguments, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    assert RunReport.from_json((tmp_path / "run.json").read_bytes()).rows == 2
    assert_led_nowhere(tmp_path, closed)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_script_that_runs_an_app_goes_on_without_them(tmp_path: Path, method: str) -> None:
    (tmp_path / "shop.py").write_text(
        f"CLOSED = [0, 1, 2]\n{APP}\nif __name__ == '__main__':\n    app.run(until='end', start_method={method!r})\n"
    )
    finished = start_closed("012", sys.executable, "shop.py", folder=tmp_path)
    assert finished.returncode == 0
    assert_led_nowhere(tmp_path, "012")


def test_an_error_without_anybody_to_tell_has_its_exit_code(tmp_path: Path) -> None:
    assert start_closed("12", *command("run", "nowhere:app"), folder=tmp_path).returncode == 3


def test_a_script_may_have_closed_its_output(tmp_path: Path) -> None:
    main = "    import sys\n    sys.stdout.close()\n    app.run(until='end', start_method='fork')\n"
    (tmp_path / "shop.py").write_text(f"CLOSED = [0]\n{APP}\nif __name__ == '__main__':\n{main}")
    finished = start_closed("0", sys.executable, "shop.py", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert_led_nowhere(tmp_path, "0")
