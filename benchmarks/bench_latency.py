"""One row at a time through ring and pool: from MemoryConsumer.send() to the handler, in another process.

Meant for an idle machine: with other work on its cores this measures the scheduler. How long the machine itself takes
over the same hops is measured beside, round by round, by benchmarks/peers/bare_hops.c.

The bar is of a handler that asks for low latency: busy_poll= of twice the time between rows. What the default gives,
whose processes sleep while there is nothing to do, is reported beside it (docs/latency.md).
"""

from __future__ import annotations

import json
import os
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
PEER = Path(__file__).parent / "peers" / "bare_hops.c"
ROWS = 5_000
ROWS_PER_SECOND = 2_000
ROUNDS = 5
BUSY_POLL_S = 2 / ROWS_PER_SECOND


def percentiles(command: list[str], busy_poll_s: float = 0.0) -> tuple[float, float]:
    """p50 and p99, in microseconds, of the latencies that a command prints as nanoseconds in JSON."""
    environment = {**os.environ, "PYTHIA_FAST_LATENCY_BUSY_POLL": str(busy_poll_s)}
    finished = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    microseconds = np.array(json.loads(finished.stdout)) / 1e3
    assert len(microseconds) == ROWS
    return float(np.percentile(microseconds, 50)), float(np.percentile(microseconds, 99))


@pytest.mark.timeout(300)
def test_one_row_through_ring_and_pool(bars: Bars, tmp_path: Path) -> None:
    """Percentiles of each round, and of them the median over the rounds; ours and the bare hops take turns.

    The bare hops once as the kernel places them, which mostly leaves them all on one core, once with their second
    process on another core than the first, as the runtime's and the handler's mostly are.
    """
    bare_hops = tmp_path / "bare_hops"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread"]
    subprocess.run(["cc", *flags, str(PEER), "-o", str(bare_hops)], check=True)
    pace = [str(ROWS), str(ROWS_PER_SECOND)]
    ours, sleeping, bare, apart = [], [], [], []
    for turn in range(ROUNDS):
        for results, busy_poll_s in ((ours, BUSY_POLL_S), (sleeping, 0.0)):
            folder = tmp_path / f"{turn}-{busy_poll_s}"
            folder.mkdir()
            results.append(
                percentiles([sys.executable, "-m", "benchmarks.apps.latency", *pace, str(folder)], busy_poll_s)
            )
        bare.append(percentiles([str(bare_hops), *pace]))
        apart.append(percentiles([str(bare_hops), *pace, "apart"]))
    for name, rounds, most_us in (
        ("one row, 2,000 a second, busy_poll 1 ms", ours, (50, 500)),
        ("one row, 2,000 a second, by default", sleeping, (None, None)),
        ("  the bare hops", bare, (None, None)),
        ("  the bare hops, to a core that sleeps", apart, (None, None)),
    ):
        for percentile, column, at_most in zip(("p50", "p99"), zip(*rounds, strict=True), most_us, strict=True):
            bars.report(f"{name}: {percentile}", statistics.median(column), "us", at_most=at_most)
