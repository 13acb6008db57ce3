"""The app of the benchmark of transactions: ``BENCH_TOPIC`` -> W1 -> ``BENCH_SINK``, as ``CONSUMER_GROUP``.

``BENCH_TRANSACTIONAL``: "1": exactly once; "0": at least once. Each pool process leaves in the folder
``BENCH_RESULTS`` (<pid>.json) when its first batch came and its last was done.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.data import Order
from benchmarks.scoring import score
from pythia_fast import App, Batch, KafkaConsumer, KafkaProducer

app = App("bench-kafka-transactions")


@app.batch_handler(
    source=KafkaConsumer(os.environ["BENCH_TOPIC"]),
    sink=KafkaProducer(os.environ["BENCH_SINK"]),
    schema=Order,
    transactional=os.environ["BENCH_TRANSACTIONAL"] == "1",
)
class Score:
    """All nine fields decoded, W1 computed, two columns sent on."""

    def setup(self) -> None:
        """Nothing seen yet."""
        self.first_ns = self.last_ns = self.rows = 0

    def __call__(self, batch: Batch[Order]) -> dict[str, Any]:
        """Score the rows."""
        if not self.rows:
            self.first_ns = time.monotonic_ns()
        score(batch["price"], batch["qty"])
        found = {"order_id": batch["order_id"], "total": batch["price"] * batch["qty"]}
        self.rows += len(batch)
        self.last_ns = time.monotonic_ns()
        return found

    def teardown(self) -> None:
        """Leave the times for the benchmark."""
        seen = {"rows": self.rows, "first_ns": self.first_ns, "last_ns": self.last_ns}
        Path(os.environ["BENCH_RESULTS"], f"{os.getpid()}.json").write_text(json.dumps(seen))
