"""The MessagePack, fixed-layout and Avro decoders on the order, one core, beside msgspec, NumPy and fastavro.

Ours are timed as the runtime calls them: one call of the C kernel a payload, into batches of 4096 rows. The Python
contestants get a list of bytes objects.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import fastavro
import msgspec
import numpy as np

from benchmarks.data import Order, OrderBrief, orders
from pythia_fast import Avro
from pythia_fast._ext.decoder_probe import DecoderProbe
from pythia_fast._ext.plan import Layout
from pythia_fast.decoders import choose_decoder

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROWS = 50_000
TIMES = 8  # ours decode the payloads so often a round, so that a round is as long as the others'
BATCH = 4096
RECORD = np.dtype(
    [
        ("order_id", "<i8"), ("customer_id", "<i8"), ("symbol", "S4"), ("side", "S4"), ("price", "<f8"),
        ("qty", "<i4"), ("ts", "<M8[ms]"), ("venue", "S4"), ("note", "S32"),
    ]
)  # fmt: skip
AVRO_SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "order_id", "type": "long"},
        {"name": "customer_id", "type": "long"},
        {"name": "symbol", "type": "string"},
        {"name": "side", "type": "string"},
        {"name": "price", "type": "double"},
        {"name": "qty", "type": "int"},
        {"name": "ts", "type": "long"},
        {"name": "venue", "type": "string"},
        {"name": "note", "type": "string"},
    ],
}
AVRO = fastavro.parse_schema(AVRO_SCHEMA)


def ours(payloads: list[bytes], schema: Any, decoder: Any) -> Callable[[], int]:
    """A call that decodes all payloads TIMES times."""
    decoding = choose_decoder(schema, decoder)
    probe = DecoderProbe(Layout(decoding.plan, BATCH, BATCH * 200), decoding.native())
    probe.load(payloads)

    def run() -> int:
        return sum(probe.run() for _ in range(TIMES))

    assert run() == TIMES * len(payloads)
    return run


def msgspec_structs(payloads: list[bytes]) -> Callable[[], Any]:
    decode = msgspec.msgpack.Decoder(Order).decode
    return lambda: [decode(payload) for payload in payloads]


def msgspec_numpy(payloads: list[bytes]) -> Callable[[], Any]:
    decode = msgspec.msgpack.Decoder(OrderBrief).decode

    def run() -> Any:
        rows = [decode(payload) for payload in payloads]
        price = np.fromiter((row.price for row in rows), np.float64, len(rows))
        return price, np.fromiter((row.qty for row in rows), np.int64, len(rows))

    return run


def numpy_records(payloads: list[bytes]) -> Callable[[], Any]:
    """Records joined, viewed, and each field copied to a column of its own, as ours does."""

    def run() -> list[Any]:
        records = np.frombuffer(b"".join(payloads), RECORD)
        return [records[name].copy() for name in RECORD.names or ()]

    return run


def records() -> list[bytes]:
    table = np.array([msgspec.structs.astuple(order) for order in orders(ROWS)], RECORD)
    return [record.tobytes() for record in table]


def test_msgpack_decoder(interleaved: Callable[..., dict[str, float]], bars: Bars) -> None:
    payloads = [msgspec.msgpack.encode(order) for order in orders(ROWS)]
    seconds = interleaved(
        {
            "nine": ours(payloads, Order, "msgpack"),
            "two": ours(payloads, OrderBrief, "msgpack"),
            "structs": msgspec_structs(payloads),
            "numpy": msgspec_numpy(payloads),
        },
        rounds=9,
    )
    nine, two = seconds["nine"] / TIMES, seconds["two"] / TIMES
    bars.report("msgpack, 9 fields", ROWS / nine / 1e6, "M rows/s")
    bars.report("msgpack, 2 of 9 fields", ROWS / two / 1e6, "M rows/s")
    bars.report("msgpack, 9 fields / msgspec Struct", seconds["structs"] / nine, "x", at_least=5)
    bars.report("msgpack, 2 of 9 fields / msgspec to NumPy", seconds["numpy"] / two, "x", at_least=3)


def test_fixed_decoder(interleaved: Callable[..., dict[str, float]], bars: Bars) -> None:
    payloads = records()
    seconds = interleaved({"ours": ours(payloads, None, RECORD), "numpy": numpy_records(payloads)}, rounds=9)
    ours_seconds = seconds["ours"] / TIMES
    bars.report("fixed layout, 9 fields", ROWS / ours_seconds / 1e6, "M rows/s")
    bars.report("fixed layout / numpy.frombuffer of joined payloads", seconds["numpy"] / ours_seconds, "x")


def fastavro_columns(payloads: list[bytes], schema: Any) -> Callable[[], Any]:
    """A dict a payload, and the two numbers that a handler reckons with as arrays."""

    def run() -> Any:
        rows = [fastavro.schemaless_reader(io.BytesIO(payload), schema) for payload in payloads]
        price = np.fromiter((row["price"] for row in rows), np.float64, len(rows))
        return price, np.fromiter((row["qty"] for row in rows), np.int64, len(rows))

    return run


def avro_records(schema: Any) -> list[bytes]:
    payloads = []
    for order in orders(ROWS):
        written = io.BytesIO()
        fastavro.schemaless_writer(written, schema, msgspec.structs.asdict(order))
        payloads.append(written.getvalue())
    return payloads


def test_avro_decoder(interleaved: Callable[..., dict[str, float]], bars: Bars) -> None:
    payloads = avro_records(AVRO)
    seconds = interleaved(
        {
            "nine": ours(payloads, Order, Avro(AVRO_SCHEMA)),
            "two": ours(payloads, OrderBrief, Avro(AVRO_SCHEMA)),
            "fastavro": fastavro_columns(payloads, AVRO),
        },
        rounds=9,
    )
    nine, two = seconds["nine"] / TIMES, seconds["two"] / TIMES
    bars.report("Avro, 9 fields", ROWS / nine / 1e6, "M rows/s")
    bars.report("Avro, 2 of 9 fields", ROWS / two / 1e6, "M rows/s")
    bars.report("Avro, 9 fields / fastavro, two of them to NumPy", seconds["fastavro"] / nine, "x")
    bars.report("Avro, 2 of 9 fields / fastavro, two of them to NumPy", seconds["fastavro"] / two, "x")
