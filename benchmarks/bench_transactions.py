"""Kafka -> handler -> Kafka exactly once, beside the same at least once: same topic, same sink, same broker, in turn.

Time counts from the first batch that a handler gets to the last one that it is done with, so that forming the group
and taking the transactional id over do not; transactions are of 100 ms.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.kafka_app import run_app
from benchmarks.kafka_topic import fill
from pythia_fast.report import RunReport
from tests.support.kafka_broker import KafkaBroker

if TYPE_CHECKING:
    from benchmarks.conftest import Bars

ROWS = 1_000_000
PARTITIONS = 4
ROUNDS = 3


def one_run(broker: KafkaBroker, folder: Path, *, transactional: bool) -> tuple[float, RunReport]:
    """Rows per second of one run over the whole topic, and its report."""
    settings = {"BENCH_TOPIC": "orders", "BENCH_SINK": "scored", "BENCH_TRANSACTIONAL": str(int(transactional))}
    seconds, report = run_app("kafka_transactions:app", broker, folder, ROWS, **settings)
    assert report.transactions_aborted == 0
    return ROWS / seconds, report


@pytest.mark.timeout(1800)
def test_exactly_once(bars: Bars, broker: KafkaBroker, tmp_path: Path) -> None:
    """Interleaved, medians, after one run of each that only warms the broker."""
    fill(broker, "orders", ROWS, PARTITIONS)
    broker.create_topic("scored", PARTITIONS)
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    transactions: list[float] = []
    for turn in range(ROUNDS + 1):
        for transactional in (False, True):
            rate, report = one_run(broker, tmp_path / f"run-{turn}-{transactional}", transactional=transactional)
            if turn == 0:
                continue
            rates[transactional].append(rate)
            cpu[transactional].append(report.cpu_seconds_per_million)
            if transactional:
                transactions.append(ROWS / rate / report.transactions)
    once, again = statistics.median(rates[True]), statistics.median(rates[False])
    bars.report("Kafka -> handler -> Kafka, at least once", again / 1e3, "k rows/s")
    bars.report("Kafka -> handler -> Kafka, exactly once", once / 1e3, "k rows/s")
    bars.report("  seconds a transaction", statistics.median(transactions), "s")
    bars.report("  CPU, at least once", statistics.median(cpu[False]), "s/M rows")
    bars.report("  CPU, exactly once", statistics.median(cpu[True]), "s/M rows")
    bars.report("exactly once / at least once", once / again, "x", at_least=0.6)
