"""row_encoder.pyx: numbers and strings as text, MessagePack forms, framing, and regions that fill up."""

from __future__ import annotations

import datetime
import json
import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext import row_encoder as rows_c
from pythia_fast._ext.row_encoder import RowEncoder, encode_payloads
from pythia_fast.brokers.framing import iterate_records

UTC = datetime.UTC
INTEGERS = {
    rows_c.INT8: np.int8,
    rows_c.INT16: np.int16,
    rows_c.INT32: np.int32,
    rows_c.INT64: np.int64,
    rows_c.UINT8: np.uint8,
    rows_c.UINT16: np.uint16,
    rows_c.UINT32: np.uint32,
    rows_c.UINT64: np.uint64,
}


def write(kind: int, values: Any, *, msgpack: bool = False, valid: Any = None) -> list[bytes]:
    """The values of one column as their encoded bytes."""
    rows = RowEncoder(len(values), msgpack, 1)
    prefix = b"\xa1v" if msgpack else b'"v":'
    if isinstance(values, tuple):
        rows.add_objects(prefix, kind, values)
    else:
        rows.add_values(prefix, kind, values, valid)
    region = bytearray(4096 + 256 * len(values) + 6 * sum(len(v) for v in values if isinstance(v, (str, bytes))))
    code, row, _, size, records = rows.encode(region, 0, rows.rows)
    assert (code, row, records) == (rows_c.DONE, len(values), len(values))
    payloads = [record.payload or b"" for record in iterate_records(memoryview(region)[:size])]
    if msgpack:
        return [payload.removeprefix(b"\x81" + prefix) for payload in payloads]
    return [payload.removeprefix(b"{" + prefix).removesuffix(b"}") for payload in payloads]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_a_double_is_written_as_its_repr(values: list[float]) -> None:
    assert write(rows_c.FLOAT64, np.array(values)) == [repr(value).encode() for value in values]


def test_doubles_of_every_magnitude_are_written_as_their_repr() -> None:
    generator = np.random.default_rng(7)
    bits = generator.integers(0, 1 << 64, 200_000, dtype=np.uint64, endpoint=False).view(np.float64)
    powers = np.ldexp(1.0, np.arange(-1074, 1024))
    tens = np.array([float(f"1e{k}") for k in range(-323, 309)])
    prices = np.round(generator.uniform(-1e6, 1e6, 50_000), 2)
    edges = [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e16, 9999999999999998.0, 1e-4, 1e-5]
    values = np.concatenate([bits[np.isfinite(bits)], powers, np.nextafter(powers, 0), tens, prices, edges])
    assert write(rows_c.FLOAT64, values) == [repr(value).encode() for value in values.tolist()]


def test_json_has_null_for_what_is_no_number() -> None:
    values = np.array([math.nan, math.inf, -math.inf, 1.0])
    assert write(rows_c.FLOAT64, values) == [b"null", b"null", b"null", b"1.0"]
    assert write(rows_c.FLOAT32, values.astype(np.float32)) == [b"null", b"null", b"null", b"1.0"]


def test_msgpack_keeps_every_bit_of_a_float() -> None:
    values = np.array([math.nan, math.inf, -0.0, 0.1])
    assert write(rows_c.FLOAT64, values, msgpack=True) == [b"\xcb" + struct.pack(">d", v) for v in values]
    narrow = values.astype(np.float32)
    assert write(rows_c.FLOAT32, narrow, msgpack=True) == [b"\xca" + struct.pack(">f", v) for v in narrow]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("msgpack", [False, True])
def test_integers_of_every_width_are_written_as_msgspec_writes_them(kind: int, msgpack: bool) -> None:
    limits = np.iinfo(INTEGERS[kind])
    near = {0, 1, limits.min, limits.max}
    near |= {sign * 10**k + d for k in range(20) for d in (-1, 0, 1) for sign in (1, -1)}
    near |= {sign * 2**k + d for k in range(65) for d in (-1, 0, 1) for sign in (1, -1)} | {-32, -33}
    values = sorted(v for v in near if limits.min <= v <= limits.max)
    encode = msgspec.msgpack.encode if msgpack else msgspec.json.encode
    assert write(kind, np.array(values, INTEGERS[kind]), msgpack=msgpack) == [encode(v) for v in values]


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_strings_are_written_as_msgspec_writes_them(values: list[str | None]) -> None:
    assert write(rows_c.STRING, tuple(values)) == [msgspec.json.encode(value) for value in values]
    assert write(rows_c.STRING, tuple(values), msgpack=True) == [msgspec.msgpack.encode(value) for value in values]


def test_each_byte_at_each_place_of_a_word_is_escaped_as_msgspec_does() -> None:
    values = tuple("x" * place + chr(code) + "y" * 9 for code in range(256) for place in range(17))
    assert write(rows_c.STRING, values) == [msgspec.json.encode(value) for value in values]


@given(st.lists(st.none() | st.binary(), min_size=1))
def test_bytes_are_written_as_msgspec_writes_them(values: list[bytes | None]) -> None:
    assert write(rows_c.BYTES, tuple(values)) == [msgspec.json.encode(value) for value in values]
    assert write(rows_c.BYTES, tuple(values), msgpack=True) == [msgspec.msgpack.encode(value) for value in values]


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65535, 65536])
def test_msgpack_picks_the_shortest_head(size: int) -> None:
    assert write(rows_c.STRING, ("a" * size,), msgpack=True) == [msgspec.msgpack.encode("a" * size)]
    assert write(rows_c.BYTES, (b"a" * size,), msgpack=True) == [msgspec.msgpack.encode(b"a" * size)]


@given(st.lists(st.datetimes(), min_size=1))
def test_datetimes_are_written_as_msgspec_writes_them(naive: list[datetime.datetime]) -> None:
    values = np.array(naive, "datetime64[us]").view(np.int64)
    aware = [value.replace(tzinfo=UTC) for value in naive]
    assert write(rows_c.DATETIME, values) == [msgspec.json.encode(value) for value in aware]
    written = write(rows_c.DATETIME, values, msgpack=True)
    assert [msgspec.msgpack.decode(value) for value in written] == aware


@pytest.mark.parametrize("micros", [-62135596800000001, 253402300800000000])
@pytest.mark.parametrize("msgpack", [False, True])
def test_a_datetime_that_no_calendar_holds_fails_its_row(micros: int, msgpack: bool) -> None:
    rows = RowEncoder(2, msgpack, 1)
    rows.add_values(b'"v":', rows_c.DATETIME, np.array([0, micros]))
    code, row, column, _, records = rows.encode(bytearray(200), 0, 2)
    assert (code, row, column, records) == (rows_c.BAD_DATETIME, 1, 0, 1)


def test_nulls_come_from_masks_and_bitmaps() -> None:
    values = np.arange(4)
    assert write(rows_c.INT64, values, valid=np.array([1, 0, 1, 0], np.uint8)) == [b"0", b"null", b"2", b"null"]
    rows = RowEncoder(4, False, 1)
    rows.add_bits(b'"v":', rows_c.BOOL_BITS, b"\b", 1)
    rows.set_valid_bits(b"\x78", 2)
    region = bytearray(400)
    _, _, _, size, _ = rows.encode(region, 0, rows.rows)
    payloads = [record.payload for record in iterate_records(memoryview(region)[:size])]
    assert payloads == [b'{"v":null}', b'{"v":false}', b'{"v":true}', b'{"v":false}']


def test_strided_and_reversed_values() -> None:
    values = np.arange(20, dtype=np.int32)
    assert write(rows_c.INT32, values[::-3]) == [str(v).encode() for v in values[::-3]]
    assert write(rows_c.INT32, np.broadcast_to(np.int32(7), 3)) == [b"7"] * 3


@pytest.mark.parametrize("width", [np.int32, np.int64])
def test_strings_in_arrow_layout(width: Any) -> None:
    rows = RowEncoder(3, False, 1)
    offsets = np.array([1, 3, 3, 6], width)
    rows.add_spans(b'"v":', rows_c.STRING, offsets, b"xab\xc3\xa9c", np.array([1, 1, 1], np.uint8))
    region = bytearray(200)
    _, _, _, size, _ = rows.encode(region, 0, rows.rows)
    payloads = [json.loads(record.payload or b"")["v"] for record in iterate_records(memoryview(region)[:size])]
    assert payloads == ["ab", "", "éc"]


@pytest.mark.parametrize("offsets", [[0, 2, 1], [0, 2, 9], [-1, 0, 1], [0, 1]])
def test_offsets_outside_the_data_are_refused(offsets: list[int]) -> None:
    rows = RowEncoder(2, False, 1)
    with pytest.raises(ValueError, match=r"offsets|items"):
        rows.add_spans(b'"v":', rows_c.STRING, np.array(offsets, np.int32), b"abc")


@pytest.mark.parametrize("msgpack", [False, True])
@pytest.mark.parametrize(
    "bad", [b"\xff", b"abc\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"12345678\x80"]
)
def test_text_that_is_no_utf8_fails_its_row(bad: bytes, msgpack: bool) -> None:
    rows = RowEncoder(2, msgpack, 1)
    rows.add_spans(b'"v":', rows_c.STRING, np.array([0, 2, 2 + len(bad)], np.int32), b"ok" + bad)
    code, row, column, size, records = rows.encode(bytearray(200), 0, 2)
    assert (code, row, column, records) == (rows_c.BAD_UTF8, 1, 0, 1)
    assert size > 0


def test_a_buffer_that_is_too_short_is_refused() -> None:
    rows = RowEncoder(3, False, 1)
    with pytest.raises(ValueError, match="2 items, 3 are needed"):
        rows.add_values(b'"v":', rows_c.INT64, np.arange(2))
    with pytest.raises(ValueError, match="8-byte items"):
        rows.add_values(b'"v":', rows_c.INT64, np.arange(3, dtype=np.int32))
    with pytest.raises(ValueError, match="columns are missing"):
        rows.encode(bytearray(100), 0, 3)


@pytest.mark.parametrize("msgpack", [False, True])
@given(
    values=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=40)), min_size=1),
    region_bytes=st.integers(0, 400),
)
def test_a_region_of_any_size_gives_the_same_records(
    msgpack: bool, values: list[tuple[int, float, str]], region_bytes: int
) -> None:
    ints, floats, texts = zip(*values, strict=True)
    rows = RowEncoder(len(values), msgpack, 3)
    for name, kind, column in (("i", rows_c.INT64, np.array(ints)), ("f", rows_c.FLOAT64, np.array(floats))):
        rows.add_values(name.encode(), kind, column)
    rows.add_objects(b"s", rows_c.STRING, texts)
    rows.add_values(None, rows_c.INT64, np.array(ints))

    def drain(size: int) -> list[Any]:
        records: list[Any] = []
        start, guard = 0, b"\xaa" * 16
        while start < len(values):
            region = bytearray(size) + guard
            code, row, _, used, count = rows.encode(memoryview(region)[:size], start, len(values))
            assert region[size:] == guard
            assert code == (rows_c.DONE if row == len(values) else rows_c.FULL)
            assert count == row - start
            if not count:
                return drain(2 * size + 1)
            records += iterate_records(memoryview(region)[:used])
            start = row
        return records

    records = drain(region_bytes)
    assert records == drain(1 << 16)
    assert [record.key for record in records] == [str(i).encode() for i in ints]


def name(text: str, msgpack: bool) -> bytes:
    """What stands before a value of that name."""
    return msgspec.msgpack.encode(text) if msgpack else msgspec.json.encode(text) + b":"


def written(rows: RowEncoder, msgpack: bool) -> list[Any]:
    """The rows, decoded."""
    region = bytearray(1 << 16)
    code, _, _, size, _ = rows.encode(region, 0, rows.rows)
    assert code == rows_c.DONE
    decode = msgspec.msgpack.decode if msgpack else msgspec.json.decode
    return [decode(record.payload or b"") for record in iterate_records(memoryview(region)[:size])]


def int32(*values: int) -> Any:
    return np.array(values, np.int32)


@pytest.mark.parametrize("msgpack", [False, True])
def test_lists_and_structs_stand_inside_each_other(msgpack: bool) -> None:
    rows = RowEncoder(3, msgpack, 8)
    rows.begin_struct(name("s", msgpack), np.array([1, 0, 1], np.uint8))
    rows.add_values(name("a", msgpack), rows_c.INT64, np.arange(3))
    rows.begin_list(name("l", msgpack), int32(0, 2, 2, 3), np.array([1, 1, 1], np.uint8))
    rows.begin_struct(b"", np.array([1, 0, 1], np.uint8))
    rows.begin_list(name("m", msgpack), int32(0, 1, 1, 1))
    rows.add_objects(b"", rows_c.STRING, ("x",))
    rows.end()
    rows.end()
    rows.end()
    rows.end()
    rows.begin_struct(name("empty", msgpack))
    rows.end()
    rows.add_values(name("z", msgpack), rows_c.INT64, np.arange(3))
    assert written(rows, msgpack) == [
        {"s": {"a": 0, "l": [{"m": ["x"]}, None]}, "empty": {}, "z": 0},
        {"s": None, "empty": {}, "z": 1},
        {"s": {"a": 2, "l": [{"m": []}]}, "empty": {}, "z": 2},
    ]


@pytest.mark.parametrize("n", [0, 1, 15, 16, 65535, 65536])
def test_a_list_of_any_length(n: int) -> None:
    for msgpack in (False, True):
        rows = RowEncoder(1, msgpack, 2)
        rows.begin_list(name("v", msgpack), int32(0, n))
        rows.add_values(b"", rows_c.UINT8, np.ones(n, np.uint8))
        rows.end()
        region = bytearray(1 << 18)
        _, _, _, size, _ = rows.encode(region, 0, 1)
        (record,) = iterate_records(memoryview(region)[:size])
        assert record.payload == (msgspec.msgpack if msgpack else msgspec.json).encode({"v": [1] * n})


@pytest.mark.parametrize("msgpack", [False, True])
def test_an_empty_encoded_value_is_absent_with_its_name(msgpack: bool) -> None:
    encode = (msgspec.msgpack if msgpack else msgspec.json).encode
    rows = RowEncoder(3, msgpack, 3)
    rows.add_objects(name("a", msgpack), rows_c.ENCODED, (b"", encode(1), None))
    rows.add_spans(name("b", msgpack), rows_c.ENCODED, int32(0, 0, 0, 1), encode(2))
    rows.add_objects(name("c", msgpack), rows_c.ENCODED, (b"", encode([]), encode(3)))
    assert written(rows, msgpack) == [{}, {"a": 1, "c": []}, {"a": None, "b": 2, "c": 3}]


def test_a_value_inside_a_list_fails_its_row() -> None:
    rows = RowEncoder(3, False, 2)
    rows.begin_list(b'"v":', int32(0, 1, 3, 4))
    rows.add_spans(b"", rows_c.STRING, int32(0, 1, 2, 3, 4), b"ab\xffd")
    rows.end()
    code, row, column, _, records = rows.encode(bytearray(200), 0, 3)
    assert (code, row, column, records) == (rows_c.BAD_UTF8, 1, 1, 1)


def test_what_does_not_fit_into_a_list_or_struct_is_refused() -> None:
    rows = RowEncoder(2, False, 9)
    with pytest.raises(ValueError, match="no list and no Struct is open"):
        rows.end()
    with pytest.raises(ValueError, match="2 items, 3 are needed"):
        rows.begin_list(b'"v":', int32(0, 1))
    with pytest.raises(ValueError, match="offsets must not fall"):
        rows.begin_list(b'"v":', int32(0, 2, 1))
    with pytest.raises(ValueError, match="offsets must be contiguous"):
        rows.begin_list(b'"v":', int32(0, 9, 1, 9, 2)[::2])
    rows.begin_list(b'"v":', int32(0, 1, 3))
    with pytest.raises(ValueError, match="2 items, 3 are needed"):
        rows.add_values(b"", rows_c.INT64, np.arange(2))
    with pytest.raises(ValueError, match="a list has one column"):
        rows.end()
    rows = RowEncoder(2, False, 3)
    rows.begin_list(b'"v":', int32(0, 1, 3))
    rows.add_values(b"", rows_c.INT64, np.arange(3))
    rows.add_values(b"", rows_c.INT64, np.arange(3))
    with pytest.raises(ValueError, match="columns are missing"):
        rows.encode(bytearray(100), 0, 2)
    with pytest.raises(ValueError, match="a list has one column"):
        rows.end()


def test_ready_payloads_are_framed_until_the_region_is_full() -> None:
    payloads = [b"one", b"", b"three"]
    region = bytearray(32)
    assert encode_payloads(payloads, region, 0, 3) == (rows_c.FULL, 2, 27, 2)
    assert [record.payload for record in iterate_records(memoryview(region)[:27])] == [b"one", b""]
    assert encode_payloads(payloads, region, 2, 3) == (rows_c.DONE, 3, 17, 1)


def test_rows_before_the_end_are_written_only() -> None:
    rows = RowEncoder(4, False, 1)
    rows.add_values(b'"v":', rows_c.INT64, np.arange(4))
    region = bytearray(200)
    code, row, _, size, records = rows.encode(region, 1, 3)
    assert (code, row, records) == (rows_c.DONE, 3, 2)
    assert [record.payload for record in iterate_records(memoryview(region)[:size])] == [b'{"v":1}', b'{"v":2}']
    assert encode_payloads([b"one", b"two", b"three"], region, 1, 2) == (rows_c.DONE, 2, 15, 1)
    for start, end in ((0, 5), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="outside the rows"):
            rows.encode(region, start, end)
        with pytest.raises(ValueError, match="outside the payloads"):
            encode_payloads([b""] * 4, region, start, end)
