"""msgpack_decoder.pyx against msgspec.msgpack: the same payloads accepted, with the same values."""

from __future__ import annotations

import datetime
import math
import struct
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct

from pythia_fast.batch import Batch

from .column_rows import plain, rows_from_columns
from .guard import guarded_pages

encode = msgspec.msgpack.encode
UTC = datetime.UTC


class Item(Struct):
    sku: str
    qty: int = 1
    prices: list[float] = []


class Customer(Struct, rename="camel"):
    full_name: str | None = None
    age: Annotated[int, Meta(ge=0, le=150)] = 30


class Order(Struct):
    order_id: int
    price: float
    paid: bool
    name: str
    blob: bytes
    at: datetime.datetime
    note: str | None
    customer: Customer
    tags: list[str]
    items: list[Item] = []
    referrer: Customer | None = None
    rate: float | None = None
    count: int = -7
    label: str = "none"
    payload: bytes = b"\x00\x01"
    since: datetime.datetime = datetime.datetime(2001, 2, 3, tzinfo=UTC)
    extra: Raw = Raw(b"\xc0")
    grid: list[list[int]] = []
    fallback: Customer = msgspec.field(default_factory=Customer)


class Tagged(Struct, tag="order", forbid_unknown_fields=True):
    v: int = 0


class Numbered(Struct, tag=-3, tag_field="kind"):
    v: int = 0


class Bounded(Struct):
    i: Annotated[int, Meta(gt=-5, lt=100, multiple_of=3)] = 0
    f: Annotated[float, Meta(ge=-1.5, le=1.5)] = 0.0
    m: Annotated[float, Meta(multiple_of=0.25)] = 0.0
    s: Annotated[str, Meta(min_length=1, max_length=3)] = "s"
    b: Annotated[bytes, Meta(min_length=1, max_length=3)] = b"b"
    n: Annotated[list[int], Meta(min_length=1, max_length=3)] = msgspec.field(default_factory=list)
    aware: Annotated[datetime.datetime, Meta(tz=True)] = datetime.datetime(2001, 2, 3, tzinfo=UTC)
    naive: Annotated[datetime.datetime, Meta(tz=False)] = datetime.datetime(2001, 2, 3)


class Narrow(Struct):
    i8: Annotated[int, np.int8] = 0
    i16: Annotated[int, np.int16] = 0
    i32: Annotated[int, np.int32] = 0
    i64: int = 0
    u8: Annotated[int, np.uint8] = 0
    u16: Annotated[int, np.uint16] = 0
    u32: Annotated[int, np.uint32] = 0
    u64: Annotated[int, np.uint64] = 0
    f32: Annotated[float, np.float32] = 0.0


class One(Struct):
    v: int


def decode(schema: Any, payload: bytes | memoryview) -> tuple[dict[str, Any] | None, str]:
    """The row from the columns, or None and the reason."""
    batch = Batch.decode([payload], schema, "msgpack")
    if batch.bad:
        return None, batch.bad[0].reason
    (row,) = rows_from_columns(batch, schema)
    return row, ""


def oracle(schema: Any, payload: bytes) -> Any:
    """What msgspec makes of it; None when it refuses."""
    try:
        return msgspec.msgpack.decode(payload, type=schema)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return None


def has_wide_int(value: Any) -> bool:
    if isinstance(value, Struct):
        return any(has_wide_int(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, list):
        return any(map(has_wide_int, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def assert_same(schema: Any, payload: bytes) -> None:
    row, reason = decode(schema, payload)
    expected = oracle(schema, payload)
    if expected is None:
        assert row is None, f"accepted {payload!r}, which msgspec refuses"
        return
    try:
        plain_row = plain(expected)
    except OverflowError:
        assert "datetime" in reason
        return
    if has_wide_int(expected):
        assert "out of range" in reason
        return
    assert row is not None, f"refused {payload!r}: {reason}"
    assert repr(row) == repr(plain_row)  # repr tells NaN from other floats, and -0.0 from 0.0


texts = st.text(max_size=12)
integers = st.integers(-(2**63), 2**64 - 1) | st.integers(-200, 70000)


def fits_utc(value: datetime.datetime) -> bool:
    try:
        plain(value)
    except OverflowError:
        return False
    return True


# msgspec writes an aware datetime as a timestamp, which is in UTC.
datetimes = (
    st.datetimes(timezones=st.none() | st.timezones())
    | st.datetimes(timezones=st.integers(-1439, 1439).map(lambda m: datetime.timezone(datetime.timedelta(minutes=m))))
).filter(fits_utc)
anything = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | texts | st.binary(max_size=9) | datetimes,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.integers(0, 9), inner, max_size=4),
    max_leaves=8,
)
items = st.fixed_dictionaries(
    {"sku": texts}, optional={"qty": integers, "prices": st.lists(st.floats() | integers, max_size=3)}
)
customers = st.fixed_dictionaries({}, optional={"fullName": st.none() | texts, "age": st.integers(-5, 200)})
orders = st.fixed_dictionaries(
    {
        "order_id": integers,
        "price": st.floats() | integers,
        "paid": st.booleans(),
        "name": texts,
        "blob": st.binary(max_size=12),
        "at": datetimes,
        "note": st.none() | texts,
        "customer": customers,
        "tags": st.lists(texts, max_size=4),
    },
    optional={
        "items": st.lists(items, max_size=3),
        "referrer": st.none() | customers,
        "rate": st.none() | st.floats(),
        "count": integers,
        "label": texts,
        "payload": st.binary(max_size=4),
        "since": datetimes,
        "extra": anything,
        "grid": st.lists(st.lists(integers, max_size=3), max_size=3),
        "fallback": customers,
        "unknown": anything,
    },
)


@given(orders, st.randoms(use_true_random=False))
def test_an_order_is_what_msgspec_makes_of_it(order: dict[str, Any], random: Any) -> None:
    keys = list(order)
    random.shuffle(keys)
    assert_same(Order, encode({key: order[key] for key in keys}))


@given(orders, st.data())
def test_a_wrong_value_anywhere_is_judged_as_msgspec_does(order: dict[str, Any], data: Any) -> None:
    key = data.draw(st.sampled_from(sorted(order)))
    if data.draw(st.booleans()):
        order[key] = data.draw(anything)
    else:
        del order[key]
    assert_same(Order, encode(order))


@given(orders, st.data())
def test_damaged_bytes_are_judged_as_msgspec_does(order: dict[str, Any], data: Any) -> None:
    payload = bytearray(encode(order))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.sampled_from(["replace", "insert", "delete", "cut"])):
            case "replace":
                payload[at] = data.draw(st.integers(0, 255))
            case "insert":
                payload[at:at] = data.draw(st.binary(min_size=1, max_size=3))
            case "delete" if len(payload) > 1:
                del payload[at]
            case "cut":
                del payload[at + 1 :]
    assert_same(Order, bytes(payload))


@given(st.lists(st.tuples(st.sampled_from(["v", "type", "kind", "w"]), anything), max_size=4))
@example([("type", "order"), ("v", 1)])
@example([("v", 1), ("type", "order")])
@example([("type", "orderx")])
@example([("type", 5)])
@example([("kind", -3), ("type", "x")])
@example([("kind", 2**64 - 3)])
@example([("kind", 3)])
def test_tags_and_forbidden_fields(pairs: list[tuple[str, Any]]) -> None:
    payload = bytes([0x80 | len(pairs)]) + b"".join(encode(key) + encode(value) for key, value in pairs)
    for schema in (Tagged, Numbered, One):
        assert_same(schema, payload)


@pytest.mark.parametrize(
    "tag", [b"\xfd", b"\xd0\xfd", b"\xd1\xff\xfd", b"\xd2\xff\xff\xff\xfd", b"\xd3" + b"\xff" * 7 + b"\xfd"]
)
def test_a_number_tag_in_every_width(tag: bytes) -> None:
    payload = b"\x81\xa4kind" + tag
    assert_same(Numbered, payload)
    assert decode(Numbered, payload)[0] == {"v": 0}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "i": st.integers(-10, 110),
            "f": st.floats(-2, 2) | st.just(math.nan),
            "m": st.integers(-9, 9).map(lambda n: n / 8) | st.just(math.nan),
            "s": st.text(max_size=5),
            "b": st.binary(max_size=5),
            "n": st.lists(st.integers(), max_size=5).filter(lambda v: all(abs(i) < 2**63 for i in v)),
            "aware": datetimes,
            "naive": datetimes,
        },
    )
)
def test_bounds(row: dict[str, Any]) -> None:
    assert_same(Bounded, encode(row))


@pytest.mark.parametrize("name", Narrow.__struct_fields__[:-1])
def test_narrow_integers_refuse_what_they_cannot_hold(name: str) -> None:
    limits = np.iinfo({"i": "int", "u": "uint"}[name[0]] + name[1:])
    for value in (limits.min, limits.max, 0, 1):
        assert decode(Narrow, encode({name: int(value)}))[0] == plain(Narrow(**{name: int(value)}))
    for value in (limits.min - 1, limits.max + 1):
        if -(2**63) <= value < 2**64:
            row, reason = decode(Narrow, encode({name: int(value)}))
            assert row is None
            assert "out of range" in reason


def test_float32_columns() -> None:
    for value in (0.1, math.inf, -math.inf, 5, 1e-50):
        assert decode(Narrow, encode({"f32": value}))[0] == plain(Narrow(f32=float(np.float32(value))))
    row, reason = decode(Narrow, encode({"f32": 1e39}))
    assert row is None
    assert "out of range of float32" in reason


NUMBERS = [
    *(bytes([op]) for op in (0x00, 0x7F, 0xE0, 0xFF)),
    *(bytes([op]) + body * (1 << (op & 3)) for op in range(0xCC, 0xD4) for body in (b"\x80", b"\x7f", b"\xff")),
    b"\xca" + struct.pack(">f", 1.5),
    b"\xcb" + struct.pack(">d", -0.0),
]


@pytest.mark.parametrize("number", NUMBERS, ids=bytes.hex)
def test_numbers_in_every_form(number: bytes) -> None:
    class Row(Struct):
        i: int | None = None
        f: float | None = None
        s: str | None = None

    for key in (b"\xa1i", b"\xa1f", b"\xa1s"):
        assert_same(Row, b"\x81" + key + number)


@pytest.mark.parametrize("head", [b"\xa1", b"\xd9\x01", b"\xda\x00\x01", b"\xdb\x00\x00\x00\x01"])
def test_keys_and_strings_in_every_form(head: bytes) -> None:
    class Row(Struct):
        s: str

    payload = b"\x81" + head + b"s" + head + b"x"
    assert_same(Row, payload)
    assert decode(Row, payload)[0] == {"s": "x"}


@pytest.mark.parametrize("head", [b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"])
def test_maps_in_every_form(head: bytes) -> None:
    assert decode(One, head + b"\xa1v\x05")[0] == {"v": 5}


def timestamp_payload(size: int, nanoseconds: int, seconds: int) -> bytes:
    body = {
        4: lambda: struct.pack(">I", seconds),
        8: lambda: struct.pack(">Q", nanoseconds << 34 | seconds),
        12: lambda: struct.pack(">Iq", nanoseconds, seconds),
    }[size]()
    return b"\xc7" + bytes([size]) + b"\xff" + body


@given(
    st.sampled_from([0, 499, 500, 501, 1499, 1500, 2500, 999_999_499, 999_999_500, 999_999_999, 10**9, 2**30 - 1]),
    st.sampled_from([-62135596801, -62135596800, -1, 0, 1, 253402300799, 253402300800, 2**63 - 1, -(2**63)])
    | st.integers(-(2**36), 2**38),
)
def test_timestamps(nanoseconds: int, seconds: int) -> None:
    class Row(Struct):
        v: datetime.datetime

    forms = [timestamp_payload(12, nanoseconds, seconds)]
    if 0 <= seconds < 2**32:
        forms.append(timestamp_payload(4, 0, seconds))
    if 0 <= seconds < 2**34:
        forms.append(timestamp_payload(8, nanoseconds, seconds))
    for form in forms:
        assert_same(Row, b"\x81\xa1v" + form)


@pytest.mark.parametrize(
    "value",
    [b"\xd4\xff\x01", b"\xd8\xff" + b"\0" * 16, b"\xc7\x05\xff\0\0\0\0\0", b"\xd6\x01\0\0\0\0", b"\xc7\0\xff"],
)
def test_extensions_that_are_no_timestamp(value: bytes) -> None:
    class Row(Struct):
        v: datetime.datetime

    assert_same(Row, b"\x81\xa1v" + value)
    assert decode(Row, b"\x81\xa1v" + value)[0] is None


@given(st.lists(st.sampled_from(list("0123456789-+:.TtZz ")), max_size=30).map("".join))
@example("2020-02-29T23:59:59.9999999Z")
@example("2021-02-29T23:59:59Z")
@example("9999-12-31T23:59:59.9999996Z")
@example("0001-01-01T00:00:00+00:01")
@example("0000-01-01T00:00:00Z")
@example("2020-01-01T24:00:00Z")
@example("2020-01-01T23:59:60Z")
@example("2020-01-01 00:00:00z")
@example("2020-01-01T00:00:00+0530")
@example("2020-01-01T00:00:00+05:60")
@example("2020-01-01T00:00:00.Z")
@example("2020-01-01T00:00:00.1234565-23:59")
@example("2020-01-01T00:00:00")
def test_datetimes_as_text(text: str) -> None:
    class Row(Struct):
        v: datetime.datetime

    assert_same(Row, encode({"v": text}))


@given(
    st.datetimes(),
    st.sampled_from("Tt "),
    st.integers(0, 9),
    st.sampled_from(["", "Z", "z", "+01:30", "-2359", "+24:00", "Zx"]),
    st.data(),
)
def test_datetimes_near_the_grammar(
    value: datetime.datetime, between: str, digits: int, offset: str, data: Any
) -> None:
    class Row(Struct):
        v: datetime.datetime

    fraction = f".{data.draw(st.integers(0, 10**digits - 1)):0{digits}}" if digits else ""
    text = list(value.strftime(f"{value.year:04}-%m-%d{between}%H:%M:%S") + fraction + offset)
    if data.draw(st.booleans()):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from("0159:-T.Z+x"))
    assert_same(Row, encode({"v": "".join(text)}))


def test_the_last_of_equal_keys_counts() -> None:
    class Row(Struct):
        i: int | None = None
        s: str = ""
        n: list[str] = []
        c: Customer | None = None

    pairs: list[tuple[str, Any]] = [
        ("s", "first, and longer"), ("n", ["a", "b", "c"]), ("c", {"fullName": "ann", "age": 3}), ("i", 5),
        ("s", "last"), ("n", ["d"]), ("c", None), ("i", None), ("c", {"age": 9}), ("n", ["e", "f"]),
    ]  # fmt: skip
    for n in range(len(pairs) + 1):
        assert_same(Row, bytes([0x80 | n]) + b"".join(encode(key) + encode(value) for key, value in pairs[:n]))


def test_rows_after_a_refused_row_are_sound() -> None:
    class Row(Struct):
        s: str
        n: list[str]
        i: int

    good = [{"s": "x" * n, "n": ["y"] * n, "i": n} for n in range(20)]
    bad = [{**row, "i": "no"} for row in good]
    batch = Batch.decode([encode(row) for pair in zip(good, bad, strict=True) for row in pair], Row, "msgpack")
    assert rows_from_columns(batch, Row) == good
    assert [payload.index for payload in batch.bad] == list(range(1, 40, 2))


def test_what_is_skipped_may_nest_deep_but_not_for_ever() -> None:
    assert decode(One, b"\x82\xa1v\x01\xa1z" + b"\x91" * 800 + b"\xc0")[0] == {"v": 1}
    row, reason = decode(One, b"\x82\xa1v\x01\xa1z" + b"\x91" * 1100 + b"\xc0")
    assert row is None
    assert "deep" in reason


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty"),
        (b"\xc0", "expected object, found null, byte 0"),
        (b"\x91\x01", "expected object, found array, byte 0"),
        (b"\x80", "missing required field v, byte 0"),
        (b"\x81\xa1v", "ends inside a value, field v, byte 3"),
        (b"\x81\xa1v\x01\xc0", "bytes after the value, byte 4"),
        (b"\x81\xa1v\xa1x", "expected int, found str, field v, byte 3"),
        (b"\x81\xa1v\xc1", "malformed payload, field v, byte 3"),
        (b"\x81\x01\x01", "malformed payload, byte 1"),
        (b"\x82\xa1v\x01\xa1z\xa5a", "ends inside a value, byte 8"),
        (b"\x81\xa1v\xcf" + b"\xff" * 8, "number out of range of int64 (Annotated[int, numpy.uint64] holds up to"),
        (b"\x81\xa1v\xcf" + b"\xff" * 8, " 2**64 - 1), field v, byte 3"),
        (b"\xdf\xff\xff\xff\xff", "ends inside a value, byte 5"),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else "",
)
def test_refusals_say_what_and_where(payload: bytes, says: str) -> None:
    row, reason = decode(One, payload)
    assert row is None
    assert says in reason


def test_a_bad_string_is_located_at_its_byte() -> None:
    class Row(Struct):
        s: str

    row, reason = decode(Row, b"\x81\xa1s\xa3a\xff\x80")
    assert row is None
    assert "UTF-8" in reason
    assert "byte 5" in reason


@given(st.permutations([f"key_{i:03}" for i in range(40)]))
def test_many_keys_in_any_order(keys: list[str]) -> None:
    schema = msgspec.defstruct("Many", [(f"key_{i:03}", int) for i in range(40)])
    payloads = [encode({key: i for i, key in enumerate(order)}) for order in (keys, keys[::-1])]
    batch = Batch.decode(payloads * 2, schema, "msgpack")
    assert rows_from_columns(batch, schema) == [plain(oracle(schema, payload)) for payload in payloads * 2]


@given(st.lists(st.lists(st.integers(0, 199), unique=True, max_size=40), min_size=2, max_size=8))
def test_more_unknown_keys_than_a_decoder_learns(chosen: list[list[int]]) -> None:
    """Short ones, long ones, and long ones that differ from a field's name only in the middle."""
    schema = msgspec.defstruct("Long", [("v", int, 0), ("a_field_with_a_long_name", int, 0), ("key_100", int, 0)])
    forms = ("key_{}", "an unknown key that is long: {}", "a_field_{:08}ong_name", "a_field_with_a_long_name{}")
    names = [forms[i % 4].format(i) for i in range(200)]
    rows = [{names[i]: i for i in order} | {"v": 1, "a_field_with_a_long_name": 2} for order in chosen]
    everything = dict.fromkeys(names, 3) | {"v": 4}
    payloads = [encode(row) for row in [*rows, everything, *reversed(rows)]]
    batch = Batch.decode(payloads, schema, "msgpack")
    assert rows_from_columns(batch, schema) == [plain(oracle(schema, payload)) for payload in payloads]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1024])
def test_structs_of_any_width(n: int) -> None:
    schema = msgspec.defstruct("Wide", [*((f"f{i}", int, -i) for i in range(n - 1)), ("last", int)][:n], kw_only=True)
    row = {f"f{i}": i for i in range(0, n - 1, 2)} | {"last": 1}
    assert_same(schema, encode({}))
    assert_same(schema, encode(row))
    assert_same(schema, encode(dict.fromkeys(map(str, range(50)), 0) | row))


def test_no_byte_outside_the_payload_is_read() -> None:
    row = Order(
        2**40, 1.5, True, "näme", b"blob", datetime.datetime(2026, 1, 31, tzinfo=UTC), None, Customer("ann"),
        ["a", "b" * 40], [Item("x", 2**33, [0.5, 1.0])], extra=Raw(encode({"a": [1, 2.5, "x"]})), grid=[[1], [2, 3]],
    )  # fmt: skip
    whole = encode(row)
    with guarded_pages() as guarded:
        assert decode(Order, guarded.place(whole))[0] == plain(row)
        for cut in range(len(whole)):
            assert decode(Order, guarded.place(whole[:cut]))[0] is None
        for cut in range(len(whole)):
            for op in (0xC9, 0xCF, 0xDB, 0xDD, 0xDF):
                assert_same_guarded(guarded.place(whole[:cut] + bytes([op])))


def assert_same_guarded(payload: memoryview) -> None:
    assert (decode(Order, payload)[0] is None) == (oracle(Order, bytes(payload)) is None)
