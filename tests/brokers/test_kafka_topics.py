"""What topics hold and how they are chosen: patterns, broker times, compaction, transactions' markers."""

from __future__ import annotations

import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from pythia_fast._ext.collecting_sink import END, FAILED
from tests.brokers.test_kafka_reader import BOUNDED, Member, NewTopic, OpenMember, member, numbers, produce
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import committed

__all__ = ["member"]  # the fixture


def test_a_pattern_reads_the_topics_that_match_and_those_made_later(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    prefix = new_topic()
    first = kafka.create_topic(f"{prefix}-orders-a")
    produce(kafka, prefix, [b"not matched"])
    produce(kafka, first, numbers(3))
    reader = member(f"^{prefix}-orders-.*", topic_metadata_refresh_interval_ms=500)
    reader.poll_until(lambda: reader.sink.count == 3)
    second = kafka.create_topic(f"{prefix}-orders-b")
    produce(kafka, second, numbers(3, start=3))
    reader.poll_until(lambda: reader.sink.count >= 6)
    assert sorted(reader.values(), key=lambda v: v or b"") == numbers(6)
    assert {p.topic for p in reader.listener.table.values()} == {first, second}


def test_a_pattern_that_no_topic_matches_is_said_and_read_once_one_does(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    prefix = new_topic()
    pattern = f"^{prefix}-later-.*"
    reader = member(pattern, {**BOUNDED, "connect_timeout": 60.0}, topic_metadata_refresh_interval_ms=500)
    reader.poll_until(lambda: reader.log.has(f"no topic matches {pattern} at {kafka.bootstrap_servers}; waiting"))
    produce(kafka, kafka.create_topic(f"{prefix}-later-a"), numbers(3))
    assert reader.drain() == END
    assert reader.values() == numbers(3)


def test_a_pattern_that_no_topic_matches_ends_the_run_at_the_connect_timeout(
    new_topic: NewTopic, member: OpenMember
) -> None:
    pattern = f"^{new_topic()}-never-.*"
    reader = member([pattern], {**BOUNDED, "connect_timeout": 4.0})
    assert reader.drain() == FAILED
    assert reader.reader.failure().startswith(f"no topic matches {pattern} at ")
    assert "POSIX" in reader.reader.failure()


def test_a_message_has_the_time_at_which_the_broker_took_it_where_the_topic_says_so(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic(message_timestamp_type="LogAppendTime")
    before_ms = int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, b"value", timestamp=1_700_000_000_123)
    assert producer.flush(30) == 0
    after_ms = int(time.time() * 1000)
    reader = member(topic, BOUNDED)
    assert reader.drain() == END
    assert before_ms <= reader.sink.messages[0].timestamp_ms <= after_ms


def test_gaps_and_tombstones_of_a_compacted_topic_do_not_hold_the_position_back(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic(cleanup_policy="compact", segment_ms="50", min_cleanable_dirty_ratio="0.001")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for i in range(100):
        producer.produce(topic, b"%d" % i, key=b"same")
    producer.produce(topic, None, key=b"deleted")
    assert producer.flush(30) == 0
    time.sleep(0.2)  # longer than segment.ms: the next message begins a segment, and those before it can be cleaned
    producer.produce(topic, b"last", key=b"last")
    assert producer.flush(30) == 0
    deadline = time.monotonic() + 120  # the cleaner looks every 15 s
    attempt = 0
    while True:
        reader = member(topic, BOUNDED, consumer_group=f"{topic}-{attempt}")
        assert reader.drain() == END
        if reader.sink.count < 102:
            break
        reader.reader.close()
        assert time.monotonic() < deadline, "the topic was not compacted"
        time.sleep(1)
        attempt += 1
    assert [(m.payload, m.key, m.offset) for m in reader.sink.messages] == [
        (b"99", b"same", 99),
        (None, b"deleted", 100),
        (b"last", b"last", 101),
    ]
    reader.commit_all()
    assert reader.reader.lag() == {(topic, 0): 0}
    assert reader.reader.progress() == (102, 102)


def test_positions_pass_aborted_messages_and_their_markers(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(30)
    for value in (b"aborted", b"committed"):
        producer.begin_transaction()
        for _ in range(10):
            producer.produce(topic, value)
        if value == b"aborted":
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    first = member(topic, BOUNDED)
    assert first.drain() == END
    assert first.values() == [b"committed"] * 10
    assert [m.offset for m in first.sink.messages] == list(range(11, 21))
    first.commit_all()
    assert first.reader.lag() == {(topic, 0): 1}  # the marker of the committed transaction, which is no message
    first.reader.close()
    again = member(topic, BOUNDED)
    assert again.drain() == END
    assert again.values() == []


def test_later_messages_are_left_where_the_run_reads_to_an_end(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic()
    group = f"group-of-{topic}"
    produce(kafka, topic, numbers(3))
    reader = member(topic, BOUNDED, consumer_group=group)
    reader.poll_until(lambda: reader.sink.count >= 1)
    produce(kafka, topic, numbers(4, start=3))
    assert reader.drain() == END
    reader.commit_all()
    assert reader.reader.commit({}, wait=True) == ""
    assert committed(kafka.bootstrap_servers, group, topic, 1) == [3]


def make_anew(kafka: KafkaBroker, topic: str, reader: Member) -> None:
    """While it is read."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(30)
    reader.poll_until(lambda: topic not in admin.list_topics(timeout=30).topics)
    kafka.create_topic(topic, 1)


def test_a_topic_that_is_made_anew_is_read_from_its_beginning_and_committed_there(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic()
    group = f"group-of-{topic}"
    produce(kafka, topic, numbers(30))
    reader = member(topic, consumer_group=group, topic_metadata_refresh_interval_ms=500)
    reader.poll_until(lambda: reader.sink.count == 30)
    reader.commit_all()
    assert committed(kafka.bootstrap_servers, group, topic, 1) == [30]
    make_anew(kafka, topic, reader)
    produce(kafka, topic, numbers(20, start=100))
    reader.poll_until(lambda: reader.sink.count == 50)
    assert reader.values()[30:] == numbers(20, start=100)
    assert any("begins anew before the position that was read to" in line for line in reader.log)
    first, second = sorted({message.partition for message in reader.sink.messages})
    assert reader.listener.revocations == [([reader.listener.table[first]], True)]
    reader.reader.commit({second: 20}, wait=True)
    assert committed(kafka.bootstrap_servers, group, topic, 1) == [20]


def test_the_position_of_a_topic_that_is_gone_is_not_committed_to_the_one_made_anew(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic()
    group = f"group-of-{topic}"
    produce(kafka, topic, numbers(30))
    reader = member(topic, consumer_group=group, topic_metadata_refresh_interval_ms=500)
    reader.poll_until(lambda: reader.sink.count == 30)
    reader.commit_all()
    make_anew(kafka, topic, reader)
    reader.poll_until(lambda: reader.reader.native.watermarks(topic, 0, 0) == (0, 0))  # type: ignore[attr-defined]
    reader.commit_all()  # as a stop does, of all that was handled
    assert committed(kafka.bootstrap_servers, group, topic, 1) == [0]
    assert reader.log.has(f"{topic}[0] ends before 30, up to where it was read: the topic was made anew")
