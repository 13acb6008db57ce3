"""File -> decoder -> ring -> handler in pool processes: rows a second, and the ratio to a multiprocessing.Pool.

All nine fields are decoded and W1 is computed on both sides, with pools of the same size. Each contestant runs in
processes of its own; its time counts from the first row to the last, without start-up.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pythia_fast.demo.order_file import write_order_file
from pythia_fast.report import RunReport

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
ROWS = 5_000_000
PEER_ROWS = 1_000_000
ROUNDS = 5


@pytest.fixture(scope="module")
def orders() -> Path:
    """Five million orders, kept between runs."""
    return write_order_file(ROOT / ".cache" / "bench", ROWS)


def ours(orders: Path, workers: int, folder: Path) -> RunReport:
    """One run of benchmarks/apps/orders.py."""
    report = folder / "report.json"
    options = ["--until-end", "--quiet", "--workers", str(workers), "--report", str(report)]
    command = [sys.executable, "-m", "pythia_fast", "run", "benchmarks.apps.orders:app", *options]
    state = folder / f"state-{len(list(folder.glob('state-*')))}"
    environment = {**os.environ, "ORDERS": str(orders)}
    subprocess.run([*command, "--state-dir", str(state)], cwd=ROOT, env=environment, check=True)
    return RunReport.from_json(report.read_bytes())


def pool_rate(orders: Path, workers: int, how: str) -> float:
    """Rows a second of one run of the peer."""
    command = [sys.executable, "-m", "benchmarks.peers.multiprocessing_pool", str(orders), str(workers), str(PEER_ROWS)]
    finished = subprocess.run([*command, how], cwd=ROOT, check=True, capture_output=True, text=True)
    result = json.loads(finished.stdout)
    assert result["rows"] == PEER_ROWS
    return float(result["rows"] / result["seconds"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", sorted({1, os.cpu_count() or 1}))
def test_against_multiprocessing_pool(bars: Bars, orders: Path, tmp_path: Path, workers: int) -> None:
    """Interleaved, medians, the same number of pool processes on both sides; each side has its feeding process too."""
    rates: dict[str, list[float]] = {"ours": [], "message": [], "lines": []}
    cpu = []
    for _ in range(ROUNDS):
        report = ours(orders, workers, tmp_path)
        assert (report.rows, report.dead_lettered) == (ROWS, 0)
        rates["ours"].append(report.rows_per_second)
        cpu.append(report.cpu_seconds_per_million)
        rates["message"].append(pool_rate(orders, workers, "message"))
        rates["lines"].append(pool_rate(orders, workers, "lines"))
    rate = {name: statistics.median(values) for name, values in rates.items()}
    size = f"pool of {workers}"
    bars.report(f"file -> handler, 9 fields, W1, {size}", rate["ours"] / 1e6, "M rows/s", at_least=8)
    bars.report("  best round", max(rates["ours"]) / 1e6, "M rows/s")
    bars.report("  CPU", statistics.median(cpu), "s/M rows")
    bars.report(f"multiprocessing.Pool of {workers}, msgspec a message at a time", rate["message"] / 1e6, "M rows/s")
    bars.report(f"multiprocessing.Pool of {workers}, msgspec decode_lines", rate["lines"] / 1e6, "M rows/s")
    bars.report(f"ours / multiprocessing.Pool of {workers}, msgspec", rate["ours"] / rate["message"], "x", at_least=8)
    bars.report(f"ours / multiprocessing.Pool of {workers}, decode_lines", rate["ours"] / rate["lines"], "x")
