"""The demo's app: scores every order of a file, a batch at a time."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from pythia_fast import App, Batch, FileConsumer

STEPS = 16  #: steps of the logistic map a row
GROWTH = 3.9  #: its parameter; chaotic, so no step can be left out


class Order(msgspec.Struct):
    """One line of the file."""

    order_id: int
    customer_id: int
    symbol: str
    side: str
    price: float
    qty: int
    ts: int
    venue: str
    note: str


app = App("demo")


@app.batch_handler(source=FileConsumer(path="demo-output/orders-*.ndjson", consumer_group="demo"), schema=Order)
def score(batch: Batch[Order]) -> None:
    """Score the orders. ``batch["price"]`` and ``batch["qty"]`` are arrays in shared memory, nothing is copied."""
    total_score(batch["price"], batch["qty"])


def total_score(price: NDArray[np.float64], qty: NDArray[np.int64]) -> float:
    """The sum of all rows' scores; arithmetic that costs about what a small model does."""
    x = np.log1p(price * qty)
    x /= 1.0 + x
    for _ in range(STEPS):
        x *= GROWTH * (1.0 - x)
    return float(x.sum())
