"""pythia_fast.pool.process: which batches of its queue a process hands to the handler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pythia_fast import App, Batch, CircuitBreaker, KafkaConsumer, KafkaProducer
from pythia_fast._ext.intake import END, Intake
from pythia_fast._ext.ring import Arena
from pythia_fast.brokers.memory import MemoryConsumer
from pythia_fast.pool import process
from pythia_fast.pool.process import serve
from pythia_fast.registration import Handler


class Row(msgspec.Struct):
    id: int


class Queue:
    """One place of a pool whose queue holds two batches of two rows."""

    def __init__(self, folder: Any, **options: Any) -> None:
        self.handled: list[list[int]] = []
        app = App("shop")

        @app.batch_handler(source=KafkaConsumer("orders"), sink=KafkaProducer("scored"), batch_size=2, **options)
        def score(batch: Batch[Row]) -> None:
            self.handled.append(batch["id"].tolist())

        self.handler: Handler = app.handlers["score"]
        self.arena = Arena(
            self.handler.decoding.plan, capacity=2, raw_bytes=64, n_workers=1, credit=3, n_slots=4, output_bytes=4096
        )
        self.source = MemoryConsumer([b'{"id":%d}' % i for i in range(4)], keep_open=False)
        self.source.log.open()
        self.source.log.announced()
        intake = Intake(
            self.arena,
            self.handler.decoding.native(),
            self.source.log,
            ordering="unordered",
            linger_ns=0,
            spool_dir=folder,
            max_payload_bytes=64,
        )
        assert intake.run() == END
        assert intake.flush(1.0)

    def serve(self) -> list[int]:
        """Slots that came back."""
        self.arena.stop_worker(0)
        assert serve(self.handler, self.arena, 0, lambda why: None) == ""
        return list(self.arena.collect())


@pytest.fixture(autouse=True)
def _signals_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """``serve`` is called in the tests' own process, which a signal is to end, and whose forks go on as they were."""
    monkeypatch.setattr(process, "outlive_signals", lambda: None)


@pytest.fixture
def queues() -> Iterator[list[Queue]]:
    made: list[Queue] = []
    yield made
    for queue in made:
        queue.source.log.close()
        queue.arena.close()


def test_a_batch_of_an_aborted_transaction_is_not_handled(tmp_path: Any, queues: list[Queue]) -> None:
    queue = Queue(tmp_path, transactional=True)
    queues.append(queue)
    queue.arena.set_void_below(None)
    assert queue.serve() == [0, 1]
    assert queue.handled == []


def test_one_that_counts_is(tmp_path: Any, queues: list[Queue]) -> None:
    queue = Queue(tmp_path, transactional=True)
    queues.append(queue)
    assert queue.serve() == [0, 1]
    assert queue.handled == [[0, 1], [2, 3]]


def test_one_that_may_be_the_probe_of_a_circuit_is(tmp_path: Any, queues: list[Queue]) -> None:
    queue = Queue(tmp_path, transactional=True, breaker=CircuitBreaker(expected=ConnectionError))
    queues.append(queue)
    queue.arena.set_void_below(None)
    assert queue.serve() == [0, 1]
    assert queue.handled == [[0, 1], [2, 3]]
