"""The JSON decoder on the 177-byte order, one core, beside what one would use instead.

Ours is timed as the runtime calls it: payloads one after the other in memory, one call of the C kernel each, into
batches of 4096 rows that start anew when they are full. The Python contestants get a list of bytes objects, polars
one NDJSON buffer, simdjson the same bytes as we do, in C++ (benchmarks/peers/simdjson_orders.cpp, built here when
Debian's libsimdjson-dev and g++ are installed).
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest

from benchmarks.data import Order, OrderBrief, payloads, shuffled_payloads
from pythia_fast._ext.decoder_probe import DecoderProbe
from pythia_fast._ext.json_decoder import JsonDecoder, available_simd
from pythia_fast._ext.plan import Layout, Plan

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROWS = 50_000
BATCH = 4096
REPEATS = 8  # of the fast contestants in one call, so that it lasts long enough to be disturbed as the others are
PEER = Path(__file__).parent / "peers" / "simdjson_orders.cpp"


def decoding(schema: Any, orders: list[bytes], simd: str | None = None) -> Callable[[], None]:
    """A call that decodes all orders REPEATS times with our decoder."""
    plan = Plan(schema)
    probe = DecoderProbe(Layout(plan, BATCH, BATCH * 200), JsonDecoder(plan, simd))
    probe.load(orders)

    def run() -> None:
        for _ in range(REPEATS):
            assert probe.run() == len(orders)

    return run


def msgspec_each(orders: list[bytes]) -> Callable[[], Any]:
    decode = msgspec.json.Decoder(Order).decode
    return lambda: [decode(order) for order in orders]


def msgspec_joined(orders: list[bytes]) -> Callable[[], Any]:
    """Messages joined to one JSON array per 1,000, which is then decoded at once."""
    decode = msgspec.json.Decoder(list[Order]).decode

    def run() -> None:
        for at in range(0, len(orders), 1000):
            decode(b"[" + b",".join(orders[at : at + 1000]) + b"]")

    return run


def msgspec_to_numpy(orders: list[bytes]) -> Callable[[], Any]:
    decode = msgspec.json.Decoder(OrderBrief).decode

    def run() -> tuple[Any, Any]:
        rows = [decode(order) for order in orders]
        price = np.fromiter((row.price for row in rows), np.float64, len(rows))
        return price, np.fromiter((row.qty for row in rows), np.int64, len(rows))

    return run


def polars_ndjson(orders: list[bytes]) -> Callable[[], Any]:
    text = b"\n".join(orders)
    schema = {
        "order_id": pl.Int64,
        "customer_id": pl.Int64,
        "symbol": pl.String,
        "side": pl.String,
        "price": pl.Float64,
    }
    schema |= {"price": pl.Float64, "qty": pl.Int64, "ts": pl.Int64, "venue": pl.String, "note": pl.String}
    return lambda: pl.read_ndjson(io.BytesIO(text), schema=schema)


def can_build_peer() -> bool:
    """Whether g++ and simdjson's header are installed."""
    if shutil.which("g++") is None:
        return False
    command = ["g++", "-std=c++17", "-E", "-x", "c++", "-include", "simdjson.h", "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def simdjson_peer(orders: list[bytes]) -> Iterator[Callable[[str], Callable[[], None]]]:
    """Build and start the C++ peer; yields a maker of calls that decode 9 or 2 fields of all orders REPEATS times."""
    started: list[subprocess.Popen[bytes]] = []
    with TemporaryDirectory() as folder:
        program, data = Path(folder) / "peer", Path(folder) / "orders"
        subprocess.run(["g++", "-std=c++17", "-O3", str(PEER), "-o", str(program), "-lsimdjson"], check=True)
        data.write_bytes(b"".join(struct.pack("<I", len(order)) + order for order in orders))

        def make(fields: str) -> Callable[[], None]:
            peer = subprocess.Popen([program, data, fields], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            started.append(peer)
            assert peer.stdin is not None
            assert peer.stdout is not None
            ask, answer = peer.stdin, peer.stdout

            def run() -> None:
                for _ in range(REPEATS):
                    ask.write(b"\n")
                    ask.flush()
                    assert int(answer.readline().split()[0]) == len(orders)

            return run

        try:
            yield make
        finally:
            for peer in started:
                peer.communicate()


def ratios(seconds: dict[str, float]) -> dict[str, tuple[float, float]]:
    """From median seconds to ``what: (ratio, bar)``; how many times as fast as each of the others ours is."""
    ours = seconds["ours"]
    found = {
        "9 fields / msgspec Struct, one at a time": (seconds["msgspec each"] / ours, 7.0),
        "9 fields / msgspec list[Struct], 1000 joined": (seconds["msgspec joined"] / ours, 3.0),
        "9 fields / polars.read_ndjson": (seconds["polars"] / ours, 3.5),
        "2 fields / msgspec to NumPy": (seconds["msgspec to numpy"] / seconds["ours, 2 fields"], 2.5),
        "keys shuffled / keys in order": (ours / seconds["ours, shuffled"], 0.5),
    }
    if "simdjson" in seconds:
        found["9 fields / simdjson on-demand, C++"] = (seconds["simdjson"] / ours, 1.2)
    return found


def measure(interleaved: Callable[..., dict[str, float]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each contestant over ROWS orders, from one interleaved run."""
    orders = payloads(ROWS)
    contestants: dict[str, Callable[[], Any]] = {
        "ours": decoding(Order, orders),
        "ours, scalar": decoding(Order, orders, "scalar"),
        "ours, 2 fields": decoding(OrderBrief, orders),
        "ours, shuffled": decoding(Order, shuffled_payloads(ROWS)),
        "msgspec each": msgspec_each(orders),
        "msgspec joined": msgspec_joined(orders),
        "msgspec to numpy": msgspec_to_numpy(orders),
        "polars": polars_ndjson(orders),
    }
    if can_build_peer():
        with simdjson_peer(orders) as make:
            contestants["simdjson"] = make("9")
            contestants["simdjson, 2 fields"] = make("2")
            seconds = interleaved(contestants, rounds=rounds)
    else:
        seconds = interleaved(contestants, rounds=rounds)
    repeated = ("ours", "simdjson")
    return {name: spent / REPEATS if name.startswith(repeated) else spent for name, spent in seconds.items()}


@pytest.mark.timeout(300)
def test_decoders(bars: Bars, interleaved: Callable[..., dict[str, float]]) -> None:
    seconds = measure(interleaved)
    for name, (ratio, bar) in ratios(seconds).items():
        bars.report(name, ratio, "x", at_least=bar)
    for name, spent in seconds.items():
        bars.report(f"  {name}" + (f" ({available_simd()[-1]})" if name == "ours" else ""), ROWS / spent / 1e6, "M/s")
