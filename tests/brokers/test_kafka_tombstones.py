"""Runs over compacted topics: deleted keys are rows, or are passed over, and the group's position is at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from pythia_fast import App, Batch, KafkaConsumer, MemoryProducer, RunReport
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import PARTITIONS, Sink, Start, committed, ends

NewTopic = Callable[..., str]
KEYS = 50  #: each is written twice, and every other one is deleted then
WRITTEN = KEYS * 2 + KEYS // 2 + 1


class Row(msgspec.Struct):
    value: int | None


def handle(batch: Batch[Row]) -> dict[str, Any]:
    return {
        "key": [None if key is None else key.decode() for key in batch.keys],
        "value": batch["value"],
        "deleted": batch.tombstones,
        "offset": batch.positions["offset"],
        "time": batch.timestamps.astype("datetime64[ms]").astype(np.int64),
    }


def run(kafka: KafkaBroker, topic: str, group: str, folder: Path, tombstones: Any) -> tuple[RunReport, list[Any], Any]:
    """(report, the handler's records in the order of offsets, dead letters)."""
    app, sink, dead = App("tombstones"), MemoryProducer(), MemoryProducer()
    source = KafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_servers, consumer_group=group)
    app.batch_handler(source=source, sink=sink, dead_letter=dead, schema=Row, tombstones=tombstones)(handle)
    report = app.run(workers=1, until="end", state_dir=folder)
    return report, sorted(map(msgspec.json.decode, sink.payloads), key=lambda record: record["offset"]), dead.records


def offsets_in(kafka: KafkaBroker, topic: str, end: int) -> list[int]:
    """The offsets of the messages that the topic holds now."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "check", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[int] = []
    try:
        while not found or found[-1] < end - 1:
            message = consumer.poll(30)
            assert message is not None
            if message.error() is None:
                found.append(message.offset())
    finally:
        consumer.close()
    return found


@pytest.fixture
def compacted(kafka: KafkaBroker, new_topic: NewTopic) -> tuple[str, int, int]:
    """(a compacted topic whose times are the broker's, the time before it was filled, the time after)."""
    topic = new_topic(
        cleanup_policy="compact",
        segment_ms="50",
        min_cleanable_dirty_ratio="0.001",
        message_timestamp_type="LogAppendTime",
    )
    before_ms = int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for turn in range(2):
        for i in range(KEYS):
            producer.produce(topic, b'{"value":%d}' % (100 * turn + i), key=b"k%d" % i, timestamp=1_700_000_000_123)
    for i in range(0, KEYS, 2):
        producer.produce(topic, None, key=b"k%d" % i, timestamp=1_700_000_000_123)
    assert producer.flush(30) == 0
    time.sleep(0.2)  # longer than segment.ms: the next message begins a segment, and those before it can be cleaned
    producer.produce(topic, b'{"value":1000}', key=b"last")
    assert producer.flush(30) == 0
    after_ms = int(time.time() * 1000)
    deadline = time.monotonic() + 120  # the cleaner looks every 15 s
    while len(offsets_in(kafka, topic, WRITTEN)) == WRITTEN:
        assert time.monotonic() < deadline, "the topic was not compacted"
        time.sleep(1)
    return topic, before_ms, after_ms


def test_deleted_keys_of_a_compacted_topic(kafka: KafkaBroker, compacted: tuple[str, int, int], tmp_path: Path) -> None:
    topic, before_ms, after_ms = compacted
    held = offsets_in(kafka, topic, WRITTEN)
    first_deleted = 2 * KEYS

    report, records, letters = run(kafka, topic, f"rows-{topic}", tmp_path / "rows", "rows")
    assert (report.ending, report.rows, report.tombstones_skipped, letters) == ("done", len(held), 0, [])
    assert [record["offset"] for record in records] == held
    for record in records:
        deleted = first_deleted <= record["offset"] < WRITTEN - 1
        assert (record["deleted"], record["value"] is None) == (deleted, deleted)
        assert before_ms <= record["time"] <= after_ms
    latest = {record["key"]: record["value"] for record in records}
    assert latest == {f"k{i}": 100 + i if i % 2 else None for i in range(KEYS)} | {"last": 1000}
    assert committed(kafka.bootstrap_servers, f"rows-{topic}", topic, 1) == [WRITTEN]

    report, skipping, letters = run(kafka, topic, f"skip-{topic}", tmp_path / "skip", "skip")
    deleted_keys = sum(record["deleted"] for record in records)
    assert (report.ending, report.rows, report.tombstones_skipped, letters) == ("done", len(held), deleted_keys, [])
    assert skipping == [record for record in records if not record["deleted"]]
    assert deleted_keys == KEYS // 2
    assert committed(kafka.bootstrap_servers, f"skip-{topic}", topic, 1) == [WRITTEN]


@pytest.mark.parametrize("transactional", [False, True], ids=["at least once", "exactly once"])
@pytest.mark.parametrize("rows", [0, 100], ids=["nothing else", "rows behind them"])
def test_ten_thousand_deletes_that_are_skipped_pause_nothing(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, transactional: bool, rows: int
) -> None:
    source, sink, dead = topics
    servers = kafka.bootstrap_servers
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    for i in range(10_000):
        producer.produce(source, None, key=b"%d" % i, partition=i % PARTITIONS)
    for i in range(rows):
        producer.produce(source, b'{"id":%d}' % i, partition=i % PARTITIONS)
    assert producer.flush(60) == 0
    options = {"tombstones": "skip", "transactional": transactional, "dead_letter_limit": 0.0}
    report = start(arguments=["--until-end"], handler=options).wait()
    assert (report["ending"], report["rows"], report["tombstones_skipped"]) == ("done", 10_000 + rows, 10_000)
    assert (report["pauses"], report["refused"], report["dead_lettered"], report["unfinished"]) == (0, 0, 0, 0)
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)
    assert ends(servers, dead, 1) == [0]
    with Sink(servers, sink) as written:
        assert sorted(written.read_ids(rows)) == list(range(rows))
