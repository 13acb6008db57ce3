"""Memory of the whole process tree beyond the user's imports: after a million rows, and after a hundred million."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pythia_fast.demo.order_file import write_order_file

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent
ROWS = 5_000_000
TIMES = 21
MARKS = (1_000_000, 100_000_000)


@pytest.mark.timeout(900)
def test_memory_stays(bars: Bars, tmp_path: Path) -> None:
    """The same file twenty-one times, through a pipe: under several names it would be read once."""
    orders = write_order_file(ROOT / ".cache" / "bench", ROWS)
    workers = os.cpu_count() or 1
    command = [sys.executable, "-m", "benchmarks.apps.memory", str(workers), ",".join(map(str, MARKS))]
    with subprocess.Popen(["cat", *[orders] * TIMES], stdout=subprocess.PIPE) as cat:
        finished = subprocess.run(
            [*command, str(tmp_path / "state")],
            cwd=ROOT,
            env={**os.environ, "ORDERS": "-"},
            check=True,
            stdin=cat.stdout,
            stdout=subprocess.PIPE,
            text=True,
        )
    result = json.loads(finished.stdout)
    assert result["rows"] == TIMES * ROWS
    early, late = result["taken"]
    assert early["rows"] >= MARKS[0]
    assert late["rows"] >= MARKS[1]
    for name, taken in (("1 million", early), ("100 million", late)):
        imports = result["imports_mb"] * taken["processes"]
        bars.report(f"tree after {name} rows, shared pages once", taken["pss_mb"], "MB")
        bars.report("  resident sizes added up", taken["rss_mb"], "MB")
        bars.report("  beyond the user's imports", taken["rss_mb"] - imports, "MB", at_most=250)
    bars.report("growth from 1 to 100 million rows", late["pss_mb"] - early["pss_mb"], "MB", at_most=10)
