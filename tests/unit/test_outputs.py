"""outputs.py: every shape that a handler may return, and what is refused."""

from __future__ import annotations

import datetime
import decimal
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.batch import Batch
from pythia_fast.brokers.framing import FramedRecord, iterate_records
from pythia_fast.errors import HandlerError, OutputValueError
from pythia_fast.results.outputs import OutputEncoder
from tests.support.sent_rows import column, records, rows

UTC = datetime.UTC


class Scored(msgspec.Struct):
    order_id: int
    score: float


def test_nothing_is_sent_for_none_and_for_no_rows() -> None:
    for nothing in (None, [], (), {"v": np.array([])}, {"v": []}, pa.table({"v": pa.array([], pa.string())})):
        assert records(nothing) == []


class Part(msgspec.Struct):
    a: int


class Whole(msgspec.Struct):
    id: int
    price: float | None = None
    name: str | None = None
    part: Part | None = None
    counts: list[int] | None = None


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_batch_is_sent_on_with_its_nulls(encoding: Literal["json", "msgpack"]) -> None:
    batch = Batch.decode([b'{"id":1}', b'{"id":2,"price":2.5,"name":"x","part":{"a":3},"counts":[4]}'], Whole)
    assert rows(batch, encoding) == [
        {"id": 1, "price": None, "name": None, "part": None, "counts": None},
        {"id": 2, "price": 2.5, "name": "x", "part": {"a": 3}, "counts": [4]},
    ]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_dict_of_columns_becomes_one_object_a_row(encoding: Literal["json", "msgpack"]) -> None:
    result = {"order_id": np.arange(3), "ok": np.array([True, False, True]), 'na"me': ["a", None, "é"]}
    assert rows(result, encoding) == [
        {"order_id": 0, "ok": True, 'na"me': "a"},
        {"order_id": 1, "ok": False, 'na"me': None},
        {"order_id": 2, "ok": True, 'na"me': "é"},
    ]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_names_of_a_str_subclass_are_what_they_hold(encoding: Literal["json", "msgpack"]) -> None:
    result = {name: [1] for name in np.array(["a", "b"])} | {np.str_("__key__"): ["k"]}
    (record,) = records(result, encoding)
    assert record.key == b"k"
    assert record.payload == records({"a": [1], "b": [1]}, encoding)[0].payload


@pytest.mark.parametrize("n", [1, 15, 16, 300])
def test_any_number_of_columns(n: int) -> None:
    result = {f"c{i}": np.array([i]) for i in range(n)}
    expected = [{f"c{i}": i for i in range(n)}]
    assert rows(result) == expected
    assert rows(result, "msgpack") == expected


def test_more_columns_than_a_short_map_can_count() -> None:
    region = memoryview(bytearray(1 << 20))
    encoded = OutputEncoder("msgpack").open({f"{i:05}": [i] for i in range(1 << 16)}).write(region)
    (record,) = iterate_records(region[: encoded.bytes])
    assert msgspec.msgpack.decode(record.payload or b"") == {f"{i:05}": i for i in range(1 << 16)}


NIGHT = "2020-01-01T00:00:00Z"
NIGHTS = np.array([["2020-01-01", "2020-01-01"], ["NaT", "2020-01-01"]], "datetime64[ns]")


class OwnBytes(bytes):
    def __bytes__(self) -> bytes:
        return OwnBytes(b"something else")


class OwnText(str):
    __slots__ = ()

    def encode(self, *_: Any) -> Any:
        return 5


class OwnNumber(int):
    def __index__(self) -> int:
        return 0


class OwnFloat(float):
    __slots__ = ()


class Endless:
    """A column of three squares, whose __getitem__ knows no end."""

    def __repr__(self) -> str:
        return "endless"

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index * index


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([1, 2], np.uint8), [1, 2]),
        (np.array([1, -2], ">i4"), [1, -2]),
        (np.array([0.5, 2], np.float16), [0.5, 2.0]),
        (np.array([0.1], np.float32), [float(np.float32(0.1))]),
        (np.ma.array([1, 2, 3], mask=[0, 1, 0]), [1, None, 3]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.ma.array([[1.5, 2], [3, 4]], mask=[[1, 0], [0, 1]]), [[None, 2.0], [3.0, None]]),
        (np.ma.array([[[1], [2]]], mask=[[[0], [1]]]), [[[1], [None]]]),
        (np.ma.array(NIGHTS, mask=[[0, 1], [0, 0]]), [[NIGHT, None], [None, NIGHT]]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([b"a", b"bc"]), ["YQ==", "YmM="]),
        (np.array(["a", None, "b"], object), ["a", None, "b"]),
        (np.array(["2026-01-31", "NaT"], "datetime64[D]"), ["2026-01-31T00:00:00Z", None]),
        (np.array([1500, -1], "datetime64[ns]"), ["1970-01-01T00:00:00.000001Z", "1969-12-31T23:59:59.999999Z"]),
        (NIGHTS, [[NIGHT, NIGHT], [None, NIGHT]]),
        (list(NIGHTS[1]), [None, NIGHT]),
        ([{"a": NIGHTS[0, 0]}, [NIGHTS[0]], np.array(NIGHTS[0, 0])], [{"a": NIGHT}, [[NIGHT, NIGHT]], NIGHT]),
        ([np.datetime64("2020-01-01"), np.datetime64(-1, "ns")], [NIGHT, "1969-12-31T23:59:59.999999Z"]),
        (np.array([86_402_500, "NaT", -1], "m8[ms]"), ["P1DT2.5S", None, "-PT0.001S"]),
        (np.ma.array(np.array([1, 2], "m8[s]"), mask=[0, 1]), ["PT1S", None]),
        (np.array([[1500, -1]], ">m8[ns]"), [["PT0.000001S", "-PT0.000001S"]]),
        ([np.timedelta64(1, "D"), [np.timedelta64("NaT")], datetime.timedelta(1)], ["P1D", [None], "P1D"]),
        ([pd.Timedelta(days=1, hours=2), [pd.NaT, pd.NA]], ["P1DT7200S", [None, None]]),
        (["a", pd.NA, {"b": pd.NA}], ["a", None, {"b": None}]),
        ([1, 2.5, None, "x", [1], {"a": 1}], [1, 2.5, None, "x", [1], {"a": 1}]),
        ([np.int64(5), np.float64(2)], [5, 2.0]),
        (["x", 5], ["x", 5]),
        ([OwnText("x"), 5], ["x", 5]),
        ([5, OwnText("x"), [OwnText("y")], {"a": OwnNumber(6)}], [5, "x", ["y"], {"a": 6}]),
        ([OwnNumber(2**63), OwnFloat(0.5), OwnBytes(b"ab")], [2**63, 0.5, "YWI="]),
        ([Scored(1, 0.5)], [{"order_id": 1, "score": 0.5}]),
        ([decimal.Decimal("1.10")], ["1.10"]),
        ([None, None], [None, None]),
        (range(3), [0, 1, 2]),
        (Endless(), [0, 1, 4]),
    ],
    ids=str,
)
def test_what_a_column_may_be(values: Any, expected: list[Any]) -> None:
    assert column(values) == expected


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_timedelta_is_the_text_that_msgspec_writes(encoding: Literal["json", "msgpack"]) -> None:
    seconds = [np.timedelta64(90_061, "s")]
    for times in (np.array(seconds), pd.Series(seconds), seconds, [pd.Timedelta(seconds[0])]):
        assert column(times, encoding) == ["P1DT3661S"]


def test_columns_of_a_batch() -> None:
    class Row(msgspec.Struct):
        name: str | None
        blob: bytes
        tags: list[str]
        at: datetime.datetime

    stamp = datetime.datetime(2026, 1, 31, tzinfo=UTC)
    sent = [Row("é", b"a", ["x"], stamp), Row(None, b"", [], stamp), Row("", b"bc", ["y", "z"], stamp)]
    batch = Batch.decode([msgspec.msgpack.encode(row) for row in sent], Row, "msgpack")
    result = {name: batch[name] for name in batch.columns} | {"__key__": batch["name"]}
    encodings: tuple[Literal["json", "msgpack"], ...] = ("json", "msgpack")
    for encoding in encodings:
        found = records(result, encoding)
        decode: Any = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
        assert [decode(record.payload or b"", type=Row) for record in found] == sent
        assert [record.key for record in found] == ["é".encode(), None, b""]
    assert [row["name"] for row in rows({"name": batch["name"][np.array([True, False, True])]})] == ["é", ""]


def test_structured_arrays() -> None:
    table = np.array([(1, 0.5), (2, 1.5)], [("a", "i4"), ("b", "f8")])
    assert rows(table) == [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]


@pytest.mark.parametrize("night", [NIGHTS[0, 0], pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01T01", tz="CET")])
def test_an_instant_in_a_row_is_one_of_utc(night: Any) -> None:
    assert [record.payload for record in records([{"a": night, "b": [night]}])] == [
        f'{{"a":"{NIGHT}","b":["{NIGHT}"]}}'.encode()
    ]
    instant = datetime.datetime(2020, 1, 1, tzinfo=UTC)
    assert column([night, [night]], "msgpack") == [instant, [instant]]


def test_payloads_of_subclasses_are_the_bytes_that_they_hold() -> None:
    result = [*np.array([b"a", b""]), OwnBytes(b"b"), OwnText("é"), memoryview(b"abcd")[::2]]
    assert [record.payload for record in records(result)] == [b"a", b"", b"b", "é".encode(), b"ac"]


def test_a_list_is_one_payload_an_element() -> None:
    result = [b"raw", "text", bytearray(b"array"), Scored(1, 0.5), {"a": [1]}]
    payloads = [record.payload for record in records(result)]
    assert payloads == [b"raw", b"text", b"array", b'{"order_id":1,"score":0.5}', b'{"a":[1]}']
    assert records([Scored(1, 0.5)], "msgpack")[0].payload == msgspec.msgpack.encode(Scored(1, 0.5))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (np.array([7, -8]), [b"7", b"-8"]),
        ([2**70, 1], [str(2**70).encode(), b"1"]),
        (["x", 5], [b"x", b"5"]),
        (["a", None], [b"a", None]),
        ([b"\xff", b""], [b"\xff", b""]),
        (pa.array(["a", None]), [b"a", None]),
        (pa.array([5, None]), [b"5", None]),
        ([np.int64(-5), np.uint8(7)], [b"-5", b"7"]),
        ([7, np.str_("a")], [b"7", b"a"]),
    ],
    ids=str,
)
def test_a_key_column(keys: Any, expected: list[bytes | None]) -> None:
    found = records({"__key__": keys, "v": np.arange(2)})
    assert [record.key for record in found] == expected
    assert [record.payload for record in found] == [b'{"v":0}', b'{"v":1}']


class Counted:
    """A column of two values, it says."""

    def __init__(self, values: Callable[[], Iterator[int]]) -> None:
        self.values = values

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[int]:
        return self.values()


class Endless:
    """A column without a length, as a sparse matrix of SciPy."""

    def __len__(self) -> int:
        raise TypeError("ambiguous")


class Name(str):
    """A str that is equal to itself alone."""

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


TWICE = pa.StructArray.from_arrays([[1, 2], [3, 4]], ["x", "x"])


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"a": np.arange(3), "b": np.arange(2)}, r"equally long: 'a' has 3, 'b' has 2"),
        ({"a": np.arange(3), "b": 1.0}, r"column 'b' is one float"),
        ({"a": np.array(5)}, r"column 'a' is one ndarray"),
        ({"a": "text"}, r"column 'a' is one str"),
        ({"a": [1], "b": list}, r"column 'b' is one type"),
        ({"a": [1], "b": Endless()}, r"column 'b' is a Endless, which has no length: ambiguous"),
        ({Name("x"): [1], Name("x"): [1]}, r"more than one column 'x'"),
        ({"a": [1, 2], "b": {1, 2}}, r"column 'b' is a set, which has no order"),
        ({"a": frozenset([1])}, r"column 'a' is a frozenset"),
        ({"a": [1, 2], "b": Counted(lambda: itertools.count())}, r"'b' says that it has 2 values, and gives more"),
        ({"a": [1, 2], "b": Counted(lambda: iter([1]))}, r"'b' says that it has 2 values, and gives 1"),
        ({"a": np.arange(3) * 1j}, r"complex128"),
        ({"a": np.array([1], "timedelta64[M]")}, r"column 'a' is timedelta64\[M\]: .* has no fixed length"),
        ({"a": np.array([1], "timedelta64")}, r"column 'a' is timedelta64: .* without a unit"),
        ({"a": [1], "__key__": np.array([0.5])}, r"__key__.* bytes, str or integers"),
        ({"a": [1], "__key__": np.array([1], "M8[s]")}, r"__key__.* bytes, str or integers, not datetime64\[s\]"),
        ({"a": [1], "__key__": pa.array([True])}, r"__key__.* bytes, str or integers, not bool"),
        ({"a": [1], "__key__": pd.array([True], "bool[pyarrow]")}, r"__key__.* bytes, str or integers, not bool"),
        (
            {"a": np.zeros(2, [("x", "i4"), ("y", "f8")])},
            r"column 'a' is a structured array.*: give its fields \(x, y\)",
        ),
        ({"__key__": [1]}, r"no columns"),
        ({}, r"no columns"),
        ({1: [1]}, r"column names must be str"),
        (pa.Table.from_arrays([[1], [2]], ["x", "x"]), r"more than one column 'x'"),
        (pa.RecordBatch.from_arrays([[1], [2], [3]], ["a", "__key__", "__key__"]), r"more than one column '__key__'"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), r"more than one column 'x'"),
        ({"a": TWICE}, r"column 'a' holds structs with more than one field 'x'; .* rename the others"),
        ({"a": [1, 2], "__key__": TWICE}, r"column '__key__' holds structs with more than one field 'x'"),
        ({"a": pa.StructArray.from_arrays([TWICE], ["b"])}, r"column 'a' holds structs with more than one field 'x'"),
        ({"a": pa.ListArray.from_arrays([0, 2], TWICE)}, r"column 'a' holds structs with more than one field 'x'"),
        ({"a": pa.MapArray.from_arrays([0, 2], ["k", "l"], TWICE)}, r"column 'a' holds structs with more than one"),
        ({"\ud800": [1]}, r"column name .* lone surrogate"),
        (5, r"cannot return int"),
        ("text", r"cannot return str"),
        (Scored(1, 0.5), r"cannot return Scored"),
        (np.arange(3), r'cannot return ndarray without a name for its column, as in {"x": array}'),
    ],
)
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_what_is_no_result_is_refused(result: Any, says: str, encoding: Literal["json", "msgpack"]) -> None:
    with pytest.raises(HandlerError, match=says) as caught:
        OutputEncoder(encoding).open(result)
    assert not isinstance(caught.value, OutputValueError)


class Unspeakable:
    """Cannot be encoded, nor does its exception say why."""

    @property
    def __dataclass_fields__(self) -> Any:
        raise LookupError("no fields")


BROKEN_TEXT = pa.Array.from_buffers(
    pa.string(), 3, [None, pa.py_buffer(np.array([0, 1, 2, 3], np.int32)), pa.py_buffer(b"a\xffc")]
)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"a": ["x", "\ud800", "z"]}, "column 'a', row 1: a lone surrogate has no UTF-8 form"),
        ({"a": [b"x", "\ud800", "z"]}, "column 'a', row 1: UnicodeEncodeError: "),
        ({"a": [1, object(), 3]}, "column 'a', row 1: TypeError: object has no JSON or MessagePack form"),
        ({"a": [1, Unspeakable(), 3]}, "column 'a', row 1: "),
        ({"a": [1, np.longdouble(2), 3]}, f"column 'a', row 1: TypeError: {np.dtype(np.longdouble)} has no JSON"),
        ({"a": [1, [np.clongdouble(2)], 3]}, f"column 'a', row 1: TypeError: {np.dtype(np.clongdouble)} has no JSON"),
        ({"a": np.array([0, 253402300800, 1], "datetime64[s]")}, "column 'a', row 1: the datetime lies outside"),
        ({"a": np.array([0, 300_000, 1], "datetime64[Y]")}, "column 'a', row 1: the datetime lies outside"),
        ({"a": [1, np.datetime64(300_000, "Y"), 1]}, "column 'a', row 1: ValueError: the datetime lies outside"),
        ({"a": [1, [np.datetime64(2**62, "us")], 1]}, "column 'a', row 1: ValueError: the datetime lies outside"),
        (
            {"a": np.array([1, 2**50, 1], "m8[D]")},
            "column 'a', row 1: ValueError: the timedelta is longer than 292,000",
        ),
        ({"a": [1, np.timedelta64(1, "M"), 1]}, "column 'a', row 1: TypeError: timedelta64 .* has no fixed length"),
        ({"a": np.array([[0], [300_000], [1]], "datetime64[Y]")}, "column 'a', row 1: ValueError: the datetime lies"),
        ({"a": BROKEN_TEXT}, "column 'a', row 1: the string is not valid UTF-8"),
        ({"a": [1, 2, 3], "__key__": ["x", 0.5, 7]}, "column '__key__', row 1: a key is bytes, str or an integer"),
        (
            {"a": [1, 2, 3], "__key__": [0, True, 7]},
            "column '__key__', row 1: a key is bytes, str or an integer, not bool",
        ),
        ({"a": [1, 2, 3], "__key__": [0, 10**5000, 7]}, "column '__key__', row 1: ValueError: Exceeds the limit"),
        ({"a": [1, 2, 3], "__key__": ["x", "\ud800", "z"]}, "column '__key__', row 1: a lone surrogate"),
        ({"a": [1, object(), 3], "b": ["x", "\ud800", "z"]}, "column 'a', row 1: TypeError"),
        ({"a": ["x", "x" * 2000, "z"]}, "row 1: its record takes 2020 bytes, but the output region .* holds 1000"),
        ([b"x", None, b"z"], "row 1: TypeError: None is no record"),
        ([b"x", object(), b"z"], "row 1: TypeError: object has no JSON"),
        ([b"x", "\ud800", b"z"], "row 1: UnicodeEncodeError"),
        ([b"x", b"x" * 2000, b"z"], "row 1: its record takes 2012 bytes, but the output region .* holds 1000"),
    ],
)
def test_a_value_that_cannot_be_sent_is_the_fault_of_its_row_alone(result: Any, says: str) -> None:
    opened = OutputEncoder().open(result)
    found: list[FramedRecord] = []
    faults: list[OutputValueError] = []
    start, done = 0, False
    while not done:
        region = memoryview(bytearray(1000))
        used, _, done, start, fault = opened.write(region, start)
        found += iterate_records(region[:used])
        if fault is not None:
            assert fault.row == start
            faults.append(fault)
            start += 1
    assert [fault.row for fault in faults] == [1]
    assert re.search(says, str(faults[0]))
    assert found == records(result[::2] if isinstance(result, list) else {name: result[name][::2] for name in result})


def test_the_last_row_may_be_the_faulty_one() -> None:
    region = memoryview(bytearray(1000))
    opened = OutputEncoder().open({"a": [object(), 1, object()]})
    first = opened.write(region)
    assert (first.records, first.resume, first.fault and first.fault.row) == (0, 0, 0)
    second = opened.write(region, 1)
    assert (second.records, second.resume, second.fault and second.fault.row) == (1, 2, 2)
    assert opened.write(region, 3) == (0, 0, True, 3, None)


def test_a_masked_datetime_is_no_fault() -> None:
    values = np.ma.array(np.array([0, 300_000], "datetime64[Y]"), mask=[False, True])
    assert column(values) == ["1970-01-01T00:00:00Z", None]


def test_a_record_too_large_for_what_is_left_of_a_region_is_no_fault() -> None:
    opened = OutputEncoder().open({"a": ["x", "x" * 2000]})
    region = memoryview(bytearray(1000))
    first = opened.write(region)
    assert (first.records, first.done, first.resume, first.fault) == (1, False, 1, None)
    assert opened.write(region, 1, whole=False) == (0, 0, False, 1, None)
    assert opened.write(memoryview(bytearray(3000)), 1) == (2020, 1, True, 2, None)


@given(st.lists(st.binary(max_size=50) | st.integers(), min_size=1), st.integers(62, 300))
def test_a_list_is_resumed_where_the_region_was_full(result: list[Any], region_bytes: int) -> None:
    opened = OutputEncoder().open(result)
    region = memoryview(bytearray(region_bytes))
    found: list[FramedRecord] = []
    start, done = 0, False
    while not done:
        used, _, done, start, _ = opened.write(region, start)
        found += iterate_records(bytes(region[:used]))
    assert [record.payload for record in found] == [
        item if isinstance(item, bytes) else str(item).encode() for item in result
    ]


def test_nothing_is_held_of_a_result_that_was_written_or_refused() -> None:
    encoder = OutputEncoder()
    values = bytearray(8)
    encoder.open({"v": np.frombuffer(values, np.int64)}).write(memoryview(bytearray(100)))
    values.extend(b"x" * 8)  # BufferError, were it still exported
    with pytest.raises(HandlerError):
        encoder.open({"v": np.frombuffer(values, np.int64), "w": 1})
    values.extend(b"x")
