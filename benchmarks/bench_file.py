"""File -> lines, without a decoder: what reading and cutting cost before anything is made of a row.

The sink counts messages and bytes and keeps nothing. The peer is Python's own loop over the lines of a file.
The writing side: framed records -> lines in a file, with each fsync policy, 14 batches in flight as in a run.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from pythia_fast._ext.collecting_sink import END, MORE, CountingSink, poll
from pythia_fast._ext.file_reader import FileRecords
from pythia_fast._ext.file_writer import payload_bytes
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.file import FileProducer
from pythia_fast.brokers.framing import frame_record
from pythia_fast.demo.order_file import write_order_file

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
ROWS = 5_000_000
BATCH = 4096
OUTPUT = b'{"order_id":900000001,"revenue":12345.6789}'


@pytest.fixture(scope="module")
def orders() -> Path:
    """Five million orders, kept between runs."""
    return write_order_file(ROOT / ".cache" / "bench", ROWS)


def read(path: Path, block_bytes: int) -> CountingSink:
    records = FileRecords("ndjson", max_payload_bytes=1 << 20, block_bytes=block_bytes)
    records.add(os.open(path, os.O_RDONLY), 0, 0)
    records.exhausted()
    sink = CountingSink()
    while (result := poll(records, sink, 1 << 16)) == MORE:
        pass
    assert result == END
    assert sink.count == ROWS
    records.close()
    return sink


def python_lines(path: Path) -> None:
    with path.open("rb") as file:
        assert sum(1 for _ in file) == ROWS


def test_reading(bars: Bars, orders: Path, interleaved: Callable[..., dict[str, float]]) -> None:
    sizes = {f"{kib} KiB": kib << 10 for kib in (64, 256, 1024)}
    contestants: dict[str, Callable[[], object]] = {
        name: lambda block_bytes=block_bytes: read(orders, block_bytes) for name, block_bytes in sizes.items()
    }
    contestants["Python"] = lambda: python_lines(orders)
    seconds = interleaved(contestants)
    ours = seconds["256 KiB"]
    bars.report("file -> lines, blocks of 256 KiB", ROWS / ours / 1e6, "M lines/s", at_least=15)
    bars.report("  bytes", orders.stat().st_size / ours / 1e9, "GB/s")
    for name in ("64 KiB", "1024 KiB"):
        bars.report(f"  blocks of {name}", ROWS / seconds[name] / 1e6, "M lines/s")
    bars.report("ours / `for line in file`", seconds["Python"] / ours, "x", at_least=2)


def write(path: Path, fsync: Literal["batch", "interval", "never"]) -> float:
    """Seconds until a million rows are delivered."""
    sink = FileProducer(path, fsync=fsync).open(PublisherContext("bench", "bench", path.parent, print))
    batch = memoryview(frame_record(OUTPUT) * BATCH)
    tickets, in_flight, done = 1_000_000 // BATCH, 0, 0
    started = time.perf_counter()
    for ticket in range(tickets):
        sink.publish(batch, BATCH, ticket)
        in_flight += 1
        while in_flight == 14:
            delivered = len(sink.deliveries(1.0))
            in_flight -= delivered
            done += delivered
    while done < tickets:
        done += len(sink.deliveries(1.0))
    seconds = time.perf_counter() - started
    sink.close(10)
    path.unlink()
    return seconds


def test_writing(bars: Bars, tmp_path: Path) -> None:
    policies: tuple[Literal["batch", "interval", "never"], ...] = ("batch", "interval", "never")
    seconds: dict[str, list[float]] = {policy: [] for policy in policies}
    for _ in range(5):
        for policy in policies:
            seconds[policy].append(write(tmp_path / "out", policy))
    rows = 1_000_000 // BATCH * BATCH
    for policy in policies:
        bars.report(f"records -> file, fsync={policy!r}", rows / statistics.median(seconds[policy]) / 1e6, "M rows/s")
    batch = memoryview(frame_record(OUTPUT) * BATCH)
    started = time.perf_counter()
    for _ in range(500):
        payload_bytes(batch, BATCH, "ndjson")
    bars.report("  of it frames -> lines", (time.perf_counter() - started) / 500 / BATCH * 1e9, "ns/row", at_most=50)
