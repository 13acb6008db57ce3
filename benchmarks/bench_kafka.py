"""Kafka -> decoder -> ring -> handler in pool processes, with a broker on the same cores.

Contestants take turns in processes of their own, each as a new group over the same topic of four partitions;
time and CPU count from the first message to the last. The bars are ratios to what librdkafka itself gives (a C loop
that only counts bytes), and to the best loop there is in Python.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.kafka_topic import fill
from pythia_fast.report import RunReport
from tests.support.kafka_broker import KafkaBroker

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
ROWS = 4_000_000
PARTITIONS = 4
ROUNDS = 5
WORKERS = 2
WARMING_SECONDS = 12.0  # until the group has formed and the broker, a JVM, is warm
PACED_SECONDS = 8.0

groups = (f"bench-{number}" for number in count())


@pytest.fixture
def broker() -> Iterator[KafkaBroker]:
    """A broker with the heap that its distribution gives it."""
    with KafkaBroker(heap="1g") as made:
        yield made


def peer(module: str, *arguments: object) -> dict[str, Any]:
    """What a peer program printed."""
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return dict(json.loads(finished.stdout))


def start_app(app: str, broker: KafkaBroker, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """``run`` of one of benchmarks/apps/kafka_orders.py, in a group of its own."""
    folder.mkdir()
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "CONSUMER_GROUP": next(groups),
        "BENCH_RESULTS": str(folder),
    }
    command = [sys.executable, "-m", "pythia_fast", "run", f"benchmarks.apps.kafka_orders:{app}"]
    command += ["--workers", str(WORKERS), "--state-dir", str(folder / "state"), *options]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def results(folder: Path) -> list[dict[str, Any]]:
    """What the pool processes left."""
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def ours(broker: KafkaBroker, folder: Path) -> dict[str, float]:
    """One run over the whole topic."""
    report_path = folder.parent / f"{folder.name}.json"
    process = start_app("throughput", broker, folder, "--until-end", "--quiet", "--report", str(report_path))
    assert process.wait(300) == 0
    report = RunReport.from_json(report_path.read_bytes())
    assert (report.rows, report.dead_lettered) == (ROWS, 0)
    seen = [result for result in results(folder) if result["rows"]]
    assert sum(result["rows"] for result in seen) == ROWS
    seconds = max(result["last_ns"] for result in seen) - min(result["first_ns"] for result in seen)
    return {"rows": ROWS, "seconds": seconds / 1e9, "cpu_seconds": report.cpu_seconds, "rss_mb": report.peak_rss_mb}


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("rows_per_second", "p50_ms", "p99_ms"), [(2_000, 2.0, 5.0), (20_000, None, 10.0)], ids=["2000", "20000"]
)
def test_latency(
    bars: Bars, broker: KafkaBroker, tmp_path: Path, rows_per_second: int, p50_ms: float | None, p99_ms: float
) -> None:
    """From the produce call to the end of the handler, with the settings of the throughput above."""
    broker.create_topic("orders", PARTITIONS)
    folder = tmp_path / "run"
    process = start_app("latency", broker, folder, "--quiet")
    producing = [sys.executable, "-m", "benchmarks.peers.paced_producer", broker.bootstrap_servers]
    subprocess.run([*producing, str(rows_per_second), str(WARMING_SECONDS)], cwd=ROOT, check=True)
    began_ns = time.monotonic_ns()
    subprocess.run([*producing, str(rows_per_second), str(PACED_SECONDS)], cwd=ROOT, check=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    seen = np.concatenate([np.load(path) for path in folder.glob("*.npy")])
    paced = seen[seen[:, 0] >= began_ns]
    assert len(paced) == int(rows_per_second * PACED_SECONDS)
    p50, p99 = np.percentile((paced[:, 1] - paced[:, 0]) / 1e6, [50, 99])
    bars.report(f"produce call -> handler done, {rows_per_second} rows/s: p50", float(p50), "ms", at_most=p50_ms)
    bars.report(f"produce call -> handler done, {rows_per_second} rows/s: p99", float(p99), "ms", at_most=p99_ms)
