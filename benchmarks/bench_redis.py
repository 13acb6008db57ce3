"""Redis Streams -> decoder -> ring -> handler in pool processes, with a server on the same cores.

Contestants take turns in processes of their own, each as a new group over the same stream; time and CPU count from the
first entries to the last. The bars are ratios to a C loop over hiredis that only counts bytes, and to the best loop
there is in Python. Needs gcc and Debian's libhiredis-dev.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.data import payloads
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.framing import frame_record
from pythia_fast.brokers.redis import RedisStreamsProducer
from pythia_fast.report import RunReport
from tests.support.redis_server import RedisServerProcess

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
PEER = ROOT / "benchmarks" / "peers" / "redis_hiredis.c"
ROWS = int(os.environ.get("BENCH_REDIS_ROWS", "2000000"))
ROUNDS = int(os.environ.get("BENCH_REDIS_ROUNDS", "5"))
DISTINCT = 100_000
RECORDS_A_TICKET = 10_000
TICKETS_AT_ONCE = 10

groups = (f"bench-{number}" for number in count())


def fill(server: RedisServerProcess, stream: str, rows: int) -> float:
    """Add orders; the seconds that it took."""
    whole = [frame_record(payload) for payload in payloads(DISTINCT)]
    buffers = [b"".join(whole[at : at + RECORDS_A_TICKET]) for at in range(0, DISTINCT, RECORDS_A_TICKET)]
    publisher = RedisStreamsProducer(stream, url=server.url).open(PublisherContext("bench", "fill", Path(), print))
    begun = time.perf_counter()
    sent = delivered = 0
    while delivered < rows:
        while sent < rows and sent - delivered < RECORDS_A_TICKET * TICKETS_AT_ONCE:
            ticket = sent // RECORDS_A_TICKET
            publisher.publish(memoryview(buffers[ticket % len(buffers)]), RECORDS_A_TICKET, ticket)
            sent += RECORDS_A_TICKET
        delivered += RECORDS_A_TICKET * len(publisher.deliveries(0.1))
    seconds = time.perf_counter() - begun
    publisher.close(30)
    return seconds


def printed(command: list[str]) -> dict[str, Any]:
    """What a peer program printed."""
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return dict(json.loads(finished.stdout))


def ours(server: RedisServerProcess, stream: str, folder: Path) -> dict[str, Any]:
    """One run over the whole stream."""
    folder.mkdir()
    report_path = folder.parent / f"{folder.name}.json"
    environment = {
        **os.environ,
        "REDIS_URL": server.url,
        "CONSUMER_GROUP": next(groups),
        "BENCH_TOPIC": stream,
        "BENCH_RESULTS": str(folder),
    }
    command = [sys.executable, "-m", "pythia_fast", "run", "benchmarks.apps.redis_orders:app", "--workers", "2"]
    command += ["--state-dir", str(folder / "state"), "--until-end", "--quiet", "--report", str(report_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=300)
    report = RunReport.from_json(report_path.read_bytes())
    assert (report.rows, report.dead_lettered) == (ROWS, 0)
    seen = [result for path in folder.glob("*.json") if (result := json.loads(path.read_text()))["rows"]]
    assert sum(result["rows"] for result in seen) == ROWS
    with server.client() as client:
        assert client.xpending(stream, environment["CONSUMER_GROUP"])["pending"] == 0
    seconds = max(result["last_ns"] for result in seen) - min(result["first_ns"] for result in seen)
    return {"rows": ROWS, "seconds": seconds / 1e9, "cpu_seconds": report.cpu_seconds, "rss_mb": report.peak_rss_mb}


@pytest.mark.timeout(1800)
def test_throughput(bars: Bars, tmp_path: Path) -> None:
    """Interleaved, medians."""
    program = tmp_path / "redis_hiredis"
    subprocess.run(["gcc", "-O2", str(PEER), "-o", str(program), "-lhiredis"], check=True)
    with RedisServerProcess(tmp_path / "redis") as server:
        filled = fill(server, "orders", ROWS)
        arguments = [str(server.port), "orders"]
        rounds: dict[str, list[dict[str, Any]]] = {"c": [], "ours": [], "python": []}
        for turn in range(ROUNDS):
            rounds["c"].append(printed([str(program), *arguments, next(groups), str(ROWS)]))
            rounds["ours"].append(ours(server, "orders", tmp_path / f"run-{turn}"))
            python = [sys.executable, "-m", "benchmarks.peers.redis_loop", *arguments, next(groups), str(ROWS)]
            rounds["python"].append(printed(python))
    rate = {name: statistics.median(each["rows"] / each["seconds"] for each in taken) for name, taken in rounds.items()}
    cpu = {
        name: statistics.median(each["cpu_seconds"] / each["rows"] * 1e6 for each in taken)
        for name, taken in rounds.items()
    }
    bars.report("filling the stream", ROWS / filled / 1e6, "M rows/s")
    for name, label in {
        "c": "hiredis in C, two reads on their way, counting bytes",
        "ours": "Redis Streams -> handler, 9 fields, W1",
        "python": "redis-py + hiredis + msgspec + NumPy",
    }.items():
        bars.report(label, rate[name] / 1e6, "M rows/s")
        bars.report(f"  {label}: CPU", cpu[name], "us a row")
    bars.report("ours / hiredis in C", rate["ours"] / rate["c"], "x", at_least=0.9)
    bars.report("ours / redis-py", rate["ours"] / rate["python"], "x", at_least=2)
    bars.report("client CPU a row", cpu["ours"], "us", at_most=0.8)
    bars.report("RSS of the whole tree", statistics.median(each["rss_mb"] for each in rounds["ours"]), "MB")
