"""Whole runs in memory through each decoder and both encodings, with results larger than an output region."""

from __future__ import annotations

import datetime
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pythia_fast import App
from pythia_fast.brokers.memory import MemoryConsumer, MemoryProducer

UTC = datetime.UTC
TICK = np.dtype([("id", ">u4"), ("at", "<M8[ms]"), ("symbol", "S4"), ("levels", "<f4", (2,))])


class Order(msgspec.Struct):
    order_id: int
    name: str | None
    at: datetime.datetime
    tags: list[str] = []


class MsgpackProducer(MemoryProducer):
    def encoding(self) -> Any:
        return "msgpack"


def run(tmp_path: Path, handler: Any, payloads: list[bytes], sink: MemoryProducer, **options: Any) -> MemoryProducer:
    """Run to the end of the payloads; the dead letters."""
    app = App("formats")
    dead = MemoryProducer()
    app.batch_handler(
        source=MemoryConsumer(payloads), sink=sink, dead_letter=dead, ordering="partition", name="handler", **options
    )(handler)
    app.run(workers=2, until="end", state_dir=tmp_path)
    return dead


def order(i: int) -> Order:
    tags = ["t"] * (i % 3)
    return Order(i, None if i % 5 == 0 else f"né {i}", datetime.datetime(2026, 1, 31, 0, 0, i % 60, i, UTC), tags)


def test_msgpack_in_and_out(tmp_path: Path) -> None:
    payloads = [msgspec.msgpack.encode(order(i)) for i in range(3000)]
    payloads[7] = payloads[7][:-1]
    sink = MsgpackProducer()
    dead = run(
        tmp_path,
        lambda batch: {"__key__": batch["order_id"], **{name: batch[name] for name in batch.columns}},
        payloads,
        sink,
        schema=Order,
        decoder="msgpack",
        batch_size=200,
    )
    expected = [order(i) for i in range(3000) if i != 7]
    assert [msgspec.msgpack.decode(payload or b"", type=Order) for payload in sink.payloads] == expected
    assert [record.key for record in sink.records] == [str(row.order_id).encode() for row in expected]
    assert dead.payloads == [payloads[7]]


class Event(msgspec.Struct):
    id: int
    raw: msgspec.Raw = msgspec.Raw()


@pytest.mark.parametrize("decoder", ["json", "msgpack"])
@pytest.mark.parametrize("sink", [MemoryProducer, MsgpackProducer])
def test_raw_values_of_rows_are_written_in_the_encoding_of_the_sink(tmp_path: Path, decoder: str, sink: Any) -> None:
    def handle(events: list[Event]) -> list[Event]:
        return events

    objects = [{"id": 0, "raw": {"x": [1, None]}}, {"id": 1}]
    out = sink()
    encode = getattr(msgspec, decoder).encode
    dead = run(tmp_path, handle, [encode(each) for each in objects], out, decoder=decoder)
    decode = getattr(msgspec, out.encoding()).decode
    assert sorted(map(decode, out.payloads), key=lambda each: each["id"]) == objects
    assert dead.payloads == []


def test_fixed_records_to_json(tmp_path: Path) -> None:
    def payload(i: int) -> bytes:
        return struct.pack(">I", i) + struct.pack("<q", 1_000_000 * i) + b"AB\0\0" + struct.pack("<ff", i, -i)

    sink = MemoryProducer()
    dead = run(
        tmp_path,
        lambda batch: {name: batch[name] for name in ("id", "at", "symbol", "levels")},
        [payload(i) for i in range(1000)] + [b"short"],
        sink,
        decoder=TICK,
        batch_size=128,
    )
    rows = [msgspec.json.decode(payload or b"") for payload in sink.payloads]
    assert [row["id"] for row in rows] == list(range(1000))
    assert rows[2] == {"id": 2, "at": "1970-01-01T00:33:20Z", "symbol": "QUI=", "levels": [2.0, -2.0]}
    assert dead.payloads == [b"short"]


@pytest.mark.parametrize("shape", ["columns", "list"])
def test_results_larger_than_the_output_region_come_out_whole(tmp_path: Path, shape: str) -> None:
    long = "x" * 3000

    def explode(batch: Any) -> Any:
        values = [value for payload in batch["payload"].tolist() for value in [payload.decode()] * 40]
        if shape == "list":
            return [value + long for value in values]
        return {"v": values, "long": np.full(len(values), long, object)}

    sink = MemoryProducer()
    payloads = [b"%d" % i for i in range(600)]
    dead = run(tmp_path, explode, payloads, sink, decoder="raw", batch_size=100, output_rows="any")
    expected = [i for i in range(600) for _ in range(40)]
    if shape == "list":
        assert [int((payload or b"").removesuffix(long.encode())) for payload in sink.payloads] == expected
    else:
        rows = [msgspec.json.decode(payload or b"") for payload in sink.payloads]
        assert [int(row["v"]) for row in rows] == expected
        assert {row["long"] for row in rows} == {long}
    assert dead.records == []
