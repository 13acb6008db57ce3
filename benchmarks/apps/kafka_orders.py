"""The apps of the Kafka benchmarks; both read ``BENCH_TOPIC`` as ``CONSUMER_GROUP`` with the same settings.

Each pool process leaves what it saw in the folder ``BENCH_RESULTS`` when it ends: ``throughput`` (<pid>.json) when its
first batch came and its last was done, ``latency`` (<pid>.npy) when every row was produced and when it was done.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.data import Order
from benchmarks.scoring import score
from pythia_fast import App, Batch, KafkaConsumer

TOPIC = os.environ["BENCH_TOPIC"]
BATCH_TIMEOUT_S = 0.002

throughput = App("bench-kafka-throughput")
latency = App("bench-kafka-latency")


def result_path(suffix: str) -> Path:
    """Where this process leaves what it saw."""
    return Path(os.environ["BENCH_RESULTS"], f"{os.getpid()}.{suffix}")


@throughput.batch_handler(source=KafkaConsumer(TOPIC), schema=Order, batch_timeout=BATCH_TIMEOUT_S)
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
        result_path("json").write_text(json.dumps(seen))


@latency.batch_handler(source=KafkaConsumer(TOPIC), schema=Order, batch_timeout=BATCH_TIMEOUT_S)
class Stamp:
    """``ts`` holds the monotonic nanoseconds of the produce call."""

    def setup(self) -> None:
        """Nothing seen yet."""
        self.seen: list[npt.NDArray[np.int64]] = []

    def __call__(self, batch: Batch[Order]) -> None:
        """Score the rows, then look at the clock."""
        score(batch["price"], batch["qty"])
        produced = batch["ts"].copy()
        self.seen.append(np.stack([produced, np.full_like(produced, time.monotonic_ns())], axis=1))

    def teardown(self) -> None:
        """Leave (produced, done) of every row for the benchmark, in monotonic nanoseconds."""
        np.save(result_path("npy"), np.concatenate(self.seen) if self.seen else np.empty((0, 2), np.int64))
