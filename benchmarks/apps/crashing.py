"""The app of bench_crash.py: two lanes; in one of them processes die, in the other rows are timed.

``CRASHES``: how many. ``SPARES``: processes that wait. ``FOLDER``: for what the processes note.
Run as a script it prints milliseconds as JSON: from each crash to the lane's next call, and the other lane's latencies.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import msgspec

from benchmarks.apps.start_sender import StartSender
from pythia_fast import App, Batch, MemoryConsumer

FOLDER = Path(os.environ["FOLDER"])
CRASHES = int(os.environ["CRASHES"])
CRASH_EVERY = 80
ROWS = int(os.environ["ROWS"])
PACE_S = 0.005


class Probe(msgspec.Struct):
    """A row that knows when it was sent."""

    sent_ns: int  #: of the monotonic clock, which all processes of a Linux machine share
    number: int


app = App("crashing")
source = MemoryConsumer(keep_open=True, partitions=2)


@app.batch_handler(
    source=source,
    schema=Probe,
    batch_size=1,
    batch_timeout=0.0,
    ordering="partition",
    spares=int(os.environ["SPARES"]),
)
def handle(batch: Batch[Probe]) -> None:
    """Lane 0 notes latencies, lane 1 dies once for every tenth of its rows."""
    now = time.monotonic_ns()
    number = int(batch["number"][0])
    if batch.positions["partition"][0] == 0:
        note("latency", now - int(batch["sent_ns"][0]))
        return
    if number % CRASH_EVERY or number >= CRASHES * CRASH_EVERY:
        return
    if batch.attempts[0] == 0:
        note("died", time.monotonic_ns())
        os.kill(os.getpid(), signal.SIGKILL)
    note("resumed", now)


def note(what: str, nanoseconds: int) -> None:
    """One line, which a process that dies next leaves whole."""
    with (FOLDER / what).open("ab", buffering=0) as file:
        file.write(b"%d\n" % nanoseconds)


def noted(what: str) -> list[int]:
    """The lines."""
    path = FOLDER / what
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def send() -> None:
    """A row for each lane at a pace; the first ones wait for the spare to be up."""
    time.sleep(2)
    for number in range(ROWS):
        for partition in (0, 1):
            source.send(
                msgspec.json.encode(Probe(time.monotonic_ns(), number if partition else -1)), partition=partition
            )
        time.sleep(PACE_S)
    source.end()


def main() -> None:
    """Run once and print."""
    sender = threading.Thread(target=send)
    app.run(workers=2, until="end", state_dir=FOLDER / "state", observer=StartSender(sender))
    sender.join()
    recovered = [(after - before) / 1e6 for before, after in zip(noted("died"), noted("resumed"), strict=True)]
    print(json.dumps({"recovered_ms": recovered, "latency_ms": [ns / 1e6 for ns in noted("latency")]}))


if __name__ == "__main__":
    main()
