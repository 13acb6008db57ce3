"""A share group to a handler, against a real broker: what is acknowledged, what comes again, and what is said."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import AcknowledgeType, Consumer, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient

from pythia_fast import Batch, KafkaShareConsumer, RetryPolicy
from pythia_fast.brokers.memory import MemoryProducer
from pythia_fast.errors import SourceError
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_share_run import configure, echo_app, new_group, reset_of, send
from tests.support.rabbitmq_run import Running
from tests.support.share_offsets import share_lag

NewTopic = Callable[..., str]
SECONDS = 60.0
BATCH_HEAD_BYTES = 61  #: of a record batch, before its compressed records


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def consumer(kafka: KafkaBroker, topic: str, group: str, **options: Any) -> KafkaShareConsumer:
    servers = options.pop("bootstrap_servers", kafka.bootstrap_servers)
    return KafkaShareConsumer(topic, consumer_group=group, bootstrap_servers=servers, **options)


def take(kafka: KafkaBroker, topic: str, group: str) -> ShareConsumer:
    """Another member, which has taken rows and not acknowledged them: ``taken``."""
    other = ShareConsumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "share.acknowledgement.mode": "explicit"}
    )
    other.subscribe([topic])
    return other


def taken(other: ShareConsumer) -> list[Any]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := list(other.poll(0.2)):
            return found
    raise AssertionError("no row came to the other member")


def facts(batch: Batch[Any]) -> list[bytes]:
    return [
        repr((None if value is None else bytes(value), key, dict(headers), place.tolist(), int(count))).encode()
        for value, key, headers, place, count in zip(
            batch.raw, batch.keys, batch.headers, batch.positions, batch.delivery_counts, strict=True
        )
    ]


def test_keys_headers_nulls_and_positions_arrive(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic, group = new_topic(1), new_group()
    servers = kafka.bootstrap_servers
    send(servers, topic, [b"a"], key=b"k", headers={"h": b"v", "n": None})
    send(servers, topic, [None], key=b"gone")
    send(servers, topic, [b""])
    app, sink = echo_app(consumer(kafka, topic, group), facts)
    report = app.run(workers=1, until="end", state_dir=tmp_path)
    assert sink.payloads == [
        repr((b"a", b"k", {"h": b"v", "n": None}, (0, 0), 0)).encode(),
        repr((b"", None, {}, (0, 2), 0)).encode(),
    ]
    assert (report.rows, report.refused) == (3, 1), "without a value there is no payload to handle"
    wait_for(lambda: share_lag(kafka.port, group) == {(topic, 0): 0}, "all are accepted")


@pytest.mark.parametrize("tombstones", ["skip", "rows"])
def test_tombstones_are_acknowledged(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path, tombstones: str) -> None:
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, auto_offset_reset="earliest")
    send(kafka.bootstrap_servers, topic, [None] * 300 + [b"a"] + [None] * 300)
    app, sink = echo_app(consumer(kafka, topic, group), tombstones=tombstones)
    report = app.run(workers=1, until="end", state_dir=tmp_path)
    skipped = 600 if tombstones == "skip" else 0
    assert sorted(sink.payloads) == [b""] * (600 - skipped) + [b"a"]
    assert (report.rows, report.tombstones_skipped, report.dead_lettered) == (601, skipped, 0)
    wait_for(lambda: share_lag(kafka.port, group) == {(topic, 0): 0}, "all are accepted")


def counts(batch: Batch[Any]) -> list[bytes]:
    return [b"%d" % count for count in batch.delivery_counts]


def test_a_row_knows_how_often_it_was_delivered_before(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, auto_offset_reset="earliest")
    send(kafka.bootstrap_servers, topic, [b"a"])
    other = take(kafka, topic, group)
    for _ in range(2):
        (message,) = taken(other)
        other.acknowledge(message, AcknowledgeType.RELEASE)
    other.commit_sync()
    other.close()
    app, sink = echo_app(consumer(kafka, topic, group), counts)
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert sink.payloads == [b"2"]


def test_a_row_that_comes_for_the_last_time_is_told(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, auto_offset_reset="earliest", delivery_count_limit="2")
    send(kafka.bootstrap_servers, topic, [b"a"])
    other = take(kafka, topic, group)
    (message,) = taken(other)
    other.acknowledge(message, AcknowledgeType.RELEASE)
    other.commit_sync()
    other.close()
    app, sink = echo_app(consumer(kafka, topic, group))
    running = Running(app, until="end", state_dir=tmp_path)
    running.join()
    assert sink.payloads == [b"a"]
    assert any("1 rows" in line and "came for the last of 2 times" in line for line in running.events.lines)


def test_nothing_is_accepted_before_its_output_is_confirmed(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, record_lock_duration_ms="20000")
    send(kafka.bootstrap_servers, topic, numbers(50))
    app, sink = echo_app(consumer(kafka, topic, group))
    sink.fail_with("nothing is taken")
    running = Running(app, until="end", state_dir=tmp_path)
    wait_for(lambda: any("sink" in line for line in running.events.lines), "the sink is waited for")
    assert share_lag(kafka.port, group).get((topic, 0), 50) == 50, "a group that has done nothing may have no lag yet"
    sink.fail_with(None)
    running.join()
    assert sorted(int(payload or b"") for payload in sink.payloads) == list(range(50))
    assert share_lag(kafka.port, group) == {(topic, 0): 0}


class Slow:
    """One row waits for its second attempt, for longer than its lock lasts."""

    def __call__(self, batch: Batch[Any]) -> list[bytes]:
        batch.retry((np.array([value == b"7" for value in batch.raw])) & (batch.attempts == 0))
        return list(batch.raw)


def test_a_row_that_waits_for_longer_than_its_lock_is_handled_once(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    """It comes again, is known, and is accepted under its new lock."""
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, record_lock_duration_ms="1500")
    send(kafka.bootstrap_servers, topic, numbers(20))
    app, sink = echo_app(
        consumer(kafka, topic, group), Slow(), retry=RetryPolicy(max_attempts=3, backoff=6.0, jitter=0.0)
    )
    running = Running(app, until="end", state_dir=tmp_path)
    running.join()
    assert running.error is None
    assert Counter(sink.payloads) == Counter(numbers(20))
    assert share_lag(kafka.port, group) == {(topic, 0): 0}
    (line,) = [line for line in running.events.lines if "not done within 1.5 s" in line]
    assert "delivered again" in line


def test_rows_of_a_member_that_left_are_handled(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, auto_offset_reset="earliest")
    send(kafka.bootstrap_servers, topic, numbers(100))
    other = take(kafka, topic, group)
    first = taken(other)[:10]
    for message in first:
        other.acknowledge(message)
    other.commit_sync()
    other.close()
    app, sink = echo_app(consumer(kafka, topic, group))
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert Counter(sink.payloads) == Counter(numbers(100)[10:])


def test_a_group_begins_at_the_earliest_message_unless_it_is_told_otherwise(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic, own, latest = new_topic(1), new_group(), new_group()
    servers = kafka.bootstrap_servers
    send(servers, topic, numbers(5))
    configure(servers, own, auto_offset_reset="latest")
    app, sink = echo_app(consumer(kafka, topic, own))
    running = Running(app, until="end", state_dir=tmp_path)
    running.join()
    assert sink.payloads == []
    assert any("has share.auto.offset.reset=latest, which stays" in line for line in running.events.lines)
    app, sink = echo_app(consumer(kafka, topic, latest, auto_offset_reset="latest"))
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert (sink.payloads, reset_of(servers, latest)) == ([], "latest")
    earliest = new_group()
    app, sink = echo_app(consumer(kafka, topic, earliest))
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert (sink.payloads, reset_of(servers, earliest)) == (numbers(5), "earliest")


def test_an_ordinary_group_is_told(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic, group = new_topic(1), new_group()
    ordinary = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    ordinary.subscribe([topic])
    wait_for(lambda: ordinary.poll(0.1) is None and bool(ordinary.assignment()), "it has joined")
    app, _ = echo_app(consumer(kafka, topic, group))
    with pytest.raises(
        SourceError, match=rf"group {group} at .* is an ordinary consumer group, which cannot be read as"
    ):
        app.run(workers=1, until="end", state_dir=tmp_path)
    ordinary.close()


def test_a_topic_that_does_not_exist_is_waited_for_and_read(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic, group = new_topic(1), new_group()
    later = f"{topic}-later"
    app, sink = echo_app(consumer(kafka, later, group, topic_metadata_refresh_interval_ms=500))
    running = Running(app, until="end", state_dir=tmp_path)
    wait_for(lambda: any(f"topic {later} does not exist" in line for line in running.events.lines), "it is told")
    kafka.create_topic(later)
    send(kafka.bootstrap_servers, later, numbers(10))
    running.join()
    assert running.error is None
    assert sink.payloads == numbers(10)


def test_a_topic_that_never_exists_is_given_up(kafka: KafkaBroker, tmp_path: Path) -> None:
    app, _ = echo_app(consumer(kafka, "nowhere", new_group()))
    with pytest.raises(SourceError, match=r"topic nowhere does not exist at .* within 2 s"):
        app.run(workers=1, until="end", state_dir=tmp_path, connect_timeout=2.0)


def test_a_broker_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    source = KafkaShareConsumer("any", consumer_group="any", bootstrap_servers="127.0.0.1:1")
    app, _ = echo_app(source)
    with pytest.raises(SourceError, match=r"no Kafka broker answered at 127\.0\.0\.1:1 within 2 s"):
        app.run(workers=1, until="end", state_dir=tmp_path, connect_timeout=2.0)


def test_a_broker_that_is_started_again_is_read_on(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """What is in hand meanwhile is accepted afterwards, under the locks of the new session."""
    topic, group = own_kafka.create_topic("orders"), new_group()
    configure(own_kafka.bootstrap_servers, group, record_lock_duration_ms="4000")
    send(own_kafka.bootstrap_servers, topic, numbers(100))
    app, sink = echo_app(consumer(own_kafka, topic, group))
    sink.fail_with("nothing is taken")
    running = Running(app, until="end", state_dir=tmp_path)
    wait_for(lambda: any("sink" in line for line in running.events.lines), "the first rows are in hand")
    own_kafka.restart()
    send(own_kafka.bootstrap_servers, topic, numbers(200)[100:])
    sink.fail_with(None)
    running.join()
    assert running.error is None
    assert Counter(sink.payloads) == Counter(numbers(200))
    assert share_lag(own_kafka.port, group) == {(topic, 0): 0}


def test_a_batch_that_is_damaged_is_dead_letters(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """A row for each of its offsets, none of which comes again; what is behind it is read."""
    topic, group = own_kafka.create_topic("orders"), new_group()
    producer = Producer(
        {"bootstrap.servers": own_kafka.bootstrap_servers, "compression.type": "gzip", "linger.ms": 100}
    )
    for payload in numbers(50):
        producer.produce(topic, payload)
    assert producer.flush(60) == 0
    send(own_kafka.bootstrap_servers, topic, [b"behind"])
    (segment,) = own_kafka.folder.glob("data/orders-0/*.log")
    with segment.open("r+b") as log:
        log.seek(BATCH_HEAD_BYTES + 20)
        log.write(b"\xff" * 20)
    dead = MemoryProducer()
    app, sink = echo_app(consumer(own_kafka, topic, group), dead_letter=dead)
    report = app.run(workers=1, until="end", state_dir=tmp_path)
    assert sink.payloads == [b"behind"]
    assert (report.rows, report.dead_lettered) == (51, 50)
    assert all(b"cannot be taken apart" in dict(record.headers)["pf-reason"] for record in dead.records)
    assert share_lag(own_kafka.port, group) == {(topic, 0): 0}


def test_a_topic_that_was_made_anew_is_read_as_another_one(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    """Offsets begin again, while rows of before are in hand: none is taken for another."""
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, record_lock_duration_ms="4000")
    old, new = ([b"%s-%d" % (word, number) for number in range(10)] for word in (b"old", b"new"))
    send(kafka.bootstrap_servers, topic, old)
    app, sink = echo_app(consumer(kafka, topic, group, topic_metadata_refresh_interval_ms=500))
    sink.fail_with("nothing is taken")
    running = Running(app, until="end", state_dir=tmp_path)
    wait_for(lambda: any("sink" in line for line in running.events.lines), "the first rows are in hand")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(30)
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, "it is gone")
    kafka.create_topic(topic)
    send(kafka.bootstrap_servers, topic, new)
    wait_for(lambda: any("was made anew" in line for line in running.events.lines), "that is told")
    sink.fail_with(None)
    running.join()
    assert running.error is None
    assert set(sink.payloads) == {*old, *new}
    assert share_lag(kafka.port, group) == {(topic, 0): 0}
