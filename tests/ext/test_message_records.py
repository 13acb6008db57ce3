"""A batch's messages as framed records: as they came, whatever fits, and nothing from outside of the batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext.batch_memory import decode_private
from pythia_fast._ext.message_records import (
    BROKEN,
    DONE,
    FULL,
    WITH_OFFSET,
    WITH_PLACE,
    WITH_TIME,
    encode_messages,
)
from pythia_fast.batch import MESSAGE
from pythia_fast.brokers.framing import FramedRecord, Place, encode_headers, iterate_records
from pythia_fast.results.forwarding import verbatim

Message = tuple[bytes | None, bytes | None, bytes, int]  #: payload, key, headers, time
optional = st.none() | st.binary(max_size=30)
messages = st.lists(
    st.tuples(
        optional, optional, st.sampled_from([b"", encode_headers([("h", b"v"), ("n", None)])]), st.integers(-1, 2**40)
    ),
    max_size=20,
)
PLACES = [(0, b"orders", 3)]
ALL = WITH_PLACE + WITH_TIME + WITH_OFFSET


def batch_of(given_messages: list[Message]) -> tuple[np.ndarray, memoryview]:
    """The table and the raw region of a private batch; null payloads are rows of it."""
    decoding = verbatim()
    payloads, keys, headers, times = zip(*given_messages, strict=True) if given_messages else ((), (), (), ())
    memory, refusals = decode_private(
        decoding.plan, decoding.native(), list(payloads), list(keys), list(headers), list(times)
    )
    assert refusals == []
    table = np.frombuffer(memoryview(memory.messages()), MESSAGE)[: len(given_messages)].copy()
    return table, memoryview(memory.raw("test"))


def encoded(table: np.ndarray, raw: memoryview, what: int, room: int) -> list[FramedRecord]:
    """All of them, through regions of this size."""
    records: list[FramedRecord] = []
    start = 0
    while start < len(table):
        region = bytearray(room)
        code, row, used = encode_messages(table.view(np.uint8), raw, PLACES, what, region, start, len(table))
        assert code == (DONE if row == len(table) else FULL)
        assert row > start, "not even one fits"
        records += iterate_records(region[:used])
        start = row
    return records


@given(messages, st.sampled_from([0, WITH_TIME, WITH_PLACE, ALL]), st.integers(200, 2000))
def test_messages_are_framed_as_they_came(given_messages: list[Message], what: int, room: int) -> None:
    table, raw = batch_of(given_messages)
    records = encoded(table, raw, what, room)
    assert [(r.payload, r.key, r.headers) for r in records] == [m[:3] for m in given_messages]
    for index, (record, message) in enumerate(zip(records, given_messages, strict=True)):
        if what == 0:
            assert record.place is None
            continue
        assert record.place == Place(
            message[3] if what & WITH_TIME else -1,
            index if what & WITH_OFFSET else -1,
            3 if what & WITH_PLACE else -1,
            b"orders" if what & WITH_PLACE else b"",
        )


@pytest.mark.parametrize("field", ["payload_at", "key_at", "headers_at"])
def test_a_span_outside_of_the_batch_is_not_read(field: str) -> None:
    table, raw = batch_of([(b"payload", b"key", encode_headers([("h", b"v")]), 5)])
    table[0][field] = len(raw) - 1
    code, row, used = encode_messages(table.view(np.uint8), raw, PLACES, ALL, bytearray(500), 0, 1)
    assert (code, row, used) == (BROKEN, 0, 0)


def test_a_partition_without_a_place_is_told() -> None:
    table, raw = batch_of([(b"payload", None, b"", 5)])
    table[0]["partition"] = 9
    assert encode_messages(table.view(np.uint8), raw, PLACES, ALL, bytearray(500), 0, 1)[0] == BROKEN
    assert encode_messages(table.view(np.uint8), raw, [], 0, bytearray(500), 0, 1)[0] == DONE


def test_more_messages_than_the_table_has_are_refused() -> None:
    table, raw = batch_of([(b"payload", None, b"", 5)])
    with pytest.raises(ValueError, match="no table of 2 messages"):
        encode_messages(table.view(np.uint8), raw, PLACES, 0, bytearray(500), 0, 2)
    with pytest.raises(ValueError):
        encode_messages(table.view(np.uint8), raw, PLACES, 0, bytearray(500), 2, 1)
