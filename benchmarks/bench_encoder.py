"""Returned columns to framed records, beside msgspec encoding one dict a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import pytest

from benchmarks.data import Order, orders
from pythia_fast.batch import Batch
from pythia_fast.brokers.framing import iterate_records
from pythia_fast.results.outputs import OutputEncoder

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROWS = 4096
BATCHES = 25

Encoding = Literal["json", "msgpack"]


def result(wide: bool) -> dict[str, Any]:
    """What a scoring handler returns: an id and a number, or six columns, strings among them."""
    batch = Batch.decode([msgspec.json.encode(order) for order in orders(ROWS)], Order)
    scored = {"order_id": batch["order_id"], "revenue": batch["price"] * batch["qty"]}
    if wide:
        scored |= {"ts": batch["ts"], "symbol": batch["symbol"], "note": batch["note"], "big": batch["qty"] > 100}
    return scored


def ours(columns: dict[str, Any], encoding: Encoding) -> Callable[[], None]:
    encoder = OutputEncoder(encoding)
    region = memoryview(bytearray(ROWS * 400))

    def run() -> None:
        for _ in range(BATCHES):
            assert encoder.open(columns).write(region).records == ROWS

    return run


def msgspec_dicts(columns: dict[str, Any], encoding: Encoding) -> Callable[[], None]:
    encode = (msgspec.json if encoding == "json" else msgspec.msgpack).Encoder().encode

    def run() -> None:
        for _ in range(BATCHES):
            lists = [column.tolist() for column in columns.values()]
            payloads = [encode(dict(zip(columns, row, strict=True))) for row in zip(*lists, strict=True)]
            assert len(payloads) == ROWS

    return run


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("wide", [False, True], ids=["2 numbers", "6 columns"])
def test_row_encoder(interleaved: Callable[..., dict[str, float]], bars: Bars, encoding: Encoding, wide: bool) -> None:
    columns = result(wide)
    region = memoryview(bytearray(ROWS * 400))
    written = OutputEncoder(encoding).open(columns).write(region)
    decode = (msgspec.json if encoding == "json" else msgspec.msgpack).decode
    first = decode(next(iterate_records(region[: written.bytes])).payload or b"")
    assert first == {name: np.asarray(column).tolist()[0] for name, column in columns.items()}

    seconds = interleaved({"ours": ours(columns, encoding), "msgspec": msgspec_dicts(columns, encoding)})
    name = f"encode {encoding}, {'6 columns' if wide else '2 numbers'}"
    bars.report(name, ROWS * BATCHES / seconds["ours"] / 1e6, "M rows/s")
    bars.report(f"{name} / msgspec dicts", seconds["msgspec"] / seconds["ours"], "x", at_least=4)
