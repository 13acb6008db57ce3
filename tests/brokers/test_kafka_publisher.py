"""KafkaProducer's publisher against a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers.base import Delivery, PublisherContext
from pythia_fast.brokers.framing import encode_headers, frame_record
from pythia_fast.brokers.kafka import KafkaProducer
from pythia_fast.brokers.kafka_publisher import KafkaPublisher
from pythia_fast.errors import ConfigError, SinkError, UnknownOptionError
from tests.support.kafka_broker import KafkaBroker, free_ports

NewTopic = Callable[..., str]
OpenPublisher = Callable[..., KafkaPublisher]


@pytest.fixture
def publisher(kafka: KafkaBroker, tmp_path: Path) -> Iterator[OpenPublisher]:
    """Open a publisher; every one is closed after the test."""
    with ExitStack() as stack:

        def open_publisher(
            topic: str, *, log: Callable[[str], None] = print, connect_timeout: float | None = None, **options: Any
        ) -> KafkaPublisher:
            producer = KafkaProducer(topic, **({"bootstrap_servers": kafka.bootstrap_servers} | options))
            made = producer.open(PublisherContext("app", "handler", tmp_path, log, connect_timeout))
            assert isinstance(made, KafkaPublisher)
            stack.callback(made.close, 0)
            return made

        yield open_publisher


def frame(payloads: Sequence[bytes | None], **parts: Any) -> memoryview:
    return memoryview(b"".join(frame_record(payload, **parts) for payload in payloads))


def deliver(publisher: KafkaPublisher, tickets: int, seconds: float = 60) -> list[Delivery]:
    deadline = time.monotonic() + seconds
    done: list[Delivery] = []
    while len(done) < tickets:
        assert time.monotonic() < deadline, f"{len(done)} of {tickets} tickets after {seconds} s: {publisher.trouble()}"
        done += publisher.deliveries(0.5)
    return done


def consume(kafka: KafkaBroker, topic: str, count: int, partitions: int = 1) -> list[Message]:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "check", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found: list[Message] = []
    deadline = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages"
        found += consumer.consume(10_000, timeout=0.5)
    assert consumer.consume(1, timeout=0.2) == []
    consumer.close()
    return found


def test_keys_headers_and_nulls_arrive(kafka: KafkaBroker, new_topic: NewTopic, publisher: OpenPublisher) -> None:
    topic = new_topic()
    headers = [("trace", b"\x00\xff"), ("trace", None), ("ünï", b"")]
    records = [
        frame_record(b"one", b"key", encode_headers(headers)),
        frame_record(None, b""),
        frame_record(b"", None),
        frame_record(b"four", None, encode_headers([("a", b"b")])),
    ]
    open_publisher = publisher(topic)
    open_publisher.publish(memoryview(b"".join(records)), 4, 7)
    assert deliver(open_publisher, 1) == [Delivery(7)]
    first, second, third, fourth = consume(kafka, topic, 4)
    assert (first.value(), first.key(), first.headers()) == (b"one", b"key", headers)
    assert (second.value(), second.key(), second.headers()) == (None, b"", None)
    assert (third.value(), third.key()) == (b"", None)
    assert fourth.headers() == [("a", b"b")]


def test_many_tickets_of_many_records_arrive_once_and_in_order(
    kafka: KafkaBroker, new_topic: NewTopic, publisher: OpenPublisher
) -> None:
    topic = new_topic()
    open_publisher = publisher(topic, queue_buffering_max_messages=1500)
    expected = []
    for ticket in range(40):
        payloads = [b"%d-%d" % (ticket, i) for i in range(1000)]
        expected += payloads
        open_publisher.publish(frame(payloads), 1000, ticket)
    done = deliver(open_publisher, 40)
    assert sorted(delivery.ticket for delivery in done) == list(range(40))
    assert all(delivery.failed == () for delivery in done)
    assert [message.value() for message in consume(kafka, topic, 40_000)] == expected
    assert open_publisher.trouble() is None


def test_keys_choose_the_partition_as_every_kafka_client_does(
    kafka: KafkaBroker, new_topic: NewTopic, publisher: OpenPublisher
) -> None:
    topic = new_topic(partitions=4)
    open_publisher = publisher(topic)
    records = b"".join(frame_record(b"%d" % i, b"key-%d" % (i % 20)) for i in range(400))
    open_publisher.publish(memoryview(records), 400, 1)
    deliver(open_publisher, 1)
    placed: dict[bytes, set[int]] = {}
    for message in consume(kafka, topic, 400, partitions=4):
        placed.setdefault(message.key(), set()).add(message.partition())
    assert all(len(partitions) == 1 for partitions in placed.values())
    assert len(set.union(*placed.values())) == 4


def test_a_buffer_is_held_until_its_ticket_is_done(
    kafka: KafkaBroker, new_topic: NewTopic, publisher: OpenPublisher
) -> None:
    topic = new_topic()
    open_publisher = publisher(topic)
    records = frame([b"x" * 100] * 10)
    open_publisher.publish(records, 10, 1)
    with pytest.raises(BufferError):
        records.release()
    deliver(open_publisher, 1)
    records.release()


def test_an_empty_ticket_is_done_at_once(new_topic: NewTopic, publisher: OpenPublisher) -> None:
    open_publisher = publisher(new_topic())
    open_publisher.publish(memoryview(b""), 0, 3)
    assert open_publisher.deliveries() == [Delivery(3)]


def test_a_record_too_large_for_ever_is_refused_and_its_neighbours_arrive(
    kafka: KafkaBroker, new_topic: NewTopic, publisher: OpenPublisher
) -> None:
    topic = new_topic()
    open_publisher = publisher(topic)
    open_publisher.publish(frame([b"a", b"x" * 2_000_000, b"b", b"y" * 2_000_000]), 4, 1)
    open_publisher.publish(frame([b"z" * 2_000_000]), 1, 2)
    done = {delivery.ticket: delivery for delivery in deliver(open_publisher, 2)}
    assert [failed.index for failed in done[1].failed] == [1, 3]
    assert [failed.index for failed in done[2].failed] == [0]
    assert f"Kafka topic {topic} does not take it" in done[1].failed[0].reason
    assert [message.value() for message in consume(kafka, topic, 2)] == [b"a", b"b"]


def test_one_record_that_came_back_is_told_as_one(tmp_path: Path) -> None:
    lines: list[str] = []
    native = cast(KafkaPublisherNative, SimpleNamespace(regrouped=(1, 2000)))
    KafkaPublisher(KafkaProducer("t"), PublisherContext("a", "h", tmp_path, lines.append), native)._tell_of_groups()
    assert lines[0].startswith("kafka: 1 record came back from topic t: in batches larger")


def test_broken_framing_is_refused(new_topic: NewTopic, publisher: OpenPublisher) -> None:
    open_publisher = publisher(new_topic())
    whole = frame_record(b"payload", b"key")
    for records, count in ((whole[:-1], 1), (whole[:5], 1), (whole, 2), (whole + whole, 1)):
        with pytest.raises(ValueError, match="framed records"):
            open_publisher.publish(memoryview(records), count, 1)
    open_publisher.publish(memoryview(frame_record(b"x", None, b"\x09")), 1, 2)
    (delivery,) = deliver(open_publisher, 1)
    assert [failed.index for failed in delivery.failed] == [0]


def test_a_broker_that_goes_away_holds_the_records_back_and_then_takes_them(
    own_kafka: KafkaBroker, publisher: OpenPublisher
) -> None:
    topic = own_kafka.create_topic("held-back")
    open_publisher = publisher(topic, bootstrap_servers=own_kafka.bootstrap_servers)
    open_publisher.publish(frame([b"before"]), 1, 1)
    deliver(open_publisher, 1)
    own_kafka.stop()
    open_publisher.publish(frame([b"%d" % i for i in range(500)]), 500, 2)
    deadline = time.monotonic() + 30
    while "no Kafka broker answers" not in (open_publisher.trouble() or ""):
        assert time.monotonic() < deadline
        assert open_publisher.deliveries(0.1) == []
    own_kafka.start()
    assert deliver(open_publisher, 1) == [Delivery(2)]
    assert open_publisher.trouble() is None
    values = [message.value() for message in consume(own_kafka, topic, 501)]
    assert values == [b"before", *(b"%d" % i for i in range(500))]


def test_a_topic_that_does_not_exist_is_told_and_written_once_it_does(
    kafka: KafkaBroker, publisher: OpenPublisher
) -> None:
    open_publisher = publisher("sink-created-later", topic_metadata_propagation_max_ms=1000)
    open_publisher.publish(frame([b"a", b"b"]), 2, 1)
    deadline = time.monotonic() + 30
    while "sink-created-later does not exist" not in (open_publisher.trouble() or ""):
        assert time.monotonic() < deadline
        assert open_publisher.deliveries(0.1) == []
    kafka.create_topic("sink-created-later")
    assert deliver(open_publisher, 1) == [Delivery(1)]
    assert [m.value() for m in consume(kafka, "sink-created-later", 2)] == [b"a", b"b"]


def test_a_topic_that_does_not_exist_fails_at_the_connect_timeout(publisher: OpenPublisher) -> None:
    open_publisher = publisher("sink-never-created", connect_timeout=1.0)
    open_publisher.publish(frame([b"a"]), 1, 1)
    with pytest.raises(SinkError, match=r"topic sink-never-created does not exist at .*: create it, or correct topic="):
        deliver(open_publisher, 1)


def test_no_broker_fails_at_the_connect_timeout(publisher: OpenPublisher) -> None:
    (port,) = free_ports(1)
    open_publisher = publisher("orders", bootstrap_servers=f"127.0.0.1:{port}", connect_timeout=1.0)
    open_publisher.publish(frame([b"a"]), 1, 1)
    with pytest.raises(SinkError, match=f"no Kafka broker answered at 127.0.0.1:{port} within 1 s"):
        deliver(open_publisher, 1)


def test_close_flushes_within_its_time(kafka: KafkaBroker, new_topic: NewTopic, publisher: OpenPublisher) -> None:
    topic = new_topic()
    open_publisher = publisher(topic, linger_ms=200)
    open_publisher.publish(frame([b"late"] * 100), 100, 1)
    open_publisher.close(30)
    assert len(consume(kafka, topic, 100)) == 100


def test_close_without_a_broker_gives_up_in_time() -> None:
    (port,) = free_ports(1)
    producer = KafkaProducer("orders", bootstrap_servers=f"127.0.0.1:{port}")
    open_publisher = producer.open(PublisherContext("app", "handler", Path(), print))
    open_publisher.publish(frame([b"a"] * 1000), 1000, 1)
    begin = time.monotonic()
    open_publisher.close(0.5)
    assert time.monotonic() - begin < 10


def test_what_cannot_work_is_refused_when_declared() -> None:
    for name in ("no spaces", "caf\u00e9", ""):
        with pytest.raises(ConfigError, match=r"A-Z a-z 0-9 \. _ -$"):  # patterns are for consumers
            KafkaProducer(name)
    for pattern in ("^orders.*", "^("):
        with pytest.raises(ConfigError, match="writes to one topic"):
            KafkaProducer(pattern)
    with pytest.raises(ConfigError, match="transactional=True"):
        KafkaProducer("orders", transactional_id="x")
    with pytest.raises(UnknownOptionError, match="'linger_ms'"):
        KafkaProducer("orders", lingr_ms=5)
    assert KafkaProducer("orders").describe() == "kafka topic orders"
