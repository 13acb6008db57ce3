"""The app of the benchmark of RabbitMQ's streams: reads ``BENCH_TOPIC`` as ``CONSUMER_GROUP``, where
``RABBITMQ_STREAM_URL`` says.

Each pool process leaves in the folder ``BENCH_RESULTS`` (<pid>.json) when its first batch came and its last was done.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from benchmarks.data import Order
from benchmarks.scoring import score
from pythia_fast import App, Batch, RabbitMQStreamConsumer

app = App("bench-streams")


@app.batch_handler(source=RabbitMQStreamConsumer(os.environ["BENCH_TOPIC"]), schema=Order, batch_timeout=0.002)
class Score:
    """All nine fields decoded, W1 computed."""

    def setup(self) -> None:
        """Nothing seen yet."""
        self.first_ns = self.last_ns = self.rows = 0

    def __call__(self, batch: Batch[Order]) -> None:
        """Score the rows."""
        if not self.rows:
            self.first_ns = time.monotonic_ns()
        score(batch["price"], batch["qty"])
        self.rows += len(batch)
        self.last_ns = time.monotonic_ns()

    def teardown(self) -> None:
        """Leave the times for the benchmark."""
        seen = {"rows": self.rows, "first_ns": self.first_ns, "last_ns": self.last_ns}
        Path(os.environ["BENCH_RESULTS"], f"{os.getpid()}.json").write_text(json.dumps(seen))
