"""Records reach a partition in the order in which they were published, whatever librdkafka or the broker refuses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers.base import Delivery, PublisherContext
from pythia_fast.brokers.framing import encode_headers, frame_record
from pythia_fast.brokers.kafka import KafkaProducer
from pythia_fast.brokers.kafka_publisher import KafkaPublisher
from tests.support.kafka_broker import KafkaBroker

NewTopic = Callable[..., str]
HEADERS = pytest.mark.parametrize("headers", [b"", encode_headers([("trace", b"1")])])


class Written:
    """A publisher, and what it was given to publish."""

    def __init__(self, publisher: KafkaPublisher) -> None:
        self.publisher = publisher
        self.payloads: list[bytes] = []
        self.tickets = 0
        self.done: dict[int, Delivery] = {}

    def publish(self, payloads: list[bytes], headers: bytes = b"") -> None:
        records = b"".join(frame_record(payload, headers=headers) for payload in payloads)
        self.publisher.publish(memoryview(records), len(payloads), self.tickets)
        self.payloads += payloads
        self.tickets += 1

    def publish_rows(self, rows: int, size: int = 200, headers: bytes = b"") -> None:
        """As so many rows of a run: a ticket has 1,000."""
        first = len(self.payloads)
        for start in range(first, first + rows, 1000):
            self.publish([b"%06d" % i + b"." * size for i in range(start, min(start + 1000, first + rows))], headers)

    def finish(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while len(self.done) < self.tickets:
            assert time.monotonic() < deadline, f"{len(self.done)} of {self.tickets} tickets after {seconds} s"
            self.done.update({delivery.ticket: delivery for delivery in self.publisher.deliveries(0.5)})


@pytest.fixture
def written(kafka: KafkaBroker, tmp_path: Path) -> Iterator[Callable[..., Written]]:
    """Open a publisher. ``blind``: it cannot learn how large a batch the topic takes."""
    with ExitStack() as stack:

        def open_one(topic: str, *, log: Callable[[str], None] = print, blind: bool = False, **options: Any) -> Written:
            producer = KafkaProducer(topic, bootstrap_servers=kafka.bootstrap_servers, **options)
            context = PublisherContext("app", "handler", tmp_path, log)
            native = KafkaPublisherNative(producer.librdkafka_options(context), topic) if blind else None
            publisher = KafkaPublisher(producer, context, native)
            stack.callback(publisher.close, 0)
            return Written(publisher)

        yield open_one


def values(kafka: KafkaBroker, topic: str, count: int) -> list[bytes | None]:
    options = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "check", "enable.auto.commit": False}
    consumer = Consumer(options)
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes | None] = []
    deadline = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages"
        found += [message.value() for message in consumer.consume(10_000, timeout=0.5)]
    assert consumer.consume(1, timeout=0.2) == []
    consumer.close()
    return found


# -- librdkafka has no room -----------------------------------------------------------------------------


@HEADERS
def test_order_is_kept_while_the_producer_has_no_room(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written], headers: bytes
) -> None:
    """And room is used as soon as there is some: with a wait of its own each time this would take 20 seconds."""
    topic = new_topic()
    one = written(topic, queue_buffering_max_kbytes=100)
    one.publish_rows(20_000, headers=headers)
    one.finish(15)
    assert all(delivery.failed == () for delivery in one.done.values())
    assert values(kafka, topic, 20_000) == one.payloads


def test_records_of_different_sizes_do_not_pass_each_other_for_want_of_room(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written]
) -> None:
    topic = new_topic()
    one = written(topic, queue_buffering_max_kbytes=100)
    for ticket in range(10):
        one.publish([b"%d-%d" % (ticket, i) + b"." * (60_000 if i % 50 == 0 else 100) for i in range(200)])
    one.finish()
    assert values(kafka, topic, 2000) == one.payloads


def test_a_record_larger_than_the_queue_is_refused_and_its_neighbours_arrive_in_order(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written]
) -> None:
    topic = new_topic()
    one = written(topic, queue_buffering_max_kbytes=2)
    small = [b"%04d" % i for i in range(200)]
    one.publish([b"x" * 5000, *small[:100], b"y" * 5000, *small[100:]])
    one.publish([b"z" * 5000])
    one.finish()
    assert [failed.index for failed in one.done[0].failed] == [0, 101]
    assert [failed.index for failed in one.done[1].failed] == [0]
    assert "give KafkaProducer a larger queue_buffering_max_kbytes" in one.done[1].failed[0].reason
    assert values(kafka, topic, 200) == small


def test_order_is_kept_in_a_transaction_while_the_producer_has_no_room(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic()
    producer = KafkaProducer(topic, bootstrap_servers=kafka.bootstrap_servers, queue_buffering_max_kbytes=100)
    context = PublisherContext("app", "handler", tmp_path, print)
    native = KafkaPublisherNative(producer.transactional_options(context, f"{topic}.id"), topic)
    payloads = [b"%06d" % i + b"." * 200 for i in range(20_000)]
    try:
        assert native.init_transactions(30_000) is None
        assert native.begin_transaction() is None
        deadline = time.monotonic() + 60
        for ticket in range(20):  # as they come from the pool, one after the other
            native.add(b"".join(map(frame_record, payloads[ticket * 1000 : ticket * 1000 + 1000])), 1000, ticket)
            native.poll(50)
        while native.tickets:
            assert time.monotonic() < deadline
            native.poll(100)
        assert native.lost_to == 0
        assert native.commit_transaction(30_000) is None
    finally:
        native.close()
    assert values(kafka, topic, 20_000) == payloads


# -- the topic takes no batch as large ------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_no_batch_is_larger_than_the_topic_takes(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written], compression: str
) -> None:
    topic = new_topic(max_message_bytes="20000")
    lines: list[str] = []
    one = written(topic, log=lines.append, compression_type=compression, batch_size=900_000)
    one.publish_rows(20_000)
    one.finish()
    assert all(delivery.failed == () for delivery in one.done.values())
    assert values(kafka, topic, 20_000) == one.payloads
    assert lines == []


def test_a_single_record_too_large_for_the_topic_is_refused_and_the_others_keep_their_order(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written]
) -> None:
    topic = new_topic(max_message_bytes="20000")
    lines: list[str] = []
    one = written(topic, log=lines.append, compression_type="none")
    one.publish_rows(1000)
    one.publish([b"x" * 30_000, b"a", b"y" * 30_000, b"b"])
    one.publish_rows(1000)
    one.finish()
    assert [failed.index for failed in one.done[1].failed] == [0, 2]
    kept = [payload for payload in one.payloads if len(payload) < 20_000]
    assert values(kafka, topic, len(kept)) == kept
    assert lines == []


@HEADERS
def test_after_a_batch_was_refused_order_is_kept_though_nobody_tells_the_limit(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written], headers: bytes
) -> None:
    """Batches that do not shrink are refused, those behind them are small when they are compressed."""
    topic = new_topic(max_message_bytes="20000")
    lines: list[str] = []
    one = written(topic, blind=True, log=lines.append, batch_size=60_000)
    one.publish([random.randbytes(200) for _ in range(3000)], headers)
    one.finish()
    for _ in range(4):
        one.publish([random.randbytes(200) for _ in range(1000)], headers)
        one.publish_rows(1000, headers=headers)
    one.publish([random.randbytes(30_000), b"after"], headers)
    one.finish()
    assert [failed.index for failed in one.done[9].failed] == [0]
    kept = [payload for payload in one.payloads if len(payload) < 20_000]
    found = values(kafka, topic, len(kept))
    assert set(found[:3000]) == set(kept[:3000])  # what was on its way at the first refusal may have passed it
    assert found[3000:] == kept[3000:]
    told = [line for line in lines if "max.message.bytes" in line]
    assert len(told) == 1
    assert topic in told[0]
    assert len(lines) < 5


# -- the topic asks for keys ------------------------------------------------------------------------------


@HEADERS
def test_a_record_without_a_key_for_a_compacted_topic_is_refused_alone(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written], headers: bytes
) -> None:
    topic = new_topic(partitions=1, cleanup_policy="compact")
    both = written(topic)
    keys = [None if number % 7 == 3 or number >= 990 else b"%d" % number for number in range(1000)]
    for ticket in range(3):
        payloads = [b"%d" % (1000 * ticket + number) for number in range(len(keys))]
        records = [frame_record(payload, key, headers) for payload, key in zip(payloads, keys, strict=True)]
        both.publisher.publish(memoryview(b"".join(records)), len(records), ticket)
        both.tickets += 1
    both.finish()
    for delivery in both.done.values():
        assert [failed.index for failed in delivery.failed] == [at for at, key in enumerate(keys) if key is None]
        (reason,) = {failed.reason for failed in delivery.failed}
        assert reason.startswith(f"Kafka topic {topic} does not take it: ")
        assert reason.endswith("; a compacted topic takes no record without a key")
    kept = [b"%d" % (1000 * ticket + at) for ticket in range(3) for at, key in enumerate(keys) if key is not None]
    assert values(kafka, topic, len(kept)) == kept


def test_records_without_a_key_are_refused_alone_where_batches_have_to_shrink_too(
    kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written]
) -> None:
    """The topic's settings were other ones when they were asked for: what follows goes in groups."""
    topic = new_topic(partitions=1, cleanup_policy="compact", max_message_bytes="20000")
    one = written(topic, blind=True, batch_size=60_000)
    one.publisher._native.go_on(needs_key=True)  # type: ignore[attr-defined]
    kept: list[bytes] = []
    for ticket in range(6):
        payloads = [random.randbytes(200) for _ in range(1000)]
        keys = [None if number in (0, 500, 999) else b"%d" % number for number in range(1000)]
        records = [frame_record(payload, key) for payload, key in zip(payloads, keys, strict=True)]
        one.publisher.publish(memoryview(b"".join(records)), len(records), ticket)
        one.tickets += 1
        kept += [payload for payload, key in zip(payloads, keys, strict=True) if key is not None]
    one.finish()
    assert {tuple(failed.index for failed in delivery.failed) for delivery in one.done.values()} == {(0, 500, 999)}
    assert sorted(values(kafka, topic, len(kept))) == sorted(kept)  # type: ignore[type-var]
    assert one.publisher._native.regrouped[0] > 0


def test_an_empty_key_is_a_key(kafka: KafkaBroker, new_topic: NewTopic, written: Callable[..., Written]) -> None:
    topic = new_topic(partitions=1, cleanup_policy="compact,delete")
    one = written(topic)
    one.publisher.publish(memoryview(frame_record(b"value", b"")), 1, 0)
    one.tickets = 1
    one.finish()
    assert one.done[0].failed == ()
