"""Crash to resumed lane: from the death of a process until its successor has the lane's next batch in hand.

One row at a time, each 80th of which ends its process the first time that it is handled, so two or three a second; with
a spare and without. The other lane's latency is measured meanwhile, and in a run without crashes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
CRASHES = 200
ROWS_A_CRASH = 80


def run(folder: Path, crashes: int, spares: int) -> dict[str, list[float]]:
    """One run of benchmarks/apps/crashing.py: milliseconds to recover, and latencies of the other lane."""
    folder.mkdir()
    environment = {
        **os.environ,
        "CRASHES": str(crashes),
        "ROWS": str(CRASHES * ROWS_A_CRASH),
        "SPARES": str(spares),
        "FOLDER": str(folder),
    }
    command = [sys.executable, "-m", "benchmarks.apps.crashing"]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return dict(json.loads(finished.stdout))


@pytest.mark.timeout(600)
def test_crash_to_resumed_lane(bars: Bars, tmp_path: Path) -> None:
    """200 crashes each way; the quiet run sends as many rows."""
    quiet = run(tmp_path / "quiet", 0, 1)
    for spares in (1, 0):
        found = run(tmp_path / f"spares-{spares}", CRASHES, spares)
        assert len(found["recovered_ms"]) == CRASHES
        with_them = f"{spares} spare" if spares else "no spare"
        bars.report(f"crash to resumed lane, {with_them}, p50", float(np.median(found["recovered_ms"])), "ms")
        p99 = float(np.percentile(found["recovered_ms"], 99))
        bars.report("  p99", p99, "ms", at_most=250)
        other, calm = (float(np.percentile(run["latency_ms"], 99)) for run in (found, quiet))
        bars.report("  other lane's p99 latency", other, "ms")
        bars.report("  other lane's p99 / that of a quiet run", other / calm, "x", at_most=2 if spares else None)
