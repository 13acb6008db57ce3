"""A stream of RabbitMQ -> decoder -> ring -> handler in pool processes, with a server on the same cores.

Contestants take turns in processes of their own, each from the first message to the last; time and CPU count from the
first batch to the last. The bar is the ratio to rstream, RabbitMQ's client for Python.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.data import payloads
from pythia_fast.report import RunReport
from tests.support.rabbitmq_server import PASSWORD, USER, RabbitMqServer
from tests.support.rabbitmq_stream import Stream, message, url_of

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
ROWS = int(os.environ.get("BENCH_STREAM_ROWS", "5000000"))
ROUNDS = int(os.environ.get("BENCH_STREAM_ROUNDS", "5"))
DISTINCT = 100_000

groups = (f"bench-{number}" for number in count())


def fill(stream: Stream, rows: int) -> float:
    """Publish orders; the seconds that it took."""
    whole = [message(payload) for payload in payloads(DISTINCT)]
    begun = time.perf_counter()
    stream.publish_raw(islice(chain.from_iterable(repeat(whole)), rows))
    return time.perf_counter() - begun


def ours(stream: Stream, folder: Path) -> dict[str, Any]:
    """One run over the whole stream."""
    folder.mkdir()
    report_path = folder.parent / f"{folder.name}.json"
    group = next(groups)
    environment = {
        **os.environ,
        "RABBITMQ_STREAM_URL": url_of(stream.server),
        "CONSUMER_GROUP": group,
        "BENCH_TOPIC": stream.name,
        "BENCH_RESULTS": str(folder),
    }
    command = [sys.executable, "-m", "pythia_fast", "run", "benchmarks.apps.rabbitmq_stream_orders:app"]
    command += ["--workers", "2", "--state-dir", str(folder / "state"), "--until-end", "--quiet"]
    command += ["--report", str(report_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=300)
    report = RunReport.from_json(report_path.read_bytes())
    assert (report.rows, report.dead_lettered) == (ROWS, 0)
    seen = [result for path in folder.glob("*.json") if (result := json.loads(path.read_text()))["rows"]]
    assert sum(result["rows"] for result in seen) == ROWS
    assert stream.stored(group) is not None
    seconds = max(result["last_ns"] for result in seen) - min(result["first_ns"] for result in seen)
    return {"rows": ROWS, "seconds": seconds / 1e9, "cpu_seconds": report.cpu_seconds, "rss_mb": report.peak_rss_mb}


def rstream(stream: Stream) -> dict[str, Any]:
    """What the peer printed."""
    command = [sys.executable, "-m", "benchmarks.peers.rstream_loop", str(stream.server.stream_port), USER, PASSWORD]
    command += [stream.name, str(ROWS)]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return dict(json.loads(finished.stdout))


@pytest.mark.timeout(1800)
def test_throughput(bars: Bars, tmp_path: Path) -> None:
    """Interleaved, medians."""
    rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "rstream": []}
    with RabbitMqServer(tmp_path / "server") as server:
        stream = Stream(server)
        stream.leave()
        filled = fill(stream, ROWS)
        for turn in range(ROUNDS):
            rounds["ours"].append(ours(stream, tmp_path / f"run-{turn}"))
            rounds["rstream"].append(rstream(stream))
    rate = {name: statistics.median(each["rows"] / each["seconds"] for each in taken) for name, taken in rounds.items()}
    cpu = {
        name: statistics.median(each["cpu_seconds"] / each["rows"] * 1e6 for each in taken)
        for name, taken in rounds.items()
    }
    bars.report("filling the stream", ROWS / filled / 1e6, "M rows/s")
    for name, label in {
        "ours": "RabbitMQ stream -> handler, 9 fields, W1",
        "rstream": "rstream + msgspec + NumPy",
    }.items():
        bars.report(label, rate[name] / 1e6, "M rows/s")
        bars.report(f"  {label}: CPU", cpu[name], "us a row")
    bars.report("ours / rstream", rate["ours"] / rate["rstream"], "x", at_least=2)
    bars.report("RSS of the whole tree", statistics.median(each["rss_mb"] for each in rounds["ours"]), "MB")
