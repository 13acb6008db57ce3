"""Scores orders from a file and writes the scores to another.

python -m pythia_fast demo --rows 100000                       # makes the orders, once
python -m pythia_fast run examples/orders.py:app --until-end   # scores them: see demo-output/scored.ndjson

To read them from Kafka instead, replace the source (nothing else changes):

    source=KafkaConsumer(topic="orders", consumer_group="order-processors", bootstrap_servers="localhost:9092")
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from pythia_fast import App, Batch, FileConsumer, FileProducer


class Order(msgspec.Struct):
    """The fields that the handler needs; the others of a message are checked and skipped."""

    order_id: int
    symbol: str
    price: float
    qty: int


app = App("orders")


@app.batch_handler(
    source=FileConsumer(path="demo-output/orders-100000-seed1.ndjson", consumer_group="order-processors"),
    sink=FileProducer(path="demo-output/scored.ndjson"),
    schema=Order,
)
def score(batch: Batch[Order]) -> dict[str, NDArray[np.generic]]:
    """One call for up to 4,096 orders."""
    revenue = batch["price"] * batch["qty"]
    batch.reject(revenue > 45e6, reason="implausible")  # to the dead letters, with this reason
    return {"order_id": batch["order_id"], "score": np.log1p(revenue)}
