"""Batches that are full: every decoder stops before the row that has no room, and the batch is sound."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from pythia_fast._ext.decoder_probe import DECODED, FULL, DecoderProbe
from pythia_fast._ext.plan import Layout
from pythia_fast.decoders import choose_decoder

from .column_reader import expected, rows


class Item(msgspec.Struct):
    sku: str
    prices: list[float] = []


class Order(msgspec.Struct):
    order_id: int
    name: str
    blob: bytes
    note: str | None
    tags: list[str]
    items: list[Item]
    label: str = "a default takes room too"
    raw: msgspec.Raw = msgspec.Raw(b"\xc0")
    at: datetime.datetime = datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)


def order(i: int) -> Order:
    items = [Item("s", [0.5] * (i % 3))] * (i % 3)
    return Order(i, "é" * (i % 7), b"x" * (i % 5), None if i % 3 else "note", ["t"] * (i % 4), items)


ORDERS = [order(i) for i in range(60)]
RECORD = np.dtype([("i", ">i4"), ("s", "S6"), ("u", "U3"), ("pair", [("x", "f4"), ("v", "V2")], (3,))])


def msgpack_case() -> tuple[Any, Any, list[bytes]]:
    encoded = [msgspec.msgpack.encode(order) for order in ORDERS]
    for i in range(0, 60, 2):
        kept = {k: v for k, v in msgspec.structs.asdict(ORDERS[i]).items() if k not in ("label", "raw", "at")}
        encoded[i] = msgspec.msgpack.encode(kept)
    return Order, "msgpack", encoded


def fixed_case() -> tuple[Any, Any, list[bytes]]:
    records = np.zeros(60, RECORD)
    records["i"] = np.arange(60)
    records["s"] = [b"x" * (i % 7) for i in range(60)]
    records["u"] = ["é𝄞"[: i % 3] for i in range(60)]
    records["pair"]["x"] = np.arange(180).reshape(60, 3)
    return None, RECORD, [record.tobytes() for record in records]


def raw_case() -> tuple[Any, Any, list[bytes]]:
    return None, "raw", [b"y" * (i % 11) for i in range(60)]


@pytest.mark.parametrize("case", [msgpack_case, fixed_case, raw_case])
@pytest.mark.parametrize("raw_bytes", [64, 100, 150, 1000])
@pytest.mark.parametrize("capacity", [1, 7, 60])
def test_rows_that_do_not_fit_go_to_the_next_batch(case: Any, raw_bytes: int, capacity: int) -> None:
    schema, decoder, payloads = case()
    decoding = choose_decoder(schema, decoder)
    roomy = DecoderProbe(Layout(decoding.plan, 60, 1 << 16), decoding.native())
    assert [roomy.decode(payload)[0] for payload in payloads] == [DECODED] * 60

    small = DecoderProbe(Layout(decoding.plan, capacity, raw_bytes), decoding.native())
    found: list[dict[str, Any]] = []
    batches = 1
    for payload in payloads:
        outcome = small.decode(payload)[0]
        if outcome == FULL:
            found += rows(small)
            assert small.rows <= capacity
            small.reset()
            batches += 1
            outcome = small.decode(payload)[0]
        assert outcome == DECODED
    found += rows(small)
    assert found == rows(roomy)
    assert batches >= 60 // capacity
    if schema is not None:
        decoded = [msgspec.msgpack.decode(payload, type=schema) for payload in payloads]
        assert found == [expected(row, decoding.schema) for row in decoded]


@pytest.mark.parametrize("case", [msgpack_case, fixed_case, raw_case])
def test_a_row_too_large_for_an_empty_batch_is_full_again_and_again(case: Any) -> None:
    schema, decoder, payloads = case()
    decoding = choose_decoder(schema, decoder)
    probe = DecoderProbe(Layout(decoding.plan, 60, 1), decoding.native())
    for _ in range(3):
        assert probe.decode(payloads[-1])[0] == FULL
        assert probe.rows == 0
