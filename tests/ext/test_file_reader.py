"""FileRecords: records cut at every block boundary, ends of files, streams, read errors."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast._ext.collecting_sink import (
    CALL,
    END,
    FAILED,
    IDLE,
    MORE,
    STALLED,
    CollectingSink,
    CountingSink,
    Incoming,
    poll,
    wake,
)
from pythia_fast._ext.file_reader import FileRecords, frames_end


def cut(
    content: bytes, form: str, *, block: int = 16, most: int = 1 << 20, record_bytes: int = 0, stalls: int | None = None
) -> CollectingSink:
    """Everything the native part makes of a file, read in small blocks, stalling at each message when asked to."""
    return cut_to_ends(content, form, block=block, most=most, record_bytes=record_bytes, stalls=stalls)[0]


def cut_to_ends(
    content: bytes,
    form: str,
    *,
    block: int = 16,
    most: int = 1 << 20,
    record_bytes: int = 0,
    stalls: int | None = None,
    offset: int = 0,
    **options: Any,
) -> tuple[CollectingSink, tuple[int, int, int]]:
    """The same, and where it ended."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        records = FileRecords(form, max_payload_bytes=most, record_bytes=record_bytes, block_bytes=block)
        records.add(os.dup(file.fileno()), 0, offset, **options)
        records.exhausted()
        sink = CollectingSink(stall_after=stalls)
        while (result := poll(records, sink, 7)) != END:
            assert result != FAILED
            if result == STALLED:
                sink.stall_after(sink.count + 1)
        ends = records.ends(0)
        records.close()
        return sink, ends


def split_newlines(content: bytes) -> list[bytes]:
    parts = content.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


pieces = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"{}", b"x" * 15, b"y" * 16, b"z" * 33, b"\x00\xff", b" "]), max_size=30
)


@settings(max_examples=200, deadline=None)
@given(pieces.map(b"".join), st.integers(16, 40), st.sampled_from([3, 20, 1000]), st.booleans())
def test_lines_are_cut_at_any_block_boundary(content: bytes, block: int, most: int, stalling: bool) -> None:
    sink = cut(content, "ndjson", block=block, most=most, stalls=0 if stalling else None)
    assert [(m.payload, m.offset, m.next_offset) for m in sink.messages] == lines_of(content)


def lines_of(content: bytes) -> list[tuple[bytes, int, int]]:
    """(payload, offset, next offset) of every line that is not empty."""
    found = []
    at = 0
    for line in split_newlines(content):
        payload = line.removesuffix(b"\n")
        if payload not in (b"", b"\r"):
            found.append((payload, at, at + len(line)))
        at += len(line)
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(16, 40), st.sampled_from([3, 1000]), st.booleans())
def test_frames_are_cut_at_any_block_boundary(payloads: list[bytes], block: int, most: int, stalling: bool) -> None:
    content = b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)
    sink = cut(content, "msgpack-frames", block=block, most=most, stalls=0 if stalling else None)
    assert sink.payloads == payloads
    ends = np.cumsum([4 + len(payload) for payload in payloads]).tolist()
    assert [m.next_offset for m in sink.messages] == ends
    assert [m.offset for m in sink.messages] == [0, *ends[:-1]][: len(ends)]


@given(st.binary(max_size=200), st.integers(1, 60), st.integers(16, 40), st.sampled_from([3, 1000]), st.booleans())
def test_fixed_records_are_cut_at_any_block_boundary(
    content: bytes, size: int, block: int, most: int, final: bool
) -> None:
    sink, ends = cut_to_ends(content, "fixed", block=block, most=most, record_bytes=size, final=final)
    waiting = len(content) % size
    wanted = [(content[at : at + size], len(content) - at < size) for at in range(0, len(content), size)]
    if waiting and not final:
        wanted.pop()
        assert ends == (len(content) - waiting, len(content) - waiting, waiting)
    else:
        assert ends == (len(content), len(content), 0)
    assert [(message.payload, message.cut) for message in sink.messages] == wanted


HALF = struct.pack("<I", 100) + b"half" * 10


@pytest.mark.parametrize("most", [3, 1000])
@pytest.mark.parametrize("kept", [*range(1, 9), 40])
def test_half_a_frame_waits_or_is_refused_where_nothing_can_follow(kept: int, most: int) -> None:
    whole = struct.pack("<I", 5) + b"whole"
    content = whole + HALF[:kept]
    sink, ends = cut_to_ends(content, "msgpack-frames", most=most)
    assert (sink.payloads, ends) == ([b"whole"], (len(whole), len(whole), kept))
    sink, ends = cut_to_ends(content, "msgpack-frames", most=most, final=True)
    assert [(m.payload, m.cut) for m in sink.messages] == [(b"whole", False), (HALF[4:kept], True)]
    assert ends == (len(content), len(content), 0)


@settings(max_examples=200, deadline=None)
@given(pieces.map(b"".join), st.integers(0, 200), st.integers(16, 40), st.sampled_from([3, 1000]))
def test_a_line_that_was_read_half_is_read_whole(content: bytes, cut_at: int, block: int, most: int) -> None:
    first = cut(content[:cut_at], "ndjson").messages
    position = first[-1].next_offset if first else 0
    begin = content.rfind(b"\n", 0, position) + 1
    then = cut_to_ends(content, "ndjson", block=block, most=most, offset=begin, handled=position)[0].messages

    def places(messages: list[Incoming]) -> list[tuple[bytes, int]]:
        return [(m.payload.removesuffix(b"\r"), m.offset) for m in messages if m.payload is not None]

    lines = {(payload.removesuffix(b"\r"), at) for payload, at, _ in lines_of(content)}
    assert set(places(then)) <= lines <= {*places(first), *places(then)}
    assert not {*places(first)} & {*places(then)}


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 1000))
def test_the_end_of_the_last_whole_frame(payloads: list[bytes], size: int) -> None:
    content = b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)[:size]
    ends = [0, *np.cumsum([4 + len(payload) for payload in payloads]).tolist()]
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        assert frames_end(file.fileno(), len(content)) == max(end for end in ends if end <= len(content))


def test_the_end_of_the_last_whole_frame_of_a_file_of_many_blocks() -> None:
    frames = [struct.pack("<I", size) + b"x" * size for size in [*range(0, 3000, 7), 200_000, 5, 65_532, 65_533]]
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(frames) + HALF)
        file.flush()
        size = os.fstat(file.fileno()).st_size
        assert frames_end(file.fileno(), size) == size - len(HALF)
        with pytest.raises(OSError, match="Bad file descriptor"):
            frames_end(-1, size)


def test_poll_waits_for_a_pipe_until_it_is_written_or_woken() -> None:
    read_end, write_end = os.pipe()
    records = FileRecords("ndjson", max_payload_bytes=100)
    records.add(read_end, 0, 0, stream=True)
    sink = CountingSink()
    assert poll(records, sink, timeout_us=1000) == IDLE
    results: list[int] = []
    waiter = threading.Thread(target=lambda: results.append(poll(records, sink, timeout_us=100_000_000)))
    waiter.start()
    os.write(write_end, b"x\n")
    waiter.join(30)
    assert sink.count == 1
    waiter = threading.Thread(target=lambda: results.append(poll(records, sink, timeout_us=100_000_000)))
    waiter.start()
    wake(records)
    waiter.join(30)
    assert results == [MORE, IDLE]
    records.close()
    os.close(write_end)


def test_a_read_error_is_named(tmp_path: Path) -> None:
    records = FileRecords("ndjson", max_payload_bytes=100)
    records.add(os.open(tmp_path, os.O_RDONLY), 3, 0)
    assert poll(records, CountingSink()) == FAILED
    ((partition, position, _done, _shrunk, error),) = records.states()
    assert (partition, position, os.strerror(error)) == (3, 0, "Is a directory")
    records.close()


def follow_many(path: Path, count: int) -> tuple[FileRecords, CollectingSink]:
    """The same file ``count`` times, followed, and its rows read."""
    records = FileRecords("ndjson", max_payload_bytes=1 << 20, follow=True)
    for partition in range(count):
        records.add(os.open(path, os.O_RDONLY), partition, 0, last=False)
    records.attended()
    sink = CollectingSink()
    while sink.count < count:
        if poll(records, sink, timeout_us=1000) == CALL:
            records.attended()
    return records, sink


def test_many_followed_files_are_looked_at_less_often_however_often_it_is_polled(tmp_path: Path) -> None:
    path, count = tmp_path / "log", 600
    path.write_bytes(b"1\n")
    records, sink = follow_many(path, count)
    before, since = records.looks, time.monotonic()
    for _ in range(1000):
        poll(records, sink)
    assert records.looks - before <= count * (2 + (time.monotonic() - since) / 0.02)  # twice 10 ms, at the least
    with path.open("ab") as file:
        file.write(b"2\n")
    while sink.count < 2 * count:
        if poll(records, sink, timeout_us=1000) == CALL:
            records.attended()
    records.close()


@pytest.mark.parametrize(("count", "interval_s"), [(1, 0.1), (600, 0.2)])
def test_many_followed_files_are_attended_less_often(tmp_path: Path, count: int, interval_s: float) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    records, sink = follow_many(path, count)
    since = time.monotonic()
    records.attended()
    while poll(records, sink, timeout_us=1000) != CALL:
        pass
    assert time.monotonic() - since >= interval_s
    records.close()


def test_a_file_is_found_by_its_partition_among_others(tmp_path: Path) -> None:
    records = FileRecords("ndjson", max_payload_bytes=1 << 20)
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    fds = {partition: os.open(path, os.O_RDONLY) for partition in (0, 1, 4, 7, 9)}
    for partition, fd in fds.items():
        records.add(fd, partition, 0)
    records.remove(4)
    del fds[4]
    assert {partition: records.fd(partition) for partition in fds} == fds
    for partition in (2, 4, 10):
        with pytest.raises(KeyError):
            records.fd(partition)
    records.close()
