"""What is done with the brokers' answer to how large a batch may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers import kafka_topic_limit
from pythia_fast.brokers.kafka_topic_limit import ATTEMPTS, TopicLimit

TIMED_OUT, NOT_AUTHORIZED = -185, 29
OPTIONS = {"bootstrap.servers": "k:9092", "batch.size": "50000"}


class Broker:
    """Stands for KafkaPublisherNative: answers as it is told."""

    def __init__(self) -> None:
        self.answer: tuple[int, int] | None = None
        self.asked = 0
        self.broker_seen = False
        self.went_on: list[Mapping[str, str] | None] = []

    def ask_limit(self, timeout_ms: int) -> None:
        self.asked += 1

    def hear_limit(self, timeout_ms: int) -> tuple[int, int] | None:
        return self.answer

    def poll(self, timeout_ms: int) -> list[tuple[int, list[tuple[int, int]]]]:
        return []

    def go_on(self, options: Mapping[str, str] | None = None) -> None:
        self.went_on.append(options)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setattr(kafka_topic_limit, "AGAIN_S", 0.0)
    return Broker()


def limit_of(broker: Broker) -> TopicLimit:
    return TopicLimit(cast(KafkaPublisherNative, broker), OPTIONS)


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        ((0, 20_000), {**OPTIONS, "batch.size": "20000"}),
        ((0, 50_000), None),
        ((0, 1_048_588), None),
        ((0, 0), None),
        ((NOT_AUTHORIZED, 0), None),
    ],
)
def test_the_producer_goes_on_with_batches_that_fit(
    broker: Broker, answer: tuple[int, int], options: Mapping[str, str] | None
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
    broker.answer = (TIMED_OUT, 0)
    for _ in range(3 * ATTEMPTS):
        limit.wait(0)
    assert not limit.known
    assert broker.asked == 3 * ATTEMPTS
    broker.answer = (0, 20_000)
    limit.wait(0)
    assert broker.went_on == [{**OPTIONS, "batch.size": "20000"}]


def test_brokers_that_answer_anything_but_that_are_not_waited_for_long(broker: Broker) -> None:
    limit = limit_of(broker)
    broker.broker_seen = True
    broker.answer = (TIMED_OUT, 0)
    for _ in range(ATTEMPTS):
        assert not limit.known
        limit.wait(0)
    assert broker.went_on == [None]
