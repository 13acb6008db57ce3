"""The app of the Kafka benchmarks: all nine fields of the order, W1. Reads topic ``orders`` as ``CONSUMER_GROUP``."""

from __future__ import annotations

from benchmarks.data import Order
from benchmarks.scoring import score
from pythia_fast import App, Batch, KafkaConsumer, MemoryProducer

app = App("bench-kafka-orders")


@app.batch_handler(source=KafkaConsumer("orders"), schema=Order, dead_letter=MemoryProducer())
def score_orders(batch: Batch[Order]) -> None:
    """Score the rows."""
    score(batch["price"], batch["qty"])
