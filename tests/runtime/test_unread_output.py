"""Runs whose standard output and error are a full pipe that nobody reads: the work goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = """
    import os
    from pythia_fast import App, FileProducer, MemoryConsumer
    app = App("unread")
    @app.batch_handler(source=MemoryConsumer([b"%d" % i for i in range(1000)]), sink=FileProducer("sent"),
                       dead_letter=FileProducer("dead"), decoder="raw", batch_size=10, batch_deadline=0.5)
    def echo(batch):
        payloads = batch["payload"].tolist()
        if os.environ["FAULT"] == "dies" and b"505" in payloads:
            os.abort()
        if os.environ["FAULT"] == "prints" and b"505" in payloads:
            print("here", flush=True)
        return payloads
    if __name__ == "__main__":
        app.run(workers=1, until="end", state_dir="state")
"""


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """A pipe without room; its end for writing."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, b"x")
    except BlockingIOError:
        os.set_blocking(write_end, True)
    yield write_end
    os.close(write_end)
    os.close(read_end)


def run(folder: Path, pipe: int, fault: str, *arguments: str) -> None:
    (folder / "unread.py").write_text(textwrap.dedent(APP))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FAULT": fault}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=pipe, stderr=pipe, timeout=120, check=False
    )
    assert done.returncode == 0


def sent(folder: Path) -> list[int]:
    return sorted(int(line) for line in (folder / "sent").read_text().split())


COMMAND = ["-m", "pythia_fast", "run", "unread:app", "--until-end", "--workers", "1", "--report", "report.json"]


@pytest.mark.parametrize("arguments", [COMMAND, ["unread.py"]], ids=["command", "script"])
def test_a_run_with_deaths_to_tell_of_goes_on(tmp_path: Path, full_pipe: int, arguments: list[str]) -> None:
    run(tmp_path, full_pipe, "dies", *arguments)
    assert sent(tmp_path) == sorted(set(range(1000)) - {505})
    if arguments == COMMAND:
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["ending"], report["rows"], report["dead_lettered"]) == ("done", 1000, 1)


def test_a_handler_that_prints_waits_alone_and_the_deadline_says_why(tmp_path: Path, full_pipe: int) -> None:
    run(tmp_path, full_pipe, "prints", *COMMAND)
    assert sent(tmp_path) == sorted(set(range(1000)) - {505})
    (letter,) = [json.loads(line) for line in (tmp_path / "dead").read_text().splitlines()]
    assert letter["payload"] == "505"
    assert "nobody reads standard output and standard error of this run" in letter["reason"]
    assert "took longer than batch_deadline=0.5 s" in letter["reason"]
