"""Null payloads in Batch.decode and App.test: refused, skipped, or rows of what columns have without a field."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast import App, Avro, Batch, MemoryConsumer, MemoryProducer
from pythia_fast._ext.batch_memory import decode_rows
from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.part_memory import PartMemory
from pythia_fast.decoders import Decoding, choose_decoder
from pythia_fast.errors import SchemaError
from pythia_fast.results.outputs import OutputEncoder
from tests.ext.column_rows import plain, rows_from_columns

UTC = datetime.UTC
ENCODE = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}


class Item(msgspec.Struct):
    sku: str = "?"
    count: int = 1


class Order(msgspec.Struct, rename="camel"):
    order_id: int | None
    price: float = 1.5
    note: str | None = "none"
    tags: list[str] = []
    first: Item = msgspec.field(default_factory=Item)
    last: Item | None = None


FULL = {"orderId": 7, "price": 2.0, "note": "n", "tags": ["a", "b"], "first": {"sku": "s"}, "last": {"count": 3}}
NULL_ROW = Order(order_id=None)

AVRO = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "orderId", "type": ["null", "long"]}, {"name": "price", "type": "double"}],
}
AVRO_FULL = b"\x02\x0e" + np.float64(2.0).tobytes()

#: name -> (schema, decoder, a payload)
FORMATS: dict[str, tuple[Any, Any, bytes]] = {
    "json": (Order, "json", msgspec.json.encode(FULL)),
    "msgpack": (Order, "msgpack", msgspec.msgpack.encode(FULL)),
    "avro": (Order, Avro(AVRO), AVRO_FULL),
    "raw": (None, "raw", b"bytes"),
    "fixed": (None, np.dtype([("n", "<i8")]), b"12345678"),
}
WITH_ROWS = [name for name in FORMATS if name != "fixed"]


def decode(name: str, payloads: list[bytes | None], tombstones: Any, **extras: Any) -> Batch[Any]:
    schema, decoder, _ = FORMATS[name]
    batch: Batch[Any] = Batch.decode(payloads, schema, decoder, tombstones=tombstones, **extras)
    return batch


@pytest.mark.parametrize("name", FORMATS)
def test_they_are_refused_unless_it_is_said_otherwise(name: str) -> None:
    schema, decoder, payload = FORMATS[name]
    for batch in (
        Batch.decode([payload, None, payload], schema, decoder),
        decode(name, [payload, None, payload], "dead_letter"),
    ):
        assert [(bad.index, bad.reason, bad.payload) for bad in batch.bad] == [(1, "the payload is null", None)]
        assert batch.tombstones.tolist() == [False, False]


@pytest.mark.parametrize("name", FORMATS)
def test_those_that_are_skipped_are_neither_rows_nor_refused(name: str) -> None:
    payload = FORMATS[name][2]
    batch = decode(name, [None, payload, None, payload, None], "skip", keys=[b"0", b"1", b"2", b"3", b"4"])
    assert batch.bad == ()
    assert batch.positions["offset"].tolist() == [1, 3]
    assert list(batch.keys) == [b"1", b"3"]
    assert batch.tombstones.tolist() == [False, False]
    assert len(decode(name, [None, None], "skip")) == 0


@pytest.mark.parametrize("name", WITH_ROWS)
def test_as_rows_they_have_all_that_came_with_them(name: str) -> None:
    payload = FORMATS[name][2]
    batch = decode(
        name,
        [None, payload, None],
        "rows",
        keys=[b"a", None, b""],
        headers=[{"h": b"1"}, None, {"h": None}],
        timestamps=[10, 20, -1],
    )
    assert batch.bad == ()
    assert batch.tombstones.tolist() == [True, False, True]
    assert list(batch.keys) == [b"a", None, b""]
    assert list(batch.headers) == [{"h": b"1"}, {}, {"h": None}]
    assert np.isnat(batch.timestamps).tolist() == [False, False, True]
    assert batch.positions["offset"].tolist() == [0, 1, 2]
    assert [None if raw is None else bytes(raw) for raw in batch.raw] == [None, payload, None]
    assert (batch.raw[0], batch.raw[2]) == (None, None)


@pytest.mark.parametrize("name", ["json", "msgpack", "avro"])
def test_each_column_of_such_a_row_has_what_it_has_without_the_field(name: str) -> None:
    batch = decode(name, [FORMATS[name][2], None], "rows")
    assert rows_from_columns(batch, Order)[1] == plain(NULL_ROW)
    full, null = batch.rows()
    assert null == NULL_ROW
    assert (full.order_id, full.price) == (7, 2.0)
    assert pa.record_batch(batch).to_pylist()[1] == {
        "order_id": None,
        "price": 1.5,
        "note": "none",
        "tags": [],
        "first.sku": "?",
        "first.count": 1,
        "last.sku": None,
        "last.count": None,
    }


def test_raw_bytes_are_an_empty_value_and_no_object() -> None:
    batch = decode("raw", [b"x", None, b""], "rows")
    assert batch["payload"].tolist() == [b"x", b"", b""]
    assert list(batch.rows()) == [b"x", None, b""]
    assert batch.tombstones.tolist() == [False, True, False]


def test_a_struct_of_a_row_is_its_own() -> None:
    rows = list(decode("json", [None, None], "rows").rows())
    rows[0].tags.append("x")
    assert rows[1].tags == []


class Generic(msgspec.Struct, tag="generic", kw_only=True):
    value: msgspec.Raw = msgspec.Raw(b"{}")


def test_defaults_of_raw_fields_and_tags_are_no_hindrance() -> None:
    batch = Batch.decode([None, b"{}"], Generic, tombstones="rows")
    assert batch["value"].tolist() == [b"{}", b"{}"]
    assert [bytes(row.value) for row in batch.rows()] == [b"{}", b"{}"]


# -- against msgspec: the row of null is the row of {}

DEFAULTS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**63), 2**63 - 1)),
    (Annotated[int, np.uint8], st.integers(0, 255)),
    (Annotated[int, np.int16], st.integers(-(2**15), 2**15 - 1)),
    (Annotated[int, np.uint64], st.integers(0, 2**64 - 1)),
    (float, st.floats(allow_nan=False)),
    (Annotated[float, np.float32], st.floats(width=32, allow_nan=False)),
    (bool, st.booleans()),
    (str, st.text(max_size=40)),
    (bytes, st.binary(max_size=40)),
    (msgspec.Raw, st.just(msgspec.Raw(b"[1]"))),
    (datetime.datetime, st.datetimes(timezones=st.just(UTC))),
]
FIELDS = st.one_of([values.map(lambda value, kind=kind: (kind, value)) for kind, values in DEFAULTS])
OPTIONAL = st.one_of(
    [
        (st.none() | values).map(lambda value, kind=kind: (kind | None, value))
        for kind, values in DEFAULTS
        if kind is not msgspec.Raw
    ]
)
LISTS = st.sampled_from([(list[kind], msgspec.field(default_factory=list)) for kind, _ in DEFAULTS])


def struct_of(fields: list[tuple[Any, Any]]) -> Any:
    return msgspec.defstruct("Made", [(f"f{i}", kind, default) for i, (kind, default) in enumerate(fields)])


def nested(inner: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    structs = st.lists(inner, max_size=3).map(struct_of)
    return structs.map(lambda kind: (kind, msgspec.field(default_factory=kind))) | structs.map(
        lambda kind: (kind | None, None)
    )


@pytest.mark.parametrize("decoder", ENCODE)
@given(st.lists(st.recursive(FIELDS | OPTIONAL | LISTS, nested, max_leaves=6), min_size=1, max_size=6).map(struct_of))
def test_the_row_of_null_is_the_row_of_an_empty_object(decoder: str, schema: Any) -> None:
    empty = ENCODE[decoder]({})
    batch = Batch.decode([empty, None, empty, None], schema, decoder, tombstones="rows")
    assert batch.bad == ()
    rows = rows_from_columns(batch, schema)
    if decoder == "json":
        assert rows[0] == plain(msgspec.json.decode(empty, type=schema))
    assert rows[1] == rows[0] == rows[2] == rows[3]
    assert [plain(row) for row in batch.rows()][1] == rows[0]


# -- parts of a batch, and what is made of one


def part_of(batch: Batch[Any], decoding: Decoding, rows: list[int]) -> list[Batch[Any]]:
    """The rows once more, by both ways that a pool process has."""
    native, indices = decoding.native(), np.array(rows, np.uint32)
    roomy = PartMemory(decoding.plan, 8, 4096).decode(batch._memory, native, indices, 2)
    assert roomy is not None
    return [Batch(memory, decoding) for memory in (roomy, decode_rows(batch._memory, native, indices, 2))]


@pytest.mark.parametrize("name", WITH_ROWS)
def test_some_rows_once_more_are_the_same(name: str) -> None:
    schema, decoder, payload = FORMATS[name]
    batch = decode(name, [payload, None, payload, None], "rows", keys=[b"0", b"1", b"2", b"3"])
    for part in part_of(batch, choose_decoder(schema, decoder, "rows"), [3, 2, 1]):
        assert part.tombstones.tolist() == [True, False, True]
        assert list(part.keys) == [b"3", b"2", b"1"]
        assert [None if raw is None else bytes(raw) for raw in part.raw] == [None, payload, None]
        assert part.attempts.tolist() == [2, 2, 2]


def written(result: Any) -> tuple[list[bytes], list[int]]:
    """(the region up to its end, rows that cannot be sent on)."""
    records = OutputEncoder("json", "json").open(result)
    region, start, faults, found = bytearray(4096), 0, [], []
    while True:
        made = records.write(memoryview(region), start)
        found.append(bytes(region[: made.bytes]))
        start = made.resume
        if made.fault is not None:
            faults.append(start)
            start += 1
        if made.done:
            return found, faults


def test_payloads_that_are_sent_on_leave_them_out_and_say_so() -> None:
    batch = decode("json", [b'{"orderId":1}', None, b'{"orderId":2}'], "rows")
    found, faults = written(batch.raw)
    assert faults == [1]
    assert [b'{"orderId":1}' in part for part in found] == [True, False]


def test_a_batch_that_is_sent_on_has_a_record_of_each() -> None:
    batch = decode("json", [None], "rows")
    found, faults = written(batch)
    assert faults == []
    assert b'{"orderId":null,"price":1.5,"note":"none","tags":[],"first":{"sku":"?","count":1},"last":null}' in found[0]


# -- what is refused


class Plain(msgspec.Struct):
    id: int


class Nested(msgspec.Struct):
    first: Item
    second: list[int]
    third: str | None
    fourth: int = 4


MANY = msgspec.defstruct("Many", [(f"f{i}", int) for i in range(8)])


@pytest.mark.parametrize(
    ("schema", "decoder", "sentence"),
    [
        (Plain, "json", "a tombstone has no fields, and id of Plain has neither a default nor is it Optional"),
        (Nested, "msgpack", "and first, second of Nested have neither defaults nor are they Optional"),
        (MANY, "json", "and f0, f1, f2, f3, f4 and 3 more of Many have neither defaults nor are they Optional"),
        (None, np.dtype([("n", "<i8")]), "those of a fixed layout have no defaults; tombstones='skip' leaves them out"),
        (Plain, Avro(AVRO | {"fields": [{"name": "id", "type": "long"}]}), "and id of Plain has neither a default"),
    ],
    ids=["json", "msgpack", "many fields", "fixed", "avro"],
)
def test_a_field_that_a_tombstone_cannot_have_is_named(schema: Any, decoder: Any, sentence: str) -> None:
    app = App("test")
    with pytest.raises(SchemaError, match=r"^tombstones='rows': ") as refused:
        Batch.decode([], schema, decoder, tombstones="rows")
    assert sentence in str(refused.value)
    with pytest.raises(SchemaError) as again:
        app.batch_handler(source=MemoryConsumer([]), schema=schema, decoder=decoder, tombstones="rows", name="h")(
            print_
        )
    assert str(again.value) == str(refused.value)


def print_(batch: Batch[Any]) -> None:
    """A handler."""


def test_a_decoder_that_was_not_made_makes_no_rows() -> None:
    with pytest.raises(ValueError, match="was not initialised"):
        NativeDecoder().make_rows_of_nulls(choose_decoder(Order, "json").plan)


# -- App.test


def tried(tombstones: Any, payloads: list[bytes | None]) -> Any:
    app = App("test")

    def handle(batch: Batch[Order]) -> dict[str, Any]:
        batch.reject(batch.tombstones, reason="deleted")
        batch.retry(batch["price"] > 5)
        return {"price": batch["price"]}

    options: dict[str, Any] = {"source": MemoryConsumer([]), "sink": MemoryProducer(), "schema": Order}
    app.batch_handler(**options, tombstones=tombstones)(handle)
    return app.test("handle", payloads)


PAYLOADS = [None, b'{"orderId":1,"price":9}', b"bad", None, b'{"orderId":2}']


def test_a_trial_tells_by_index_what_was_skipped() -> None:
    trial = tried("skip", PAYLOADS)
    assert trial.skipped == [0, 3]
    assert (trial.rejected, trial.retried) == ({}, [1])
    assert [bad.index for bad in trial.bad] == [2]


def test_a_trial_has_them_as_rows() -> None:
    trial = tried("rows", PAYLOADS)
    assert trial.skipped == []
    assert (trial.rejected, trial.retried) == ({0: "deleted", 3: "deleted"}, [1])
    assert trial.returned["price"].tolist() == [1.5, 9.0, 1.5, 1.5]


def test_a_trial_refuses_them() -> None:
    trial = tried("dead_letter", PAYLOADS)
    assert (trial.skipped, [bad.index for bad in trial.bad]) == ([], [0, 2, 3])
