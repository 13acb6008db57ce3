"""``record`` from real brokers, and ``replay --to`` them: what each keeps of a message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pythia_fast.brokers.framing import FramedRecord, decode_headers, iterate_records
from pythia_fast.cli.exit_codes import ExitCode
from tests.support.command_line import HEAD, run
from tests.support.kafka_broker import KafkaBroker
from tests.support.rabbitmq_run import Queue
from tests.support.rabbitmq_server import RabbitMqServer
from tests.support.rabbitmq_stream import Stream, login
from tests.support.redis_server import RedisServerProcess

KafkaMessage = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], int]


def records_in(path: Path) -> list[FramedRecord]:
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        found += iterate_records(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def produced(kafka: KafkaBroker, topic: str, partitions: int) -> dict[int, list[KafkaMessage]]:
    """Messages of every kind, by partition."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    now_ms = int(time.time() * 1000) - 60_000
    sent: dict[int, list[KafkaMessage]] = {}
    for i in range(60):
        value = None if i % 7 == 0 else b"value %d" % i
        headers: list[tuple[str, bytes | None]] = [("a", b"%d" % i), ("a", None)] if i % 3 == 0 else []
        message = (b"key %d" % i, value, headers, now_ms + 10 * i)
        sent.setdefault(i % partitions, []).append(message)
        producer.produce(topic, value, message[0], i % partitions, timestamp=message[3], headers=headers or None)
    producer.flush(30)
    return sent


def consumed(kafka: KafkaBroker, topic: str) -> list[KafkaMessage]:
    options = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "look", "enable.partition.eof": True}
    consumer = Consumer({**options, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[KafkaMessage] = []
    while (message := consumer.poll(30)) is not None and message.error() is None:
        headers = [(name, value) for name, value in message.headers() or []]
        found.append((message.key(), message.value(), headers, message.timestamp()[1]))
    consumer.close()
    return found


def test_kafka_to_a_file_and_back(kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path) -> None:
    topic, copy = new_topic(3), new_topic(1)
    sent = produced(kafka, topic, 3)
    source = f"kafka://{kafka.bootstrap_servers}/{topic}"
    for grown in (60, 60):  # a second recording into the same file finds nothing that is new
        finished = run(tmp_path, "record", source, "orders.rec", "--until-end", "--connect-timeout", "30")
        assert finished.returncode == ExitCode.DONE, finished.stderr
        assert len(records_in(tmp_path / "orders.rec")) == grown
    recorded: dict[int, list[KafkaMessage]] = {}
    for record in records_in(tmp_path / "orders.rec"):
        assert record.place is not None
        assert record.place.topic == topic.encode()
        message = (record.key, record.payload, decode_headers(record.headers), record.place.timestamp_ms)
        messages = recorded.setdefault(record.place.partition, [])
        assert record.place.offset == len(messages)
        messages.append(message)
    assert recorded == sent

    target = f"kafka://{kafka.bootstrap_servers}/{copy}"
    began = time.monotonic()
    finished = run(tmp_path, "replay", "orders.rec", "--to", target, "--speed", "1x", "--connect-timeout", "30")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert time.monotonic() - began >= 0.59
    assert f"replaying orders.rec: recorded messages to kafka topic {copy}, at 1 times the speed" in finished.stderr
    assert sorted(consumed(kafka, copy), key=repr) == sorted((m for each in sent.values() for m in each), key=repr)


def test_the_source_of_an_app_is_read_as_a_group_of_its_own(
    kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(1)
    produced(kafka, topic, 1)
    source = f'KafkaConsumer(topic="{topic}", consumer_group="own", bootstrap_servers="{kafka.bootstrap_servers}")'
    handler = f"""
@app.batch_handler(source={source}, schema=Order)
def score(batch: Batch[Order]) -> None:
    pass
"""
    (tmp_path / "shop.py").write_text(HEAD + handler)
    finished = run(tmp_path, "record", "shop:app", "orders.rec", "--max-messages", "25", "--group", f"{topic}-rec")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert f"recorded 25 messages of kafka topic {topic} as group {topic}-rec" in finished.stdout
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"{topic}-rec"})
    assert [part.offset for part in consumer.committed([TopicPartition(topic, 0)], timeout=30)] == [25]
    consumer.close()
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "own"})
    assert consumer.committed([TopicPartition(topic, 0)], timeout=30)[0].offset < 0
    consumer.close()


def test_redis_to_a_file_and_back(redis: RedisServerProcess, tmp_path: Path) -> None:
    client = redis.client()
    for i in range(50):
        client.xadd("recorded", {"data": b"value %d" % i, "trace": b"t"})
    finished = run(tmp_path, "record", f"{redis.url}/recorded", "stream.rec", "--until-end")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    records = records_in(tmp_path / "stream.rec")
    assert [record.payload for record in records] == [b"value %d" % i for i in range(50)]
    assert all(dict(decode_headers(record.headers))["trace"] == b"t" for record in records)
    finished = run(tmp_path, "replay", "stream.rec", "--to", f"{redis.url}/replayed")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    entries = [fields for _, fields in client.xrange("replayed")]
    assert [fields[b"data"] for fields in entries] == [b"value %d" % i for i in range(50)]
    assert all(fields[b"trace"] == b"t" for fields in entries)


@pytest.fixture
def stream(rabbitmq: RabbitMqServer) -> Iterator[Stream]:
    made = Stream(rabbitmq)
    yield made
    made.close()


def test_rabbitmq_to_a_file_and_back(queue: Queue, tmp_path: Path) -> None:
    queue.publish([b"value %d" % i for i in range(50)], headers={"trace": "t"})
    address = f"{queue.server.url}/{queue.name}"
    finished = run(tmp_path, "record", address, "queue.rec", "--max-messages", "30")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert f"what is recorded is taken out of rabbitmq queue {queue.name}" in finished.stderr
    records = records_in(tmp_path / "queue.rec")
    assert [record.payload for record in records] == [b"value %d" % i for i in range(30)]
    assert queue.count() == 20
    finished = run(tmp_path, "replay", "queue.rec", "--to", address)
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert queue.count() == 50


def test_a_rabbitmq_stream_to_a_file_as_a_group_of_its_own(stream: Stream, tmp_path: Path) -> None:
    """``record`` of the app that reads it, too: where the app goes on stays as it is."""
    stream.publish([b'{"order_id":%d}' % i for i in range(50)])
    server = login(stream.server).address
    url = f"rabbitmq-stream://{server.username}:{server.password}@{server.host}:{server.port}"
    finished = run(tmp_path, "record", f"{url}/%2F/{stream.name}", "stream.rec", "--until-end")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert [record.payload for record in records_in(tmp_path / "stream.rec")] == [
        b'{"order_id":%d}' % i for i in range(50)
    ]
    handler = f"""
from pythia_fast import RabbitMQStreamConsumer

@app.batch_handler(source=RabbitMQStreamConsumer("{stream.name}", url="{url}", consumer_group="own"), schema=Order)
def score(batch: Batch[Order]) -> None:
    pass
"""
    (tmp_path / "shop.py").write_text(HEAD + handler)
    finished = run(tmp_path, "record", "shop:app", "app.rec", "--until-end")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert len(records_in(tmp_path / "app.rec")) == 50
    assert stream.stored("record-app.rec") == 49
    assert stream.stored("own") is None
