"""The app of bench_isolation.py: orders that are scored, some of which kill the process or raise.

``ORDERS``: the file. ``KILL_EVERY``, ``RAISE_EVERY``: an order whose number divides by it does so; 0: none does.
``BATCH_SIZE``: rows a batch.
"""

from __future__ import annotations

import os
import signal

import numpy as np

from benchmarks.data import Order
from benchmarks.scoring import score
from pythia_fast import App, Batch, FileConsumer

KILL_EVERY = int(os.environ.get("KILL_EVERY", "0"))
RAISE_EVERY = int(os.environ.get("RAISE_EVERY", "0"))
BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "4096"))

app = App("bench-isolation")


def meets(numbers: np.ndarray[tuple[int], np.dtype[np.int64]], every: int) -> bool:
    """Whether an order of the batch is one of the faulty ones. Order numbers are consecutive within a file."""
    return bool(every) and not (numbers % every).all()


@app.batch_handler(
    source=FileConsumer(path=os.environ["ORDERS"], consumer_group="bench"), schema=Order, batch_size=BATCH_SIZE
)
def score_orders(batch: Batch[Order]) -> None:
    """Score the rows, or meet one's end."""
    if meets(batch["order_id"], RAISE_EVERY):
        raise ValueError("a faulty order")
    if meets(batch["order_id"], KILL_EVERY):
        os.kill(os.getpid(), signal.SIGKILL)
    score(batch["price"], batch["qty"])
