"""ext/null_row.h: a null payload as a row, in memory that held other rows, and where there is no room for it."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from pythia_fast._ext.decoder_probe import DECODED, FULL, REFUSED, DecoderProbe
from pythia_fast._ext.plan import Layout
from pythia_fast.decoders import choose_decoder
from pythia_fast.refusal import Reason

from .column_reader import rows as rows_of

ENCODE = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}


class Item(msgspec.Struct):
    sku: str = "s" * 10
    count: int | None = 3


class Order(msgspec.Struct):
    number: int | None
    name: str = "n" * 20
    ok: bool = True
    at: datetime.datetime = datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)
    maybe: float | None = None
    tags: list[str] = []
    items: list[Item] = []
    first: Item = msgspec.field(default_factory=Item)
    last: Item | None = None


FULL_ORDER = Order(1, "", False, datetime.datetime(1999, 1, 1), 1.5, ["t"] * 3, [Item()] * 3, Item("", None), Item())


def probe_of(decoder: str, capacity: int = 8, text_bytes: int = 4096) -> DecoderProbe:
    decoding = choose_decoder(Order, decoder, "rows")
    return DecoderProbe(Layout(decoding.plan, capacity, text_bytes), decoding.native())


@pytest.mark.parametrize("decoder", ENCODE)
def test_nothing_is_left_of_what_stood_there(decoder: str) -> None:
    encode = ENCODE[decoder]
    probe = probe_of(decoder)
    for _ in range(4):
        assert probe.decode(encode(FULL_ORDER))[0] == DECODED
    probe.reset()
    payloads = [None, encode({"number": None}), encode(FULL_ORDER), None]
    assert [probe.decode(payload)[0] for payload in payloads] == [DECODED] * 4
    found = rows_of(probe)
    assert found[0] == found[1] == found[3]
    assert found[2] != found[0]


@pytest.mark.parametrize("decoder", ENCODE)
def test_a_batch_that_is_full_keeps_what_it_has(decoder: str) -> None:
    probe = probe_of(decoder, capacity=2)
    assert [probe.decode(None)[0] for _ in range(3)] == [DECODED, DECODED, FULL]
    assert probe.rows == 2
    tight = probe_of(decoder, text_bytes=45)  # two defaults of the name, not three
    assert [tight.decode(None)[0] for _ in range(3)] == [DECODED, DECODED, FULL]
    assert tight.rows == 2
    tight.reset()
    assert tight.decode(ENCODE[decoder](FULL_ORDER))[0] == DECODED


def test_without_being_asked_for_it_is_refused() -> None:
    decoding = choose_decoder(Order, "json", "skip")
    probe = DecoderProbe(Layout(decoding.plan, 2, 100), decoding.native())
    assert probe.decode(None) == (REFUSED, Reason.NULL, 0, -1, 0)
    assert probe.rows == 0
