"""What is done with the brokers' answer to what a topic takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers import kafka_topic_limits
from pythia_fast.brokers.kafka_topic_limits import ATTEMPTS, TopicLimits

TIMED_OUT, NOT_AUTHORIZED = -185, 29
OPTIONS = {"bootstrap.servers": "k:9092", "batch.size": "50000"}


class Broker:
    """Stands for KafkaPublisherNative: answers as it is told."""

    def __init__(self) -> None:
        self.answer: tuple[int, int, bool] | None = None
        self.asked = 0
        self.broker_seen = False
        self.went_on: list[Mapping[str, str] | None] = []
        self.needs_key = False

    def ask_limits(self, timeout_ms: int) -> None:
        self.asked += 1

    def hear_limits(self, timeout_ms: int) -> tuple[int, int, bool] | None:
        return self.answer

    def poll(self, timeout_ms: int) -> list[tuple[int, list[tuple[int, int]]]]:
        return []

    def go_on(self, options: Mapping[str, str] | None = None, *, needs_key: bool = False) -> None:
        self.went_on.append(options)
        self.needs_key = needs_key


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setattr(kafka_topic_limits, "AGAIN_S", 0.0)
    return Broker()


def limit_of(broker: Broker) -> TopicLimits:
    return TopicLimits(cast(KafkaPublisherNative, broker), OPTIONS)


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        ((0, 20_000, False), {**OPTIONS, "batch.size": "20000"}),
        ((0, 50_000, False), None),
        ((0, 1_048_588, False), None),
        ((0, 0, False), None),
        ((NOT_AUTHORIZED, 0, False), None),
    ],
)
def test_the_producer_goes_on_with_batches_that_fit(
    broker: Broker, answer: tuple[int, int, bool], options: Mapping[str, str] | None
) -> None:
    limit = limit_of(broker)
    limit.wait(0)
    assert not limit.known
    broker.answer = answer
    limit.wait(0)
    assert limit.known
    assert broker.went_on == [options]
    assert broker.asked == 1


def test_brokers_that_are_away_are_asked_until_they_answer(broker: Broker) -> None:
    limit = limit_of(broker)
    broker.answer = (TIMED_OUT, 0, False)
    for _ in range(3 * ATTEMPTS):
        limit.wait(0)
    assert not limit.known
    assert broker.asked == 3 * ATTEMPTS
    broker.answer = (0, 20_000, False)
    limit.wait(0)
    assert broker.went_on == [{**OPTIONS, "batch.size": "20000"}]


def test_brokers_that_answer_anything_but_that_are_not_waited_for_long(broker: Broker) -> None:
    limit = limit_of(broker)
    broker.broker_seen = True
    broker.answer = (TIMED_OUT, 0, False)
    for _ in range(ATTEMPTS):
        assert not limit.known
        limit.wait(0)
    assert broker.went_on == [None]


@pytest.mark.parametrize("batch_bytes", [20_000, 1_048_588])
@pytest.mark.parametrize("needs_key", [False, True])
def test_the_producer_is_told_whether_records_need_a_key(broker: Broker, batch_bytes: int, needs_key: bool) -> None:
    limits = limit_of(broker)
    broker.answer = (0, batch_bytes, needs_key)
    limits.wait(0)
    assert limits.known
    assert broker.needs_key == needs_key
