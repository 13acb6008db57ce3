"""Batch.decode: whatever msgspec encodes comes back as columns, through every decoder, and as Arrow."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.batch import Batch
from pythia_fast.schema import ColumnSpec, Kind, describe
from pythia_fast.selection import bits_to_mask

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Shape:
    """A type and the values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]


LEAVES = [
    Shape(int, st.integers(-(2**63), 2**63 - 1)),
    Shape(Annotated[int, np.uint8], st.integers(0, 255)),
    Shape(Annotated[int, np.int16], st.integers(-(2**15), 2**15 - 1)),
    Shape(Annotated[int, np.uint64], st.integers(0, 2**64 - 1)),
    Shape(float, st.floats(allow_nan=False, allow_infinity=False)),
    Shape(Annotated[float, np.float32], st.floats(width=32, allow_nan=False, allow_infinity=False)),
    Shape(bool, st.booleans()),
    Shape(str, st.text(max_size=8)),
    Shape(bytes, st.binary(max_size=8)),
    Shape(datetime.datetime, st.datetimes(timezones=st.just(UTC))),
]


def optional(shape: Shape) -> Shape:
    return Shape(shape.annotation | None, st.none() | shape.values)


def listed(shape: Shape) -> Shape:
    return Shape(list[shape.annotation], st.lists(shape.values, max_size=4))  # type: ignore[name-defined]


def struct(fields: list[Shape]) -> Shape:
    kind = msgspec.defstruct("S", [(f"f{i}", field.annotation) for i, field in enumerate(fields)], rename="upper")
    return Shape(kind, st.builds(kind, *(field.values for field in fields)))


def wider(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    return inner.map(optional) | inner.map(listed) | st.lists(inner, min_size=1, max_size=3).map(struct)


SHAPES = st.recursive(st.sampled_from(LEAVES), wider, max_leaves=5)
ROWS = st.lists(SHAPES, min_size=1, max_size=4).map(struct).flatmap(
    lambda shape: st.tuples(st.just(shape.annotation), st.lists(shape.values, max_size=12))
)  # fmt: skip


def plain(value: Any) -> Any:
    """A row as dicts, lists and naive datetimes: what the columns' tolist() speaks."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.replace(tzinfo=None) if isinstance(value, datetime.datetime) else value


def read(batch: Batch[Any], spec: ColumnSpec) -> list[Any]:
    """The values of one row-level column or Struct."""
    valid = batch.valid(spec.name).tolist()
    if spec.kind is Kind.STRUCT:
        parts = {
            child.name.rpartition(".")[2]: read(batch, child) for child in describe(batch_type(batch)).children(spec)
        }
        return [{name: part[i] for name, part in parts.items()} if valid[i] else None for i in range(len(batch))]
    values = batch[spec.name].tolist()
    return [value if good else None for value, good in zip(values, valid, strict=True)]


def batch_type(batch: Batch[Any]) -> Any:
    return batch._decoding.schema.source


def rows_of(batch: Batch[Any]) -> list[dict[str, Any]]:
    columns = {spec.name: read(batch, spec) for spec in describe(batch_type(batch)).children()}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(batch))]


@pytest.mark.parametrize("decoder", ["json", "msgpack"])
@settings(max_examples=150, deadline=None)
@given(given_rows=ROWS, data=st.data())
def test_every_value_comes_back(decoder: str, given_rows: tuple[Any, list[Any]], data: st.DataObject) -> None:
    kind, rows = given_rows
    encode = msgspec.json.encode if decoder == "json" else msgspec.msgpack.encode
    payloads = [encode(row) for row in rows]
    bad_at = data.draw(st.sets(st.integers(0, len(payloads)), max_size=3))
    for index in sorted(bad_at, reverse=True):
        payloads.insert(index, encode(["not", "an", "object"]))
    batch = Batch.decode(payloads, kind, decoder)
    assert [bad.index for bad in batch.bad] == [
        i for i, p in enumerate(payloads) if p == encode(["not", "an", "object"])
    ]
    assert all(bad.reason.startswith("expected object, found array") for bad in batch.bad)
    assert rows_of(batch) == [plain(row) for row in rows]
    assert list(batch.rows()) == rows
    assert batch.positions["offset"].tolist() == [
        i for i in range(len(payloads)) if i not in {b.index for b in batch.bad}
    ]
    pa.record_batch(batch).validate(full=True)


def test_nulls_hold_zero_and_not_what_lay_there_before() -> None:
    kind = msgspec.defstruct("S", [("n", int | None, None), ("f", float | None, None), ("s", str | None, None)])
    batch = Batch.decode([b'{"n":7,"f":1.5,"s":"abc"}', b"{}", b'{"n":null,"f":null,"s":null}'], kind)
    assert batch["n"].tolist() == [7, 0, 0]
    assert batch["f"].tolist() == [1.5, 0.0, 0.0]
    assert batch["s"].lengths.tolist() == [3, 0, 0]


def test_defaults_that_take_more_room_than_their_payloads() -> None:
    inner = msgspec.defstruct("Inner", [("text", str, "y" * 5000)])
    outer = msgspec.defstruct(
        "Outer", [("text", str, "x" * 3000), ("inners", list[inner], msgspec.field(default_factory=list))]
    )
    batch = Batch.decode([b"{}", b'{"inners":[{},{},{}]}'] * 50, outer)
    assert batch.bad == ()
    assert batch["text"].lengths.tolist() == [3000] * 100
    assert batch["inners[].text"].lengths.tolist() == [5000] * 150
    assert set(batch["inners[].text"].tolist()) == {"y" * 5000}


def test_a_float_outside_float32_is_bad_and_its_neighbours_are_not() -> None:
    kind = msgspec.defstruct("S", [("x", Annotated[float, np.float32])])
    batch = Batch.decode([b'{"x":1}', b'{"x":1e39}', b'{"x":2.5}'], kind)
    assert batch["x"].tolist() == [1.0, 2.5]
    assert [(bad.index, bad.reason) for bad in batch.bad] == [(1, "number out of range of float32, field x, byte 5")]


def test_fixed_records() -> None:
    dtype = np.dtype([("id", ">u4"), ("at", "M8[ms]"), ("pos", [("x", "f4"), ("y", "f8")]), ("grid", "i2", (2, 2))])
    records = np.zeros(3, dtype)
    records["id"] = [1, 2, 2**32 - 1]
    records["at"] = np.array(["2026-01-01", "1969-12-31", "2000-02-29"], "M8[ms]")
    records["pos"]["y"] = [0.5, -1.5, 1e300]
    records["grid"] = np.arange(12).reshape(3, 2, 2)
    batch = Batch.decode([record.tobytes() for record in records] + [b"short"], decoder=dtype)
    assert batch["id"].tolist() == [1, 2, 2**32 - 1]
    assert batch["at"].tolist() == records["at"].astype("M8[us]").tolist()
    assert batch["pos.y"].tolist() == [0.5, -1.5, 1e300]
    assert batch["grid"].tolist() == records["grid"].tolist()
    assert batch.rows()[2].tobytes() == records[2].tobytes()
    assert [bad.reason for bad in batch.bad] == ["the payload is not one record long"]


def test_bits_and_rows_agree_beyond_one_byte() -> None:
    kind = msgspec.defstruct("S", [("n", int | None)])
    wanted = [None if i % 3 else i for i in range(1000)]
    batch = Batch.decode([msgspec.json.encode({"n": n}) for n in wanted], kind)
    assert batch.valid("n").tolist() == [n is not None for n in wanted]
    assert bits_to_mask(None, 3).tolist() == [True] * 3
