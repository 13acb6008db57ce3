"""The app of the file benchmarks: all nine fields of the order, W1. ``ORDERS`` names the file or glob."""

from __future__ import annotations

import os

from benchmarks.data import Order
from benchmarks.scoring import score
from pythia_fast import App, Batch, FileConsumer

app = App("bench-orders")


@app.batch_handler(source=FileConsumer(path=os.environ["ORDERS"], consumer_group="bench"), schema=Order)
def score_orders(batch: Batch[Order]) -> None:
    """Score the rows."""
    score(batch["price"], batch["qty"])
