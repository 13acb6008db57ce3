"""Kafka -> decoder -> ring -> handler in pool processes, with a broker on the same cores.

Contestants take turns in processes of their own, each as a new group over the same topic of four partitions;
time and CPU count from the first message to the last. The bars are ratios to what librdkafka itself gives (a C loop
that only counts bytes), and to the best loop there is in Python.

Latencies are of one contestant at a time, in turn, each with a topic and a producer of its own, after a run that only
warms the broker. What broker and machine give at that pace is seen in the peers' figures beside ours.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from benchmarks.kafka_app import ROOT, groups, run_app, start_app
from benchmarks.kafka_topic import fill
from tests.support.kafka_broker import KafkaBroker

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROWS = 4_000_000
PARTITIONS = 4
ROUNDS = 5
LATENCY_ROUNDS = 3
WARMING_SECONDS = 15.0  # until the group has formed and every process is warm; these rows do not count
PACED_SECONDS = 10.0
BEHIND_SECONDS = 3.0  # by which a reader may be behind when the last row is written: SIGTERM ends the reading


def peer(module: str, *arguments: object) -> dict[str, Any]:
    """What a peer program printed."""
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return dict(json.loads(finished.stdout))


def ours(broker: KafkaBroker, folder: Path) -> dict[str, float]:
    """One run over the whole topic."""
    seconds, report = run_app("kafka_orders:throughput", broker, folder, ROWS, BENCH_TOPIC="orders")
    return {"rows": ROWS, "seconds": seconds, "cpu_seconds": report.cpu_seconds, "rss_mb": report.peak_rss_mb}


@pytest.mark.timeout(1800)
def test_throughput(bars: Bars, broker: KafkaBroker, tmp_path: Path) -> None:
    """Interleaved, medians."""
    seconds = fill(broker, "orders", ROWS, PARTITIONS)
    servers = broker.bootstrap_servers
    rounds: dict[str, list[dict[str, Any]]] = {"count": [], "ours": [], "one": [], "two": []}
    for turn in range(ROUNDS):
        rounds["count"].append(peer("kafka_count", servers, next(groups), ROWS))
        rounds["ours"].append(ours(broker, tmp_path / f"run-{turn}"))
        rounds["one"].append(peer("confluent_loop", servers, 1, ROWS))
        rounds["two"].append(peer("confluent_loop", servers, 2, ROWS))
    rate = {
        name: statistics.median(result["rows"] / result["seconds"] for result in results)
        for name, results in rounds.items()
    }
    cpu = {
        name: statistics.median(result["cpu_seconds"] / result["rows"] * 1e6 for result in results)
        for name, results in rounds.items()
    }
    memory = statistics.median(result["rss_mb"] for result in rounds["ours"])
    bars.report("filling the topic", ROWS / seconds / 1e6, "M rows/s")
    for name, label in {
        "count": "C loop over consume_batch_queue, counting bytes",
        "ours": "Kafka -> handler, 9 fields, W1",
        "one": "confluent-kafka + msgspec + NumPy, one process",
        "two": "confluent-kafka + msgspec + NumPy, two processes",
    }.items():
        bars.report(label, rate[name] / 1e6, "M rows/s")
        bars.report(f"  {label}: CPU", cpu[name], "s/M rows")
    bars.report("ours / C loop", rate["ours"] / rate["count"], "x", at_least=0.7)
    bars.report("ours / confluent-kafka, one process", rate["ours"] / rate["one"], "x", at_least=2.5)
    bars.report("ours / confluent-kafka, two processes", rate["ours"] / rate["two"], "x", at_least=2)
    bars.report("CPU, ours / confluent-kafka, one process", cpu["ours"] / cpu["one"], "x", at_most=0.5)
    bars.report("RSS of the whole tree", memory, "MB")


def start_ours(broker: KafkaBroker, topic: str, folder: Path) -> subprocess.Popen[bytes]:
    """Our consumer of a paced topic; leaves .npy files in the folder."""
    return start_app("kafka_orders:latency", broker, folder, BENCH_TOPIC=topic)


def start_loop(how: str, broker: KafkaBroker, topic: str, folder: Path) -> subprocess.Popen[bytes]:
    """A confluent-kafka loop over a paced topic; leaves a .npy file in the folder."""
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.peers.confluent_latency", broker.bootstrap_servers, topic]
    return subprocess.Popen([*command, next(groups), how, str(folder / "seen.npy")], cwd=ROOT)


CONTESTANTS = {
    "ours": start_ours,
    "poll": partial(start_loop, "poll"),
    "consume": partial(start_loop, "consume"),
}


class Latencies(NamedTuple):
    """One contestant's window."""

    began_ns: int
    produced_ns: npt.NDArray[np.int64]
    ms: npt.NDArray[np.float64]  # produce call -> handler done, of the same rows
    late_ms_p99: float  # how late the produce calls themselves were
    late_ms_max: float


def paced(contestant: str, broker: KafkaBroker, folder: Path, rows_per_second: int) -> Latencies:
    """One contestant reads what one producer writes, which warms both up and goes on into the window."""
    topic = broker.create_topic(folder.name, PARTITIONS)
    process = CONTESTANTS[contestant](broker, topic, folder)
    try:
        facts = peer("paced_producer", broker.bootstrap_servers, topic, rows_per_second, WARMING_SECONDS, PACED_SECONDS)
        time.sleep(BEHIND_SECONDS)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    seen = np.concatenate([np.load(path) for path in folder.glob("*.npy")])
    counted = seen[seen[:, 0] >= facts["began_ns"]]
    assert len(counted) == facts["rows"] == int(rows_per_second * PACED_SECONDS)
    ms = (counted[:, 1] - counted[:, 0]) / 1e6
    return Latencies(facts["began_ns"], counted[:, 0], ms, facts["late_ms_p99"], facts["late_ms_max"])


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("rows_per_second", "p50_ms", "p99_ms"), [(2_000, 2.0, 5.0), (20_000, None, 10.0)], ids=["2000", "20000"]
)
def test_latency(
    bars: Bars, broker: KafkaBroker, tmp_path: Path, rows_per_second: int, p50_ms: float | None, p99_ms: float
) -> None:
    """From the produce call to the end of the handler, with the settings of the throughput above; medians of rounds.

    A row counts from its own produce call, so a late producer does not make it late; but rows that come in a burst
    after a pause measure the burst. So the producer's own lateness stands beside the result: where its p99 is not far
    below ours, the figure is about the producer and the machine.
    """
    rounds: dict[str, list[Latencies]] = {name: [] for name in CONTESTANTS}
    paced("poll", broker, tmp_path / "warming", rows_per_second)  # the broker compiles what this pace makes it do
    idle = psutil.cpu_times()
    began = time.monotonic()
    for turn in range(LATENCY_ROUNDS):
        order = deque(CONTESTANTS)
        order.rotate(turn)
        for name in order:
            rounds[name].append(paced(name, broker, tmp_path / f"{name}-{turn}", rows_per_second))
    seconds, now = time.monotonic() - began, psutil.cpu_times()
    idle_cores = (now.idle + now.iowait - idle.idle - idle.iowait) / seconds
    pace = f"{rows_per_second:,} rows/s"
    p50, p99 = (
        {
            name: statistics.median(float(np.percentile(each.ms, percent)) for each in taken)
            for name, taken in rounds.items()
        }
        for percent in (50, 99)
    )
    bars.report(f"produce call -> handler done, {pace}: p50", p50["ours"], "ms", at_most=p50_ms)
    bars.report(f"produce call -> handler done, {pace}: p99", p99["ours"], "ms", at_most=p99_ms)
    for name, label in {"poll": "poll()", "consume": "consume(1000, 2 ms)"}.items():
        bars.report(f"  confluent-kafka {label}, {pace}: p50", p50[name], "ms")
        bars.report(f"  confluent-kafka {label}, {pace}: p99", p99[name], "ms")
    bars.report(f"  p50, ours / poll(), {pace}", p50["ours"] / p50["poll"], "x")
    bars.report(f"  p99, ours / poll(), {pace}", p99["ours"] / p99["poll"], "x")
    every = [each for taken in rounds.values() for each in taken]
    bars.report(f"  the producer's own lateness, {pace}: p99", max(each.late_ms_p99 for each in every), "ms")
    bars.report(f"  the producer's own lateness, {pace}: worst call", max(each.late_ms_max for each in every), "ms")
    bars.report(f"  cores that were idle, of {os.cpu_count()}, {pace}", idle_cores, "cores")
