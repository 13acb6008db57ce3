"""Spool folders: gone with their run, taken away by the next one after a kill, never while their run lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from pythia_fast import App
from pythia_fast.brokers.file import FileConsumer
from pythia_fast.brokers.file_reader import StreamReader
from pythia_fast.brokers.framing import frame_record
from pythia_fast.brokers.memory import MemoryConsumer, MemoryProducer
from pythia_fast.errors import ConfigError
from pythia_fast.runtime import reading
from pythia_fast.runtime.spool import OVER_S, OWNER, Spool, SpoolTrouble

BIG = b"x" * 10_000

#: A run whose dead letters find no sink, so that its oversize payload stays in the spool; says so when it lies there.
HELD_UP = """
    import sys
    from pathlib import Path
    from pythia_fast import App, MemoryConsumer, MemoryProducer

    state, app, dead = Path(sys.argv[1]), App("spool"), MemoryProducer()
    dead.fail_with("down")
    source = MemoryConsumer([b"x" * 10_000], keep_open=True)

    @app.batch_handler(source=source, dead_letter=dead, decoder="raw", max_batch_bytes=1000)
    def handle(batch): pass

    class Observer:
        sample_interval_s = 0.01
        def started(self, info): pass
        def sample(self, snapshot):
            for path in state.glob("spool/*/oversize-*"):
                if path.stat().st_size == 10_012:  # with the sizes of key, headers and payload
                    print(path, flush=True)
        def event(self, text): pass
        def finished(self, report): pass

    if __name__ == "__main__":
        app.run(workers=1, state_dir=state, observer=Observer())
"""


def folders(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "spool").iterdir())


def run_over(state: Path, payloads: list[bytes]) -> MemoryProducer:
    app, dead = App("spool"), MemoryProducer()

    @app.batch_handler(source=MemoryConsumer(payloads), dead_letter=dead, decoder="raw", max_batch_bytes=1000)
    def handle(batch):
        pass

    app.run(workers=1, until="end", state_dir=state)
    return dead


def test_the_next_run_removes_what_a_killed_run_left_and_nothing_of_a_live_one(tmp_path: Path) -> None:
    script = tmp_path / "held_up.py"
    script.write_text(textwrap.dedent(HELD_UP))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    state = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, str(script), str(state)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            spooled = Path(process.stdout.readline().strip())
            assert spooled.read_bytes() == frame_record(BIG)
            assert run_over(state, [b"1"]).records == []
            assert spooled.read_bytes() == frame_record(BIG), "a live run lost its spooled payload"
            assert folders(state) == [spooled.parent.name]
        finally:
            process.send_signal(signal.SIGKILL)
    assert folders(state) == [spooled.parent.name]
    assert run_over(state, [BIG]).payloads == [BIG]
    assert folders(state) == []


def test_a_folder_that_is_not_there_for_a_while_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is not, nothing is read; the payload is kept when it is there again."""
    monkeypatch.setattr(reading, "SPOOL_RETRY_S", 0.001)
    app, dead = App("spool"), MemoryProducer()

    @app.batch_handler(source=MemoryConsumer([BIG]), dead_letter=dead, decoder="raw", max_batch_bytes=1000)
    def handle(batch):
        pass

    class Away:
        """Moves the folder away when the run starts, and back when it was missed for some samples."""

        sample_interval_s = 0.01

        def __init__(self) -> None:
            self.lines: list[str] = []
            self.samples = 0
            self.folder = self.elsewhere = tmp_path

        def started(self, info: object) -> None:
            (self.folder,) = (tmp_path / "spool").iterdir()
            self.elsewhere = self.folder.rename(tmp_path / "elsewhere")

        def sample(self, snapshot: object) -> None:
            self.samples += bool(self.lines)
            if self.samples == 20:
                self.elsewhere.rename(self.folder)

        def event(self, text: str) -> None:
            self.lines += [text] if "oversize" in text else []

        def finished(self, report: object) -> None:
            pass

    away = Away()
    app.run(workers=1, until="end", state_dir=tmp_path, observer=away)
    assert dead.payloads == [BIG]
    (line,) = away.lines
    assert line.endswith(f"cannot keep an oversize payload in {away.folder}: No such file or directory; trying again")


def test_bytes_of_a_pipe_that_find_no_room_are_waited_for_as_those_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SPOOL_RETRY_S", 0.001)
    payloads = [BIG * 200, b"2", BIG * 300]
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"\n".join(payloads),))
    writer.start()
    opened: list[StreamReader] = []
    original = StreamReader.serve

    def serve(reader: StreamReader) -> None:
        if not opened:
            opened.append(reader)
            reader.native.spill_to(os.open("/dev/full", os.O_RDWR))
        original(reader)

    monkeypatch.setattr(StreamReader, "serve", serve)
    lines: list[str] = []

    class Emptied:
        """Makes room when its lack was told of."""

        sample_interval_s = 0.01

        def started(self, info: object) -> None:
            pass

        def sample(self, snapshot: object) -> None:
            pass

        def event(self, text: str) -> None:
            if "oversize" in text:
                lines.append(text)
                with tempfile.TemporaryFile(dir=tmp_path) as spill:
                    opened[0].native.spill_to(os.dup(spill.fileno()))

        def finished(self, report: object) -> None:
            pass

    app, dead = App("spool"), MemoryProducer()

    @app.batch_handler(source=FileConsumer(tmp_path / "pipe"), dead_letter=dead, decoder="raw", max_batch_bytes=1000)
    def handle(batch):
        pass

    app.run(workers=1, until="end", state_dir=tmp_path / "state", observer=Emptied())
    writer.join()
    assert dead.payloads == payloads[::2]
    (line,) = lines
    assert "cannot keep an oversize payload in" in line
    assert line.endswith("No space left on device; trying again")


def test_what_lasts_is_told_at_growing_intervals_with_how_long_it_has_lasted() -> None:
    trouble = SpoolTrouble()
    told = [(second, line) for second in range(100) if (line := trouble.met(second))]
    assert told[:2] == [(0, "trying again"), (10, "still trying after 10 s")]
    assert [second for second, _ in told] == [0, 10, 20, 40, 80]
    assert trouble.met(99 + OVER_S) == ""
    assert trouble.met(100 + 2 * OVER_S) == "trying again"


def test_a_folder_is_kept_while_it_is_open_and_removed_when_it_is_closed(tmp_path: Path) -> None:
    lines: list[str] = []
    first = Spool(tmp_path, "score", lines.append)
    (first.folder / "oversize-0-0").write_bytes(b"x")
    second = Spool(tmp_path, "score", lines.append)
    assert first.folder != second.folder
    assert (first.folder / "oversize-0-0").exists()
    first.close()
    assert folders(tmp_path) == [second.folder.name]
    second.close()
    assert folders(tmp_path) == []
    assert lines == []


def test_the_pid_of_a_dead_run_in_use_again_does_not_keep_its_folder(tmp_path: Path) -> None:
    dead = tmp_path / "spool" / f"score-{os.getpid()}-abc"
    dead.mkdir(parents=True)
    (dead / "oversize-0-0").write_bytes(b"x")
    (dead / OWNER).touch()
    Spool(tmp_path, "score", print).close()
    assert folders(tmp_path) == []


def test_a_file_of_somebody_else_is_left_alone_and_told(tmp_path: Path) -> None:
    lines: list[str] = []
    kept = tmp_path / "spool" / "mine" / "letter.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("dear")
    Spool(tmp_path, "score", lines.append).close()
    assert kept.read_text() == "dear"
    assert lines == [f"cannot remove {kept.parent}, which a run that was killed left behind: Directory not empty"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    with pytest.raises(ConfigError, match=r"cannot keep oversize payloads in .*/spool: .*--state-dir"):
        Spool(tmp_path, "score", print)
