"""outputs.py: what is written of a returned batch is read again as the same rows, by msgspec and by the decoders."""

from __future__ import annotations

import itertools
import random
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_fast.batch import Batch
from pythia_fast.brokers.framing import iterate_records
from pythia_fast.columns import RawColumn
from pythia_fast.nested_columns import ListColumn, StructColumn
from pythia_fast.results.outputs import OutputEncoder
from tests.ext.json_maker import make_payload, make_struct

Encoding = Literal["json", "msgpack"]
ENCODINGS: tuple[Encoding, ...] = ("json", "msgpack")


def written(result: Any, encoding: Encoding) -> dict[int, bytes]:
    """The payload of each row that can be sent on."""
    opened = OutputEncoder(encoding).open(result)
    region = memoryview(bytearray(1 << 20))
    payloads: dict[int, bytes] = {}
    start, done = 0, False
    while not done:
        encoded = opened.write(region, start)
        for row, record in enumerate(iterate_records(region[: encoded.bytes]), start):
            payloads[row] = record.payload or b""
        start, done = encoded.resume, encoded.done
        if encoded.fault is not None:
            # A number within a Raw that MessagePack, or Python, does not have.
            assert "can't serialize ints" in encoded.fault.why or "Number out of range" in encoded.fault.why
            start += 1
    return payloads


def undecoded(raw: bytes | None, encoding: str) -> Any:
    """What a Raw holds; its JSON where that has no form in Python."""
    try:
        return raw and ("raw", (msgspec.json if encoding == "json" else msgspec.msgpack).decode(raw))
    except msgspec.DecodeError:
        return msgspec.json.format(raw or b"", indent=-1)


def plain(column: Any, valid: Any = None) -> list[Any]:
    """The values as they are written, whatever the encoding of a Raw is."""
    if isinstance(column, RawColumn):
        return [undecoded(raw, column.encoding) for raw in column.tolist()]
    if isinstance(column, ListColumn):
        values, bounds = plain(column.values, column.value_valid), column.offsets.tolist()
        found = [values[begin:end] for begin, end in itertools.pairwise(bounds)]
        return [row if good else None for row, good in zip(found, column.valid.tolist(), strict=True)]
    if isinstance(column, StructColumn):
        fields = {key: plain(values, nulls) for key, values, nulls in column.encoded()}
        rows = [{key: values[i] for key, values in fields.items()} for i in range(len(column))]
        return [row if good else None for row, good in zip(rows, column.valid.tolist(), strict=True)]
    values = column if isinstance(column, list) else column.tolist()
    return values if valid is None else [v if good else None for v, good in zip(values, valid.tolist(), strict=True)]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**64 - 1))
def test_random_schemas_and_payloads(seed: int) -> None:
    rng = random.Random(seed)
    made = make_struct(rng)
    batch = Batch.decode([make_payload(rng, made) for _ in range(30)], made)
    sent = plain(batch.as_structs())
    for encoding in ENCODINGS:
        payloads = written(batch, encoding) if len(batch) else {}
        for payload in payloads.values():
            assert b"\n" not in payload or encoding == "msgpack"
            (msgspec.json if encoding == "json" else msgspec.msgpack).decode(payload, type=made)
        again = Batch.decode(list(payloads.values()), made, encoding)
        assert not again.bad
        assert plain(again.as_structs()) == [sent[row] for row in payloads]
        assert encoding == "msgpack" or len(payloads) == len(batch)


class Part(msgspec.Struct, rename="camel", tag="p"):
    in_stock: int | None
    note: msgspec.Raw = msgspec.Raw()


class Order(msgspec.Struct, rename="camel", tag_field="kind", tag=7, forbid_unknown_fields=True):
    order_id: int
    label: str = msgspec.field(name="X-Label", default="none")
    part: Part | None = None
    parts: list[Part | None] = []
    sizes: list[float | None] = []


ORDERS = [
    b'{"kind":7,"orderId":1,"X-Label":"a","part":{"type":"p","inStock":null},"parts":[],"sizes":[0.5]}',
    b'{"kind":7,"orderId":2,"X-Label":"","part":null,"parts":[null,{"type":"p","inStock":3,"note":[ 1]}],"sizes":[]}',
]


def test_a_batch_is_written_with_the_keys_of_its_payloads() -> None:
    batch = Batch.decode(ORDERS, Order)
    assert list(written(batch, "json").values()) == ORDERS
    decode = msgspec.msgpack.Decoder(Order).decode
    packed = [decode(payload) for payload in written(batch, "msgpack").values()]
    again = Batch.decode([msgspec.msgpack.encode(order) for order in packed[1:]], Order, "msgpack")
    assert list(written(again, "json").values()) == [ORDERS[1].replace(b"[ 1]", b"[1]")]


def test_columns_of_a_batch_keep_what_is_inside_of_them() -> None:
    batch = Batch.decode(ORDERS, Order)
    parts = [msgspec.json.decode(order)["parts"] for order in ORDERS]
    result = {"their_parts": batch["parts"], "first": batch["parts"][::-1]}
    assert [msgspec.json.decode(payload) for payload in written(result, "json").values()] == [
        {"their_parts": theirs, "first": first} for theirs, first in zip(parts, parts[::-1], strict=True)
    ]
    structs = {"each": batch["parts[]"]}
    assert [msgspec.json.decode(payload) for payload in written(structs, "json").values()] == [
        {"each": part} for part in parts[1]
    ]


def test_a_raw_value_is_written_on_one_line() -> None:
    batch = Batch.decode([b'{"r":[1,\n "a\\n b"]}', b'{"r":\n2}', b"{}"], Raws)
    assert list(written(batch, "json").values()) == [
        b'{"r":[1,"a\\n b"],"many":[]}',
        b'{"r":2,"many":[]}',
        b'{"many":[]}',
    ]


def test_a_raw_value_without_a_form_in_the_other_encoding_costs_its_row() -> None:
    values = [[1], [10**30, 2], [3]]
    batch = Batch.decode([msgspec.json.encode({"many": [value]}) for value in values], Raws)
    opened = OutputEncoder("msgpack").open(batch)
    region = memoryview(bytearray(1000))
    fault = opened.write(region, 0).fault
    assert fault is not None
    assert (fault.row, fault.column) == (1, "many[]")
    assert opened.write(region, 2).done


class Raws(msgspec.Struct):
    r: msgspec.Raw = msgspec.Raw()
    many: list[msgspec.Raw] = []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_fixed_layout_is_written_nested(encoding: Encoding) -> None:
    dtype = np.dtype([("id", "<i4"), ("at", [("x", "<f4"), ("y", "<f4", (2,))])])
    table = np.array([(1, (0.5, (1, 2)))], dtype)
    (payload,) = written(Batch.decode([table.tobytes()], decoder=dtype), encoding).values()
    decode = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
    assert decode(payload) == {"id": 1, "at": {"x": 0.5, "y": [1.0, 2.0]}}


RECORD = np.dtype(
    [
        ("id", ">i4"), ("name", "S4"), ("text", "U2"), ("rest", "V2"), ("at", "<M8[ms]"), ("ok", "?"), ("half", "<f2"),
        ("part", [("x", "<f4"), ("times", "<M8[s]", (2,))]), ("parts", [("x", "<i4")], (2,)), ("grid", "<i2", (2, 2)),
    ]
)  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_rows_of_a_fixed_layout_are_written_as_the_batch_is(encoding: Encoding) -> None:
    table = np.zeros(2, RECORD)
    table["name"][0], table["text"][0], table["rest"][0] = b"ab", "é", b"\1\2"
    table["at"][1] = table["part"]["times"][0, 0] = "NaT"
    batch = Batch.decode([row.tobytes() for row in table], decoder=RECORD)
    decode = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
    by_batch, by_rows = (list(map(decode, written(it, encoding).values())) for it in (batch, list(batch.rows())))
    assert by_batch == by_rows


def test_the_rows_of_a_batch_are_a_list() -> None:
    batch = Batch.decode(ORDERS[1:], Order)
    assert list(written(batch.rows(), "json").values()) == ORDERS[1:]
    assert list(written(batch.raw, "json").values()) == ORDERS[1:]
