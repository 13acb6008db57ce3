"""The app of bench_latency.py: each row holds the moment it was sent; the handler keeps how long ago that was.

Run as a script it sends rows at a pace, one by one, and prints the latencies in nanoseconds as JSON.

usage: [PYTHIA_FAST_LATENCY_BUSY_POLL=SECONDS] latency.py ROWS ROWS_PER_SECOND FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.apps.start_sender import StartSender
from pythia_fast import App, Batch, MemoryConsumer

#: Names the folder to the pool's processes as well, which may import this module anew.
FOLDER_VARIABLE = "PYTHIA_FAST_LATENCY_FOLDER"
BUSY_POLL_S = float(os.environ.get("PYTHIA_FAST_LATENCY_BUSY_POLL", "0"))
WARMUP = 200


class Probe(msgspec.Struct):
    """A row that knows when it was sent."""

    sent_ns: int  #: of the monotonic clock, which all processes of a Linux machine share


app = App("latency")
source = MemoryConsumer(keep_open=True)


@app.batch_handler(source=source, schema=Probe, batch_timeout=0.0, busy_poll=BUSY_POLL_S)
class Keep:
    """Keeps the latencies of this process and writes them down at its end."""

    def setup(self) -> None:
        self.latencies: list[int] = []

    def __call__(self, batch: Batch[Probe]) -> None:
        now = time.monotonic_ns()
        self.latencies += (now - batch["sent_ns"]).tolist()

    def teardown(self) -> None:
        if not self.latencies:
            return  # the spare's: it was set up and took no row
        folder = Path(os.environ[FOLDER_VARIABLE])
        np.save(folder / f"{threading.get_native_id()}.npy", np.array(self.latencies, np.int64))


def send(rows: int, rows_per_second: float) -> None:
    """Send rows, each when it is due; a row that is late does not make the next one late."""
    started = time.monotonic()
    for row in range(rows + WARMUP):
        wait = started + 0.3 + row / rows_per_second - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        source.send(b'{"sent_ns":%d}' % time.monotonic_ns())
    source.end()


def main(rows: int, rows_per_second: float, folder: Path) -> None:
    """Run once; the first rows, which warm the caches, do not count."""
    os.environ[FOLDER_VARIABLE] = str(folder)
    sender = threading.Thread(target=send, args=(rows, rows_per_second))
    app.run(workers=1, until="end", state_dir=folder / "state", observer=StartSender(sender))
    sender.join()
    (path,) = folder.glob("*.npy")
    print(json.dumps(np.load(path)[WARMUP:].tolist()))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
