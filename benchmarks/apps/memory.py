"""Runs benchmarks/apps/orders.py and measures the memory of the whole process tree after so many rows.

Two sums are taken over the runtime, the pool's parent and the pool processes: resident sizes, in which a shared page
counts in every process that maps it, and proportional sizes, in which it counts once. What the user's imports take is
measured in a process that imports NumPy and msgspec and nothing of ours; it counts once for each process of the tree.

usage: ORDERS=GLOB|- memory.py WORKERS ROWS,ROWS,... STATE_DIR
"""

from __future__ import annotations

import json
import subprocess
import sys

import psutil

from benchmarks.apps.orders import app
from pythia_fast.observer import RunInfo, Snapshot
from pythia_fast.process_stats import tree_memory_mb
from pythia_fast.report import RunReport

BARE = "import msgspec, numpy, psutil; print(psutil.Process().memory_info().rss / 1e6)"


class Marks:
    """An observer that measures the tree when the rows pass each mark."""

    def __init__(self, marks: list[int]) -> None:
        self._marks = marks
        self.taken: list[dict[str, float]] = []

    def started(self, info: RunInfo) -> None:
        """Nothing was read yet."""

    def sample(self, snapshot: Snapshot) -> None:
        """Measure once past each mark."""
        if self._marks and snapshot.rows >= self._marks[0]:
            self._marks.pop(0)
            tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
            self.taken.append(
                {
                    "rows": snapshot.rows,
                    "processes": len(tree),
                    "rss_mb": sum(process.memory_info().rss for process in tree) / 1e6,
                    "pss_mb": tree_memory_mb(process.pid for process in tree),
                }
            )

    def event(self, text: str) -> None:
        """Told on stderr."""
        print(text, file=sys.stderr)

    def finished(self, report: RunReport) -> None:
        """The tree is gone by now."""


def main(workers: int, marks: list[int], state_dir: str) -> None:
    """Run once and print what was measured."""
    bare = float(subprocess.run([sys.executable, "-c", BARE], check=True, capture_output=True, text=True).stdout)
    observer = Marks(marks)
    report = app.run(workers=workers, until="end", state_dir=state_dir, observer=observer)
    print(json.dumps({"imports_mb": bare, "rows": report.rows, "taken": observer.taken}))


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(mark) for mark in sys.argv[2].split(",")], sys.argv[3])
