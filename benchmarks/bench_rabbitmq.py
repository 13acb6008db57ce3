"""A classic queue of RabbitMQ -> decoder -> ring -> handler, with the server on the same cores.

Contestants take turns, each in a process of its own over a queue that was filled for it; time and CPU count from the
first message to the last. The C peer is built with gcc and rabbitmq-c (Debian: librabbitmq-dev).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.rabbitmq_queue import fill
from pythia_fast.report import RunReport
from tests.support.rabbitmq_server import PASSWORD, USER, RabbitMqServer

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
ROWS = int(os.environ.get("BENCH_ROWS", "500000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))

queues = (f"bench-{number}" for number in count())


@pytest.fixture
def server() -> Iterator[RabbitMqServer]:
    """A server of the benchmark's own."""
    with RabbitMqServer() as made:
        yield made


def ours(server: RabbitMqServer, queue: str, folder: Path) -> dict[str, Any]:
    """One run over a whole queue with one pool process; CPU is that of all our processes, boot included."""
    folder.mkdir()
    report_path = folder / "report"
    environment = {
        **os.environ,
        "RABBITMQ_URL": server.url,
        "BENCH_QUEUE": queue,
        "BENCH_RESULTS": str(folder),
    }
    command = [sys.executable, "-m", "pythia_fast", "run", "benchmarks.apps.rabbitmq_orders:app", "--workers", "1"]
    command += ["--until-end", "--quiet", "--report", str(report_path), "--state-dir", str(folder / "state")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    report = RunReport.from_json(report_path.read_bytes())
    assert (report.rows, report.dead_lettered) == (ROWS, 0)
    seen = [found for path in folder.glob("*.json") if (found := json.loads(path.read_text()))["rows"]]
    seconds = max(result["last_ns"] for result in seen) - min(result["first_ns"] for result in seen)
    return {"rows": ROWS, "seconds": seconds / 1e9, "cpu_seconds": report.cpu_seconds, "rss_mb": report.peak_rss_mb}


def run(*command: object) -> dict[str, Any]:
    """What a peer program printed."""
    finished = subprocess.run(
        list(map(str, command)), cwd=ROOT, check=True, capture_output=True, text=True, timeout=300
    )
    return dict(json.loads(finished.stdout))


@pytest.mark.timeout(1800)
def test_throughput(bars: Bars, server: RabbitMqServer, tmp_path: Path) -> None:
    """Interleaved, medians."""
    program = tmp_path / "rabbitmq_count"
    source = ROOT / "benchmarks" / "peers" / "rabbitmq_count.c"
    subprocess.run(["gcc", "-O2", str(source), "-o", str(program), "-lrabbitmq"], check=True)
    rounds: dict[str, list[dict[str, Any]]] = {"c": [], "ours": [], "pika": []}
    for turn in range(ROUNDS):
        for name, results in rounds.items():
            queue = next(queues)
            fill(server, queue, ROWS)
            if name == "c":
                results.append(run(program, server.port, USER, PASSWORD, queue, ROWS))
            elif name == "ours":
                results.append(ours(server, queue, tmp_path / f"run-{turn}"))
            else:
                results.append(run(sys.executable, "-m", "benchmarks.peers.pika_loop", server.url, queue, ROWS))
    rate = {name: statistics.median(r["rows"] / r["seconds"] for r in results) for name, results in rounds.items()}
    cpu = {
        name: statistics.median(r["cpu_seconds"] / r["rows"] * 1e6 for r in results) for name, results in rounds.items()
    }
    for name, label in {
        "c": "C loop with rabbitmq-c, counting bytes",
        "ours": "RabbitMQ -> handler, 9 fields, W1",
        "pika": "pika's BlockingConnection + msgspec + NumPy",
    }.items():
        bars.report(label, rate[name] / 1e3, "k rows/s")
        bars.report(f"  {label}: CPU", cpu[name], "us/row")
    bars.report("ours / C loop", rate["ours"] / rate["c"], "x", at_least=0.95)
    bars.report("ours / pika", rate["ours"] / rate["pika"], "x", at_least=1.3)
    bars.report("CPU of all our processes", cpu["ours"], "us/row", at_most=1.5)
    bars.report("RSS of the whole tree", statistics.median(r["rss_mb"] for r in rounds["ours"]), "MB")
