"""FileRecords: how much one poll reads, whose turn is next, and what is kept of records without an end."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest

from pythia_fast._ext.collecting_sink import CALL, END, IDLE, MORE, SPOOL, CollectingSink, CountingSink, poll
from pythia_fast._ext.file_reader import FileRecords

TURN = 16 << 20
BLOCK = 1 << 18


@pytest.mark.parametrize("content", ["hole", "empty lines"])
def test_a_poll_that_finds_no_row_returns_and_the_next_one_goes_on(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lines"
    with path.open("wb") as file:
        if content == "hole":
            file.truncate(3 * TURN)
            file.seek(0, os.SEEK_END)
        else:
            file.write(b"\n" * (3 * TURN))
        file.write(b"\nrow\n")
    records = FileRecords("ndjson", max_payload_bytes=1000)
    records.add(os.open(path, os.O_RDONLY), 0, 0)
    records.exhausted()
    sink = CountingSink()
    for turn in (1, 2, 3):
        assert poll(records, sink) == MORE
        assert turn * TURN <= records.bytes_read <= turn * (TURN + BLOCK)
        assert sink.count == 0
    while poll(records, sink) != END:
        pass
    assert (sink.count, sink.payload_bytes) == ((2, 3 * TURN + 3) if content == "hole" else (1, 3))
    records.close()


def test_a_followed_file_without_a_row_leaves_others_their_turns_and_is_read_once(tmp_path: Path) -> None:
    hole, grows = tmp_path / "hole", tmp_path / "grows"
    with hole.open("wb") as file:
        file.truncate(6 * TURN)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    grows.touch()
    records = FileRecords("ndjson", max_payload_bytes=1000, follow=True)
    for partition, path in enumerate((hole, grows)):
        records.add(os.open(path, os.O_RDONLY), partition, 0, last=False)
    sink = CountingSink()
    turns = 0
    with grows.open("ab") as file:
        while sink.payload_bytes < 6 * TURN:
            outcome = poll(records, sink)
            if outcome == CALL:
                records.attended()
            elif outcome == MORE and records.bytes_read < 6 * TURN:
                turns += 1
                assert sink.count == turns - 1
                file.write(b"row\n")
                file.flush()
    assert turns >= 5
    assert records.bytes_read < 7 * TURN
    records.close()


def test_of_a_record_that_no_dead_letter_can_hold_only_the_beginning_is_spilled() -> None:
    most, more = 256 << 20, 40 << 20
    read_end, write_end = os.pipe()
    block = b"x" * (1 << 20)

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            for _ in range((most + more) >> 20):
                pipe.write(block)
            pipe.write(b"\nnext\n")

    writer = threading.Thread(target=write)
    writer.start()
    with tempfile.TemporaryFile() as spill:
        records = FileRecords("ndjson", max_payload_bytes=1000)
        records.spill_to(os.dup(spill.fileno()))
        records.add(read_end, 0, 0, stream=True)
        records.exhausted()
        sink = CountingSink()
        while poll(records, sink, timeout_us=1_000_000) in (IDLE, MORE):
            pass
        assert (sink.count, sink.payload_bytes) == (2, most + more + 4)
        facts = os.fstat(spill.fileno())
        assert facts.st_blocks * 512 < most + (more >> 1)
        records.close()
    writer.join()


@pytest.mark.parametrize("size", [2000, 3 * BLOCK])
def test_bytes_of_a_stream_that_cannot_be_kept_are_waited_for(size: int) -> None:
    read_end, write_end = os.pipe()
    payloads = [b"before", os.urandom(size // 2).hex().encode(), b"after"]

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(b"\n".join(payloads))

    writer = threading.Thread(target=write)
    writer.start()
    records = FileRecords("ndjson", max_payload_bytes=1000, block_bytes=1500)
    records.spill_to(os.open("/dev/full", os.O_RDWR))
    records.add(read_end, 0, 0, stream=True)
    records.exhausted()
    sink = CollectingSink()
    for _ in range(3):
        while (outcome := poll(records, sink, timeout_us=1_000_000)) in (IDLE, MORE):
            pass
        assert (outcome, records.spill_error(), sink.payloads) == (SPOOL, errno.ENOSPC, payloads[:1])
        ((_partition, position, *_, error),) = records.states()
        assert (position, error) == (7, 0)
    with tempfile.TemporaryFile() as spill:
        records.spill_to(os.dup(spill.fileno()))
        while poll(records, sink, timeout_us=1_000_000) in (IDLE, MORE):
            pass
    assert sink.payloads == payloads
    records.close()
    writer.join()
