"""The order that every benchmark reads: compact JSON, nine fields, 177 bytes on average.

All payloads come from a seed, so two runs (and a benchmark and its peer program) see the same bytes.
"""

from __future__ import annotations

import random

import msgspec

SYMBOLS = ("AAPL", "MSFT", "NVDA", "AMZN", "GOOG", "META", "TSLA", "ORCL", "SAP", "ASML", "V", "MA", "JPM", "KO")
SIDES = ("buy", "sell")
VENUES = ("XNAS", "XNYS", "XLON", "XPAR", "XETR", "XTKS", "BATS")
NOTE_WORDS = ("limit", "day order", "desk 7", "client algo", "vwap", "iceberg", "rebalance", "hedge", "dark pool")

FIRST_ORDER_ID = 900_000_001
FIRST_TS = 1_767_225_600_000  # 2026-01-01T00:00:00Z in milliseconds


class Order(msgspec.Struct):
    """One order; ``ts`` is milliseconds since the epoch."""

    order_id: int
    customer_id: int
    symbol: str
    side: str
    price: float
    qty: int
    ts: int
    venue: str
    note: str


class OrderBrief(msgspec.Struct):
    """The two fields that a scoring handler needs; the other seven are skipped."""

    price: float
    qty: int


def orders(n: int, seed: int = 1) -> list[Order]:
    """Return ``n`` orders, the same for the same seed."""
    rng = random.Random(seed)
    result = []
    ts = FIRST_TS
    for row in range(n):
        ts += rng.randrange(0, 5)
        note = " / ".join(rng.sample(NOTE_WORDS, 3))
        result.append(
            Order(
                order_id=FIRST_ORDER_ID + row,
                customer_id=rng.randrange(10_000, 10_000_000),
                symbol=rng.choice(SYMBOLS),
                side=rng.choice(SIDES),
                price=round(rng.uniform(5.0, 2500.0), rng.randrange(2, 5)),
                qty=rng.randrange(1, 20_000),
                ts=ts,
                venue=rng.choice(VENUES),
                note=f"{note} #{rng.randrange(100, 1_000)}",
            )
        )
    return result


def payloads(n: int, seed: int = 1) -> list[bytes]:
    """Return ``n`` orders as JSON, keys in the order of the Struct."""
    encode = msgspec.json.Encoder().encode
    return [encode(order) for order in orders(n, seed)]


def shuffled_payloads(n: int, seed: int = 1) -> list[bytes]:
    """Return the orders of ``payloads(n, seed)`` with the keys in another order in every message."""
    rng = random.Random(seed + 1)
    encode = msgspec.json.Encoder().encode
    result = []
    for order in orders(n, seed):
        items = list(msgspec.structs.asdict(order).items())
        rng.shuffle(items)
        result.append(encode(dict(items)))
    return result
