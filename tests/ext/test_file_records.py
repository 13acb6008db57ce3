"""Files of whole records: payload, key, headers and time of each; what is damaged or cut; the pace of their times."""

from __future__ import annotations

import os
import struct
import tempfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext.collecting_sink import END, IDLE, CollectingSink, Incoming, poll
from pythia_fast._ext.file_reader import FileRecords
from pythia_fast.brokers.framing import FramedRecord, Place, encode_headers, frame_record

HEADERS = encode_headers([("a", b"1"), ("a", None)])


def in_file(*framed: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in framed)


def reader_of(content: bytes, *, pace: float = 0, block: int = 16) -> FileRecords:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        records = FileRecords("records", max_payload_bytes=1000, block_bytes=block, pace=pace)
        records.add(os.dup(file.fileno()), 0, 0)
    records.exhausted()
    return records


def read(content: bytes, block: int = 16) -> list[Incoming]:
    records, sink = reader_of(content, block=block), CollectingSink()
    while poll(records, sink, 3) != END:
        pass
    return sink.messages


optional = st.none() | st.binary(max_size=40)
times = st.integers(-1, 2**50)


@given(
    st.lists(st.tuples(optional, st.sampled_from([b"", HEADERS]), optional, st.none() | times.map(Place))),
    st.integers(16, 200),
)
def test_messages_come_back_as_they_were_recorded(
    records: list[tuple[bytes | None, bytes, bytes | None, Place | None]], block: int
) -> None:
    content = in_file(*(frame_record(payload, key, headers, place) for key, headers, payload, place in records))
    messages = read(content, block)
    assert [(m.key, m.headers, m.payload) for m in messages] == [record[:3] for record in records]
    assert [m.timestamp_ms for m in messages] == [-1 if p is None else p.timestamp_ms for *_, p in records]
    assert not any(m.cut for m in messages)
    assert [m.offset for m in messages[1:]] == [m.next_offset for m in messages[:-1]]


@pytest.mark.parametrize("damage", [b"", b"abc", b"\0" * 11, b"\xff" * 40, frame_record(b"x") + b"y"])
def test_what_is_no_record_costs_itself_only(damage: bytes) -> None:
    good = frame_record(b"good", b"k", HEADERS, Place(7))
    before, damaged, after = read(in_file(good, damage, good))
    assert (before.payload, before.cut, after.payload, after.cut) == (b"good", False, b"good", False)
    assert damaged.cut
    assert damaged.payload == damage or not damage


@given(st.data())
def test_half_a_record_is_left(data: st.DataObject) -> None:
    whole = in_file(frame_record(b"first", None, b"", Place(1)))
    half = in_file(frame_record(b"second", b"k", HEADERS, Place(2)))
    cut = data.draw(st.integers(0, len(half) - 1))
    assert [m.payload for m in read(whole + half[:cut])] == [b"first"]


def test_a_pace_keeps_the_distances_of_the_times() -> None:
    times_ms = [1000, 1100, -1, 1050, 1300]
    content = in_file(*(frame_record(b"%d" % t, None, b"", Place(t)) for t in times_ms))
    records, sink = reader_of(content, pace=2.0), CollectingSink()
    arrived: list[float] = []
    began = time.monotonic()
    outcome = IDLE
    while outcome != END:
        outcome = poll(records, sink, 100, 20_000)
        arrived += [time.monotonic() - began] * (len(sink.messages) - len(arrived))
    assert [m.timestamp_ms for m in sink.messages] == times_ms
    # Without a time, or with an earlier one than was sent already, a message comes with the one before it.
    assert arrived[1] >= 0.05
    assert arrived[4] >= 0.15
    assert arrived[3] < arrived[4]


def test_records_without_a_place_have_no_time() -> None:
    record = FramedRecord(None, b"", b"x")
    (message,) = read(in_file(frame_record(record.payload)))
    assert (message.payload, message.timestamp_ms, message.key) == (b"x", -1, None)
