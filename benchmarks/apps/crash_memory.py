"""Runs a handler whose process dies on every row the first time, and measures the memory of what lives on.

That is the runtime, with its threads and the arena, and the pool's parent. Prints JSON: megabytes once so many
processes have died.

usage: crash_memory.py CRASHES,CRASHES STATE_DIR
"""

from __future__ import annotations

import json
import os
import signal
import sys

import psutil

from pythia_fast import App, Batch, MemoryConsumer
from pythia_fast.observer import RunInfo, Snapshot
from pythia_fast.report import RunReport

app = App("crash-memory")
source = MemoryConsumer(keep_open=True)


@app.batch_handler(source=source, decoder="raw", batch_size=1, batch_timeout=0.0)
def handle(batch: Batch[bytes]) -> None:
    """Die on a row, and take it as it is the second time."""
    if batch.attempts[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Marks:
    """An observer that measures once past each mark."""

    sample_interval_s = 0.05

    def __init__(self, marks: list[int]) -> None:
        self._marks = marks
        self.taken_mb: list[float] = []

    def started(self, info: RunInfo) -> None:
        """Send as many rows as processes are to die."""
        for row in range(self._marks[-1]):
            source.send(b"%d" % row)
        source.end()

    def sample(self, snapshot: Snapshot) -> None:
        """Measure when as many have died as the next mark says."""
        if self._marks and snapshot.crashes >= self._marks[0]:
            self._marks.pop(0)
            nursery = next(process.pid for process in snapshot.processes if process.name == "nursery")
            parents = [psutil.Process(), psutil.Process(nursery)]
            self.taken_mb.append(sum(parent.memory_info().rss for parent in parents) / 1e6)

    def event(self, text: str) -> None:
        """One line a death: too many to show."""

    def finished(self, report: RunReport) -> None:
        """Measured before."""


def main(marks: list[int], state_dir: str) -> None:
    """Run once and print."""
    observer = Marks(marks)
    report = app.run(workers=1, until="end", state_dir=state_dir, observer=observer)
    print(json.dumps({"rows": report.rows, "crashes": report.crashes, "taken_mb": observer.taken_mb}))


if __name__ == "__main__":
    main([int(mark) for mark in sys.argv[1].split(",")], sys.argv[2])
