"""Memory of the runtime and the pool's parent after ten crashes, and after ten thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
FEW, MANY = 10, 10_000


@pytest.mark.timeout(1800)
def test_memory_stays_over_crashes(bars: Bars, tmp_path: Path) -> None:
    """Every row kills its process once; the rows wait in memory from the beginning on."""
    command = [sys.executable, "-m", "benchmarks.apps.crash_memory", f"{FEW},{MANY}", str(tmp_path / "state")]
    finished = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    result = json.loads(finished.stdout)
    assert (result["rows"], result["crashes"]) == (MANY, MANY)
    few, many = result["taken_mb"]
    bars.report(f"runtime and pool's parent after {FEW} crashes", few, "MB")
    bars.report(f"  after {MANY:,}", many, "MB")
    bars.report("  growth", many / few, "x", at_most=1.05)
