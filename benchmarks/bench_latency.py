"""One row at a time through ring and pool: from MemoryConsumer.send() to the handler, in another process.

Meant for an idle machine: with other work on its cores this measures the scheduler. How long the machine itself takes
over the same hops is measured beside, round by round, by benchmarks/peers/bare_hops.c.
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
PEER = Path(__file__).parent / "peers" / "bare_hops.c"
ROWS = 5_000
ROWS_PER_SECOND = 2_000
ROUNDS = 5


def percentiles(command: list[str]) -> tuple[float, float]:
    """p50 and p99, in microseconds, of the latencies that a command prints as nanoseconds in JSON."""
    finished = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
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
    ours, bare, apart = [], [], []
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        ours.append(percentiles([sys.executable, "-m", "benchmarks.apps.latency", *pace, str(folder)]))
        bare.append(percentiles([str(bare_hops), *pace]))
        apart.append(percentiles([str(bare_hops), *pace, "apart"]))
    p50, p99 = (statistics.median(column) for column in zip(*ours, strict=True))
    bare_p50, bare_p99 = (statistics.median(column) for column in zip(*bare, strict=True))
    apart_p50 = statistics.median(p50 for p50, _ in apart)
    bars.report("one row, 2,000 a second: p50", p50, "us", at_most=50)
    bars.report("one row, 2,000 a second: p99", p99, "us", at_most=500)
    bars.report("  p99, best round", min(p99 for _, p99 in ours), "us")
    bars.report("  the bare hops: p50", bare_p50, "us")
    bars.report("  the bare hops: p99", bare_p99, "us")
    bars.report("  the bare hops, to a core that sleeps: p50", apart_p50, "us")
    bars.report("  p50 against the bare hops", p50 / bare_p50, "x")
    bars.report("  p99 against the bare hops", p99 / bare_p99, "x")
