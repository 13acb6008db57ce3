"""arrow.pyx: batches through the Arrow C data interface, against pyarrow, polars and pandas."""

from __future__ import annotations

import datetime
import gc
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pythia_fast.batch import Batch
from pythia_fast.errors import HandlerError

from ..unit.slot_writer import SlotWriter

UTC = datetime.UTC


class Inner(msgspec.Struct):
    name: str
    score: Annotated[float, np.float32] | None = None


class Row(msgspec.Struct):
    i64: int
    u8: Annotated[int, np.uint8]
    i16: Annotated[int, np.int16] | None
    f64: float
    flag: bool
    maybe: bool | None
    text: str | None
    blob: bytes
    at: datetime.datetime | None
    inner: Inner | None
    tags: list[str]
    nested: list[list[int | None] | None] | None
    inners: list[Inner]
    raw: msgspec.Raw = msgspec.Raw(b"1")


ROWS = [
    Row(
        i,
        i % 256,
        None if i % 3 == 0 else -i,
        i / 7,
        i % 2 == 0,
        [None, True, False][i % 3],
        None if i % 5 == 0 else "é" * (i % 4),
        bytes([i % 256]) * (i % 3),
        None if i % 4 == 0 else datetime.datetime(1970 + i, 1, 1, microsecond=i, tzinfo=UTC),
        None if i % 6 == 0 else Inner(f"n{i}", None if i % 2 else i * 0.5),
        [str(k) for k in range(i % 3)],
        None if i % 4 == 0 else [None if k == 1 else [k, None, k * i] for k in range(i % 4)],
        [Inner(f"m{k}", None if k else 1.5) for k in range(i % 3)],
    )
    for i in range(50)
]


def expected() -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = [msgspec.structs.asdict(row) for row in ROWS]
    table: dict[str, list[Any]] = {}
    for row in rows:
        inner = row.pop("inner")
        flat: dict[str, Any] = {}
        for name, value in row.items():
            raw = isinstance(value, msgspec.Raw)
            flat[name] = bytes(value) if raw else msgspec.to_builtins(value, builtin_types=(bytes, datetime.datetime))
            if name == "at":
                flat["inner.name"] = inner and inner.name
                flat["inner.score"] = inner and inner.score
        for name, value in flat.items():
            table.setdefault(name, []).append(value)
    return table


@pytest.fixture
def writer() -> SlotWriter:
    return SlotWriter(Row, ROWS)


def test_pyarrow_reads_every_kind_of_column(writer: SlotWriter) -> None:
    record = pa.record_batch(writer.batch())
    record.validate(full=True)
    assert record.schema.names == list(expected())
    assert record.schema.types[:5] == [pa.int64(), pa.uint8(), pa.int16(), pa.float64(), pa.bool_()]
    assert record.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert record.schema.field("inner.score").type == pa.float32()
    assert record.schema.field("nested").type == pa.list_(pa.list_(pa.int64()))
    assert not record.schema.field("i64").nullable
    assert record.schema.field("inner.name").nullable
    assert record.to_pydict() == expected()
    assert record.column("i16").null_count == 17


def test_polars_and_pandas_agree(writer: SlotWriter) -> None:
    frame = pl.DataFrame(writer.batch())
    assert frame.to_dict(as_series=False) == expected()
    assert pa.table(writer.batch()).to_pydict() == expected()
    assert pd.DataFrame.from_arrow(writer.batch())["f64"].tolist() == expected()["f64"]


def test_buffers_are_the_batch_memory_itself(writer: SlotWriter) -> None:
    batch = writer.batch()
    record = pa.record_batch(batch)
    start, end = writer.memory.ctypes.data, writer.memory.ctypes.data + len(writer.memory)
    assert record.column("f64").buffers()[1].address == batch["f64"].ctypes.data
    assert record.column("text").buffers()[1].address == batch["text"].offsets.ctypes.data
    assert record.column("text").buffers()[2].address == batch["text"].data.ctypes.data
    assert record.column("tags").values.buffers()[2].address == batch["tags[]"].data.ctypes.data
    inside = {
        name: [start <= buffer.address < end for buffer in record.column(name).buffers() if buffer is not None]
        for name in record.schema.names
    }
    packed = {"flag": [False], "maybe": [True, False]}
    assert {name: where for name, where in inside.items() if not all(where)} == packed


def test_polars_shares_the_memory(writer: SlotWriter) -> None:
    batch = writer.batch()
    series = pl.DataFrame(batch)["f64"]
    assert series.to_numpy().ctypes.data == batch["f64"].ctypes.data


def test_an_export_counts_as_kept_until_it_is_released(writer: SlotWriter) -> None:
    batch = writer.batch()
    record = pa.record_batch(batch)
    assert "f64" in batch.kept_views()
    assert "flag" not in batch.kept_views()  # copied
    column = record.column("f64")
    del record
    gc.collect()
    assert "f64" in batch.kept_views()
    del column
    gc.collect()
    assert batch.kept_views() == []
    frame = pl.DataFrame(batch).select("i64")
    assert "i64" in batch.kept_views()
    del frame
    assert batch.kept_views() == []


def test_unused_capsules_release_what_they_hold(writer: SlotWriter) -> None:
    batch = writer.batch()
    capsules = [batch.__arrow_c_schema__(), batch.__arrow_c_array__(), batch.__arrow_c_stream__()]
    assert len(batch.kept_views()) > 10
    del capsules
    assert batch.kept_views() == []


def test_a_stream_gives_one_batch(writer: SlotWriter) -> None:
    reader = pa.RecordBatchReader.from_stream(writer.batch())
    assert reader.schema == pa.schema(writer.batch())
    assert [batch.num_rows for batch in reader] == [50]


def test_a_stream_that_nobody_has_read_yet_counts_as_a_view(writer: SlotWriter) -> None:
    batch = writer.batch()
    reader = pa.RecordBatchReader.from_stream(batch)
    assert "i64" in writer.batch_memory.kept()
    writer.batch_memory.close()
    assert reader.read_all().column("i64").to_pylist() == [row.i64 for row in ROWS]
    del reader
    gc.collect()
    assert writer.batch_memory.kept() == []


def test_an_empty_batch() -> None:
    batch = SlotWriter(Row, []).batch()
    record = pa.record_batch(batch)
    record.validate(full=True)
    assert record.num_rows == 0
    assert pl.DataFrame(batch).shape == (0, 15)


def test_private_memory_lives_as_long_as_its_export() -> None:
    frame = pl.DataFrame(Batch.decode([b"abc", b"", b"de"], decoder="raw"))
    gc.collect()
    assert frame["payload"].to_list() == [b"abc", b"", b"de"]


def test_a_closed_batch_exports_nothing(writer: SlotWriter) -> None:
    batch = writer.batch()
    batch.close()
    for use in (batch.__arrow_c_schema__, batch.__arrow_c_array__, batch.__arrow_c_stream__):
        with pytest.raises(HandlerError):
            use()


def test_a_mask_longer_than_a_word_packs_right() -> None:
    one = msgspec.defstruct("One", [("flag", bool)])
    flags = [bool(k * 7919 % 3) for k in range(200)]
    record = pa.record_batch(SlotWriter(one, [one(flag) for flag in flags]).batch())
    assert record.column("flag").to_pylist() == flags
