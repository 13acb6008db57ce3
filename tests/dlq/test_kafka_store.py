"""Dead letters in a real Kafka topic: read to their end, dealt with by position or by the record beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.dlq.kafka_store import KafkaStore
from pythia_fast.errors import SinkError, SourceError
from tests.support.kafka_broker import KafkaBroker, free_ports
from tests.support.letters import LETTER, letter, produce_letters

NewTopic = Callable[..., str]
GROUP = "pythia-dlq"


def access(kafka: KafkaBroker, timeout_s: float = 30.0) -> KafkaAccess:
    return KafkaAccess({"bootstrap.servers": kafka.bootstrap_servers}, timeout_s)


def open_store(kafka: KafkaBroker, topic: str, folder: Path, group: str = GROUP) -> KafkaStore:
    return KafkaStore(topic, access(kafka), group=group, state_dir=folder)


def places_in(store: KafkaStore) -> list[tuple[int, int]]:
    found = sorted((entry.place.partition, entry.place.start) for entry in store.entries())
    store.close()
    return found


def deal_with(store: KafkaStore, offsets: Iterable[int], partition: int = 0) -> list[str]:
    wanted = set(offsets)
    with store.claim():
        places = [e.place for e in store.entries() if e.place.partition == partition and e.place.start in wanted]
        return store.settle(places, archive=True)


def committed(kafka: KafkaBroker, topic: str, partition: int = 0) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": GROUP})
    (position,) = consumer.committed([TopicPartition(topic, partition)], timeout=30)
    consumer.close()
    return int(position.offset)


def records_of(folder: Path) -> str:
    return "".join(path.read_text() for path in (folder / "dlq").glob("*.json"))


def test_letters_are_read_byte_for_byte_from_every_partition(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic(3)
    tombstone = letter(payload=None, key=None, headers=b"")
    produce_letters(kafka.bootstrap_servers, topic, LETTER, tombstone)
    produce_letters(kafka.bootstrap_servers, topic, LETTER, partition=2)
    store = open_store(kafka, topic, tmp_path)
    entries = sorted(store.entries(), key=lambda entry: entry.place)
    assert store.progress() == (3, 3)
    store.close()
    assert [entry.stored.letter() for entry in entries] == [LETTER, tombstone, LETTER]
    assert [entry.place[:2] for entry in entries] == [(0, 0), (0, 1), (2, 0)]
    assert {(entry.stored.app, entry.stored.handler) for entry in entries} == {("shop", "score")}
    assert store.locate(entries[1].place) == f"kafka topic {topic}, partition 0, offset 1"
    assert not (tmp_path / "dlq").exists()


def test_what_comes_while_it_is_read_is_left_for_later(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic = new_topic()
    produce_letters(kafka.bootstrap_servers, topic, LETTER, LETTER)
    store = open_store(kafka, topic, tmp_path)
    reading = store.entries()
    next(reading)
    produce_letters(kafka.bootstrap_servers, topic, LETTER)
    assert len(list(reading)) == 1
    assert len(places_in(store)) == 3


def test_all_dealt_with_moves_the_position_to_the_end(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic = new_topic()
    produce_letters(kafka.bootstrap_servers, topic, *[LETTER] * 4)
    store = open_store(kafka, topic, tmp_path)
    assert deal_with(store, range(4)) == []
    assert committed(kafka, topic) == 4
    assert '"0"' not in records_of(tmp_path)
    produce_letters(kafka.bootstrap_servers, topic, LETTER)
    assert places_in(open_store(kafka, topic, tmp_path)) == [(0, 4)]
    assert len(places_in(open_store(kafka, topic, tmp_path, group="another"))) == 5


def test_some_dealt_with_are_hidden_by_the_record_until_the_position_has_passed_them(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic()
    produce_letters(kafka.bootstrap_servers, topic, *[LETTER] * 6)
    store = open_store(kafka, topic, tmp_path)
    (told,) = deal_with(store, [0, 3, 4])
    assert "holds other letters before some of them" in told
    assert committed(kafka, topic) == 1
    assert places_in(store) == [(0, 1), (0, 2), (0, 5)]
    assert len(places_in(open_store(kafka, topic, tmp_path / "other"))) == 5  # another state folder knows the position
    assert deal_with(open_store(kafka, topic, tmp_path), [1, 2]) == []
    assert committed(kafka, topic) == 5
    assert '"0"' not in records_of(tmp_path)
    assert places_in(store) == [(0, 5)]


def test_reading_that_was_broken_off_moves_the_position_no_further_than_it_came(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic()
    produce_letters(kafka.bootstrap_servers, topic, *[LETTER] * 5)
    store = open_store(kafka, topic, tmp_path)
    with store.claim():
        reading = store.entries()
        places = [next(reading).place for _ in range(2)]
        reading.close()
        assert store.settle(places, archive=True) == []
    assert committed(kafka, topic) == 2
    assert places_in(store) == [(0, 2), (0, 3), (0, 4)]


def test_records_that_are_no_dead_letters_are_counted_and_hold_nothing_up(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, b"plain", headers=[("pf-reason", b"no more than that")])
    assert producer.flush(30) == 0
    produce_letters(kafka.bootstrap_servers, topic, LETTER)
    store = open_store(kafka, topic, tmp_path)
    assert places_in(store) == [(0, 1)]
    assert store.foreign == 1
    told = f"1 record of kafka topic {topic} without pf-* headers is no dead letter, and left alone"
    assert store.describe_foreign() == told
    deal_with(store, [1])
    assert committed(kafka, topic) == 2


def test_transactions_end_the_reading_where_they_must(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    """Markers take offsets that no consumer is given; records of an open transaction are not there yet."""
    topic = new_topic()
    writer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    writer.init_transactions(30)
    writer.begin_transaction()
    produce = [("pf-partition", b"0"), ("pf-offset", b"0"), ("pf-timestamp-ms", b"0"), ("pf-attempts", b"1")]
    produce += [("pf-app", b"shop"), ("pf-handler", b"score"), ("pf-time", b"2026-01-01T00:00:00Z")]
    writer.produce(topic, b"1", headers=list(produce))
    writer.commit_transaction(30)  # its marker is offset 1
    store = open_store(kafka, topic, tmp_path)
    deal_with(store, [0])
    assert committed(kafka, topic) == 2
    writer.begin_transaction()
    writer.produce(topic, b"2", headers=list(produce))
    writer.flush(30)
    assert deal_with(store, [2]) == []
    assert committed(kafka, topic) == 2
    writer.commit_transaction(30)
    assert places_in(store) == [(0, 2)]


def test_a_topic_made_anew_has_none_of_the_old_record(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic = new_topic()
    produce_letters(kafka.bootstrap_servers, topic, *[LETTER] * 3)
    deal_with(open_store(kafka, topic, tmp_path), [2])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(30)
    while topic in admin.list_topics(timeout=30).topics:  # ends by the test's time limit
        admin.poll(0.05)
    kafka.create_topic(topic)
    produce_letters(kafka.bootstrap_servers, topic, *[LETTER] * 3)
    assert places_in(open_store(kafka, topic, tmp_path)) == [(0, 0), (0, 1), (0, 2)]


def test_two_commands_do_not_deal_with_one_topic_at_once(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic()
    produce_letters(kafka.bootstrap_servers, topic, LETTER)
    with open_store(kafka, topic, tmp_path).claim():
        with pytest.raises(SinkError, match=f"another dlq command deals with letters of Kafka topic {topic}"):
            deal_with(open_store(kafka, topic, tmp_path), [0])
        assert places_in(open_store(kafka, topic, tmp_path)) == [(0, 0)]
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "dlq").iterdir()}
    assert modes == {0o600}


def test_a_record_that_cannot_be_read_is_refused(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic = new_topic()
    produce_letters(kafka.bootstrap_servers, topic, LETTER, LETTER)
    store = open_store(kafka, topic, tmp_path)
    deal_with(store, [1])
    (record,) = (tmp_path / "dlq").glob("*.json")
    newer = record.read_bytes().replace(b'on": 1', b'on": 2')
    for content, message in ((b"{", "cannot be read"), (b'{"\xff":1}', "cannot be read"), (newer, "version 2")):
        record.write_bytes(content)
        with pytest.raises(SourceError, match=message):
            places_in(store)
        store.close()


def test_what_is_not_there_is_named(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> None:
    topic = new_topic()
    store = open_store(kafka, f"{topic}x", tmp_path)
    with pytest.raises(SourceError, match=f"there is no Kafka topic {topic}x at {kafka.bootstrap_servers}; did you"):
        places_in(store)
    store.close()
    (port,) = free_ports(1)
    away = KafkaAccess({"bootstrap.servers": f"127.0.0.1:{port}"}, 0.5)
    with pytest.raises(SourceError, match=f"Kafka at 127.0.0.1:{port}: "):
        next(KafkaStore(topic, away, group=GROUP, state_dir=tmp_path).entries())
