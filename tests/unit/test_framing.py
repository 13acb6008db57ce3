"""Framed records and encoded headers: a round trip, and every cut-off end is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.brokers.framing import (
    FramedRecord,
    Place,
    decode_headers,
    encode_headers,
    frame_record,
    iterate_records,
)

optional_bytes = st.none() | st.binary(max_size=40)
header_lists = st.lists(st.tuples(st.text(max_size=12), optional_bytes), max_size=5)


@given(header_lists)
def test_headers_come_back(headers: list[tuple[str, bytes | None]]) -> None:
    assert decode_headers(encode_headers(headers)) == headers


@given(header_lists.filter(bool), st.data())
def test_cut_off_headers_are_refused(headers: list[tuple[str, bytes | None]], data: st.DataObject) -> None:
    encoded = encode_headers(headers)
    whole = {len(encode_headers(headers[:count])) for count in range(len(headers) + 1)}
    cut = data.draw(st.integers(0, len(encoded)).filter(lambda at: at not in whole))
    with pytest.raises(ValueError):
        decode_headers(encoded[:cut])


def test_no_headers_are_no_bytes() -> None:
    assert encode_headers(None) == encode_headers([]) == b""


def test_a_name_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="70000 bytes long"):
        encode_headers([("n" * 70_000, b"")])


numbers = st.integers(-1, 2**63 - 1)
places = st.none() | st.builds(Place, numbers, numbers, st.integers(-1, 2**31 - 1), st.binary(max_size=20))


@given(st.lists(st.builds(FramedRecord, optional_bytes, header_lists.map(encode_headers), optional_bytes, places)))
def test_records_come_back(records: list[FramedRecord]) -> None:
    framed = b"".join(frame_record(record.payload, record.key, record.headers, record.place) for record in records)
    assert list(iterate_records(memoryview(framed))) == records


@given(st.builds(FramedRecord, optional_bytes, st.just(b""), optional_bytes, places), st.data())
def test_a_record_that_ends_outside_is_refused(record: FramedRecord, data: st.DataObject) -> None:
    framed = frame_record(record.payload, record.key, record.headers, record.place)
    cut = data.draw(st.integers(1, len(framed) - 1))
    with pytest.raises(ValueError, match="ends outside the buffer"):
        list(iterate_records(framed[:cut]))
