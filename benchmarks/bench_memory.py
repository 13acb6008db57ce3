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
FILES = 21
MARKS = (1_000_000, 100_000_000)


@pytest.mark.timeout(900)
def test_memory_stays(bars: Bars, tmp_path: Path) -> None:
    """The same file under twenty-one names, read once each."""
    orders = write_order_file(ROOT / ".cache" / "bench", ROWS)
    for number in range(FILES):
        (tmp_path / f"orders-{number:02}.ndjson").symlink_to(orders)
    workers = os.cpu_count() or 1
    command = [sys.executable, "-m", "benchmarks.apps.memory", str(workers), ",".join(map(str, MARKS))]
    environment = {**os.environ, "ORDERS": str(tmp_path / "orders-*.ndjson")}
    finished = subprocess.run(
        [*command, str(tmp_path / "state")], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    result = json.loads(finished.stdout)
    assert result["rows"] == FILES * ROWS
    early, late = result["taken"]
    assert early["rows"] >= MARKS[0]
    assert late["rows"] >= MARKS[1]
    for name, taken in (("1 million", early), ("100 million", late)):
        imports = result["imports_mb"] * taken["processes"]
        bars.report(f"tree after {name} rows, shared pages once", taken["pss_mb"], "MB")
        bars.report("  resident sizes added up", taken["rss_mb"], "MB")
        bars.report("  beyond the user's imports", taken["rss_mb"] - imports, "MB", at_most=250)
    bars.report("growth from 1 to 100 million rows", late["pss_mb"] - early["pss_mb"], "MB", at_most=10)
