"""Messages on their way to a sink: few at once, and given up when nothing comes of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pythia_fast.brokers.base import Delivery, FailedRecord, Publisher
from pythia_fast.dlq import sink_target
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.sink_target import SinkTarget
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.target import Answer
from pythia_fast.errors import SinkError


class Slow(Publisher):
    """Delivers one ticket whenever it is waited for."""

    def __init__(self) -> None:
        self.tickets: list[tuple[int, int]] = []
        self.most = 0
        self.told: str | None = None
        self.failure: Exception | None = None

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        self.tickets.append((ticket, count))
        self.most = max(self.most, len(self.tickets))

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        if self.failure is not None:
            raise self.failure
        if timeout <= 0 or not self.tickets or self.told is not None:
            return []
        ticket, _ = self.tickets.pop(0)
        return [Delivery(ticket, (FailedRecord(1, "too odd"),))]

    def trouble(self) -> str | None:
        return self.told

    def close(self, timeout: float) -> None:
        pass


MESSAGE = Message("orders", 0, None, [], b"x" * 100)


def answers_of(target: SinkTarget) -> list[Answer]:
    """The next ones; waits for them until the test's time limit."""
    while not (answers := target.answers(0.01)):
        pass
    return answers


def test_no_more_than_a_few_batches_are_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_target, "BATCH_MESSAGES", 2)
    publisher = Slow()
    target = SinkTarget("sink", lambda: publisher, 1000.0)
    for number in range(100):
        target.send(MESSAGE, Place(0, number, number + 1))
    assert publisher.most == sink_target.MOST_BATCHES
    answers: list[Answer] = []
    while len(answers) < 100:
        answers += answers_of(target)
    assert [answer.place.start for answer in answers] == list(range(100))
    assert [answer.refused for answer in answers[:4]] == ["", "too odd", "", "too odd"]
    assert target.close() == []


def test_a_batch_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_target, "BATCH_BYTES", 300)
    publisher = Slow()
    target = SinkTarget("sink", lambda: publisher, 1000.0)
    for number in range(9):
        target.send(MESSAGE, Place(0, number, number + 1))
    assert [count for _, count in publisher.tickets] == [3, 3, 3]


def test_a_sink_in_trouble_is_given_up_when_nothing_comes_for_too_long() -> None:
    publisher = Slow()
    target = SinkTarget("sink", lambda: publisher, 0.2)
    target.send(MESSAGE, Place(0, 1, 2))
    publisher.told = "its memory is full; trying on"
    with pytest.raises(SinkError, match=r"^its memory is full$"):
        answers_of(target)
    publisher.failure = SinkError("gone")
    assert target.close() == []
