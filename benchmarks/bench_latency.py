"""One row at a time through ring and pool: from MemoryConsumer.send() to the handler, in another process.

Meant for an idle machine: with other work on its cores this measures the scheduler.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
ROWS = 5_000
ROWS_PER_SECOND = 2_000
ROUNDS = 5


@pytest.mark.timeout(300)
def test_one_row_through_ring_and_pool(bars: Bars, tmp_path: Path) -> None:
    """Percentiles of each round, and of them the median over the rounds."""
    p50, p99 = [], []
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.apps.latency", str(ROWS), str(ROWS_PER_SECOND), str(folder)]
        finished = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        microseconds = np.array(json.loads(finished.stdout)) / 1e3
        assert len(microseconds) == ROWS
        p50.append(float(np.percentile(microseconds, 50)))
        p99.append(float(np.percentile(microseconds, 99)))
    bars.report("one row, 2,000 a second: p50", statistics.median(p50), "us", at_most=50)
    bars.report("one row, 2,000 a second: p99", statistics.median(p99), "us", at_most=500)
    bars.report("  p99, best round", min(p99), "us")
