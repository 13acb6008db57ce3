"""pythia_fast.outlet: whoever does not read holds nobody up."""

from __future__ import annotations

import io
import os
import pty
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from pythia_fast import outlet as outlet_module
from pythia_fast.outlet import Outlet, say_last, unread

LINES = [f"line {number}\n" for number in range(20_000)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        yield read_end, stream
    os.close(read_end)


def read_all(fd: int) -> str:
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts).decode()


def test_what_is_read_comes_whole_and_without_a_thread(pipe: tuple[int, TextIO]) -> None:
    read_end, stream = pipe
    before = threading.active_count()
    outlet = Outlet(stream)
    outlet.write("one\n")
    outlet.write("two\n")
    assert threading.active_count() == before
    assert os.read(read_end, 100) == b"one\ntwo\n"
    outlet.close(0)


def test_a_slow_reader_gets_every_line_in_order(pipe: tuple[int, TextIO]) -> None:
    read_end, stream = pipe
    outlet = Outlet(stream, most_waiting=1 << 24)
    for line in LINES:
        outlet.write(line)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(read_all(read_end)))
    reader.start()
    outlet.close(60)
    stream.close()
    reader.join()
    assert found == ["".join(LINES)]


def test_what_nobody_reads_is_dropped_and_counted(pipe: tuple[int, TextIO]) -> None:
    read_end, stream = pipe
    outlet = Outlet(stream, most_waiting=1000)
    for line in LINES:
        outlet.write(line)  # the test would hang here
    kept = b""
    while b"which nobody read in time" not in kept:
        kept += os.read(read_end, 1 << 16)
    lines = kept.decode().splitlines()
    shown = [line for line in lines if line.startswith("line ")]
    assert shown == [line.rstrip() for line in LINES[: len(shown)]]
    assert f"({len(LINES) - len(shown):,} lines or redraws are left out here" in kept.decode()
    outlet.write("again\n")
    assert os.read(read_end, 100) == b"again\n"
    outlet.close(0)


def test_closing_gives_up_on_one_who_does_not_read(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    outlet = Outlet(stream)
    for line in LINES:
        outlet.write(line)
    before = threading.active_count()
    outlet.close(0.05)
    assert threading.active_count() == before - 1
    outlet.write("late\n")
    assert threading.active_count() == before - 1


def test_a_reader_that_is_gone_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stream:
        outlet = Outlet(stream)
        outlet.write("nobody\n")
        outlet.close(0)


def test_a_terminal_that_nobody_reads_holds_nobody_up() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        outlet = Outlet(stream, most_waiting=1000)
        assert outlet.isatty()
        for line in LINES:
            outlet.write(line)
        assert os.read(ours, 6) == b"line 0"
        outlet.close(0)
    os.close(ours)


def test_a_file_and_a_text_in_memory_are_written_to_as_they_are(tmp_path: Path) -> None:
    text = io.StringIO()
    Outlet(text).write("one\n")
    assert text.getvalue() == "one\n"
    with open(tmp_path / "log", "w") as file:
        say_last(file, "two\n")
        assert (tmp_path / "log").read_text() == "two\n"


def test_last_words_wait_for_a_reader_but_not_for_ever(pipe: tuple[int, TextIO]) -> None:
    read_end, stream = pipe
    say_last(stream, "".join(LINES), timeout=0.05)
    assert os.read(read_end, 10) == b"line 0\nlin"


def test_a_full_pipe_is_named(pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, stream = pipe
    monkeypatch.setattr(outlet_module, "_NAMES", {stream.fileno(): "standard output"})
    assert unread() == ""
    outlet = Outlet(stream)
    for line in LINES:
        outlet.write(line)
    assert unread().startswith("nobody reads standard output of this run")
    outlet.close(0)
    deadline = time.monotonic() + 60
    while unread() and time.monotonic() < deadline:
        os.read(read_end, 1 << 16)
    assert unread() == ""
