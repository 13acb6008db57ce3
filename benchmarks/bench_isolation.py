"""What faulty rows cost: one order in a million that kills its process, one in a thousand that raises.

The same file through the same handler, with and without the fault, in turn; ratios of medians.
"""

from __future__ import annotations

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
ROUNDS = 5


@pytest.fixture(scope="module")
def orders() -> Path:
    """Five million orders, kept between runs."""
    return write_order_file(ROOT / ".cache" / "bench", ROWS)


def run(orders: Path, folder: Path, **faults: int) -> RunReport:
    """One run of benchmarks/apps/faulty_orders.py with two pool processes."""
    report = folder / "report.json"
    options = ["--until-end", "--quiet", "--workers", "2", "--report", str(report)]
    command = [sys.executable, "-m", "pythia_fast", "run", "benchmarks.apps.faulty_orders:app", *options]
    state = folder / f"state-{len(list(folder.glob('state-*')))}"
    environment = {**os.environ, "ORDERS": str(orders), **{name: str(value) for name, value in faults.items()}}
    subprocess.run(
        [*command, "--state-dir", str(state)], cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL
    )
    return RunReport.from_json(report.read_bytes())


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("fault", "every", "batch_size", "bar"),
    [("KILL_EVERY", 1_000_000, 4096, 0.7), ("RAISE_EVERY", 1000, 1000, 0.2)],
    ids=["kill", "raise"],
)
def test_faulty_rows(
    bars: Bars, orders: Path, tmp_path: Path, fault: str, every: int, batch_size: int, bar: float
) -> None:
    """Two pool processes each; every faulty row, and no other, is dead-lettered."""
    clean, faulty = [], []
    crashes = 0
    for _ in range(ROUNDS):
        clean.append(run(orders, tmp_path, BATCH_SIZE=batch_size).rows_per_second)
        report = run(orders, tmp_path, BATCH_SIZE=batch_size, **{fault: every})
        assert (report.rows, report.dead_lettered) == (ROWS, ROWS // every)
        faulty.append(report.rows_per_second)
        crashes = report.crashes
    what = "kills its process" if fault == "KILL_EVERY" else "raises"
    bars.report(f"clean, batches of {batch_size}", statistics.median(clean) / 1e6, "M rows/s")
    bars.report(f"one row in {every:,} {what}", statistics.median(faulty) / 1e6, "M rows/s")
    if crashes:
        bars.report("  deaths a row that kills", crashes / (ROWS // every))
    ratio = statistics.median(bad / good for bad, good in zip(faulty, clean, strict=True))
    bars.report("  faulty / clean", ratio, "x", at_least=bar)
