"""A soak: minutes at load while pool processes are killed at random; then everything is counted.

    make soak                                  # 10 minutes
    make soak SOAK="--minutes 60 --rate 100000 --output soak-output"

What must hold: the rows that came out are the rows that went in, each once; memory does not grow; no descriptor, no
shared-memory segment, no process and no zombie is left. Prints a table and draws a plot; exit code 1 when that does
not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pythia_fast import App, Batch, FileProducer, MemoryConsumer
from pythia_fast.process_stats import tree_memory_mb

SEND_EVERY_S = 0.01
LOOK_EVERY_S = 2.0
#: The memory of the last third of the run may be so much more than that of the second third.
GROWTH_LIMIT = 1.05


@dataclass
class Watch:
    """What is seen of the run from outside of it."""

    kills: int = 0
    seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def growth(self) -> float:
        """Memory of the last third over that of the second: the first one warms up."""
        third = max(1, len(self.memory_mb) // 3)
        middle, last = self.memory_mb[third : 2 * third], self.memory_mb[-third:]
        return float(np.median(last) / np.median(middle)) if middle else 1.0


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def segments() -> set[str]:
    """Named shared memory of the machine."""
    return set(os.listdir("/dev/shm"))


class Soak:
    """An observer that feeds the source, kills processes, and looks."""

    def __init__(self, source: MemoryConsumer, seconds: float, rate: int, seed: int) -> None:
        self.watch = Watch()
        self.sent = 0
        self._source = source
        self._seconds = seconds
        self._rate = rate
        self._random = random.Random(seed)
        self._done = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._feed, self._kill, self._look)]

    def started(self, info: Any) -> None:
        for thread in self._threads:
            thread.start()

    def sample(self, snapshot: Any) -> None:
        print(
            f"\r{snapshot.seconds:7.0f} s  {snapshot.rows:,} rows  {snapshot.crashes:,} crashes ",
            end="",
            file=sys.stderr,
        )

    def event(self, text: str) -> None:
        """A line for every kill would be too many."""

    def finished(self, report: Any) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        print(file=sys.stderr)

    def _feed(self) -> None:
        started = time.monotonic()
        while (passed := time.monotonic() - started) < self._seconds:
            for row in range(self.sent, int(passed * self._rate)):
                self._source.send(b"%d" % row)
                self.sent = row + 1
            time.sleep(SEND_EVERY_S)
        self._source.end()

    def _workers(self) -> list[psutil.Process]:
        return [child for nursery in psutil.Process().children() for child in nursery.children()]

    def _kill(self) -> None:
        deadly = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
        while not self._done.wait(self._random.uniform(0.2, 2.0)):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                workers = self._workers()
                if workers:
                    os.kill(self._random.choice(workers).pid, self._random.choice(deadly))
                    self.watch.kills += 1

    def _look(self) -> None:
        started = time.monotonic()
        while not self._done.wait(LOOK_EVERY_S):
            with contextlib.suppress(psutil.NoSuchProcess):
                pids = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
                self.watch.seconds.append(time.monotonic() - started)
                self.watch.memory_mb.append(tree_memory_mb(pids))
                self.watch.descriptors.append(descriptors())


def count(path: Path, rows: int) -> tuple[int, int]:
    """(rows that are missing, rows that came more than once) in the file of numbers, a part of it at a time."""
    times = np.zeros(rows, np.uint8)
    with path.open("rb") as file:
        while lines := file.readlines(64 << 20):
            np.add.at(times, np.array(lines, dtype="S20").astype(np.int64), 1)
    return int((times == 0).sum()), int((times > 1).sum())


def plot(watch: Watch, path: Path) -> None:
    """Memory and descriptors over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5))
    upper.plot(watch.seconds, watch.memory_mb)
    upper.set_ylabel("memory of all processes, MB")
    upper.set_ylim(bottom=0)
    upper.set_title(f"{watch.kills:,} pool processes killed")
    lower.plot(watch.seconds, watch.descriptors)
    lower.set_ylabel("descriptors of the runtime")
    lower.set_xlabel("seconds")
    lower.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    """Run the soak and tell what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=50_000, help="rows a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("soak-output"), help="folder of the plot")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    before = descriptors(), segments()
    with tempfile.TemporaryDirectory(dir=options.output) as folder:
        sent_to = Path(folder) / "rows.ndjson"
        source = MemoryConsumer(keep_open=True)
        soak = Soak(source, options.minutes * 60, options.rate, options.seed)
        app = App("soak")

        @app.batch_handler(
            source=source,
            sink=FileProducer(sent_to, fsync="never"),
            dead_letter=FileProducer(Path(folder) / "dead.ndjson"),
            decoder="raw",
            batch_size=512,
            batch_timeout=0.01,
        )
        def echo(batch: Batch[Any]) -> list[bytes]:
            return list(batch["payload"].tolist())

        report = app.run(workers=options.workers, until="end", state_dir=Path(folder) / "state", observer=soak)
        missing, repeated = count(sent_to, soak.sent)
    watch = soak.watch
    left = psutil.Process().children(recursive=True)
    checks = [
        ("rows in", f"{soak.sent:,}", True),
        ("rows settled", f"{report.rows:,}", report.rows == soak.sent),
        ("rows missing in the output", f"{missing:,}", missing == 0),
        ("rows more than once in the output", f"{repeated:,}", repeated == 0),
        ("rows dead-lettered", f"{report.dead_lettered:,}", report.dead_lettered == 0),
        ("processes killed", f"{watch.kills:,}", watch.kills > 0),
        ("deaths seen by the runtime", f"{report.crashes:,}", report.crashes > 0),
        ("memory, last third / second third", f"{watch.growth():.3f}", watch.growth() <= GROWTH_LIMIT),
        ("largest memory of all processes, MB", f"{max(watch.memory_mb, default=0):,.0f}", True),
        (
            "descriptors before, at most, after",
            f"{before[0]}, {max(watch.descriptors, default=0)}, {descriptors()}",
            descriptors() <= before[0],
        ),
        ("shared-memory segments left", str(len(segments() - before[1])), segments() <= before[1]),
        ("processes and zombies left", str(len(left)), not left),
    ]
    table = Table(title=f"soak of {options.minutes:g} minutes at {options.rate:,} rows/s", title_justify="left")
    for column in ("", "seen", "holds"):
        table.add_column(column)
    for name, seen, holds in checks:
        table.add_row(name, seen, "yes" if holds else "NO")
    Console().print(table)
    plot(watch, options.output / "soak.png")
    return 0 if all(holds for _, _, holds in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
