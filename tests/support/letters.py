"""Dead letters for tests, and the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pythia_fast.brokers.base import PublisherContext, Sink
from pythia_fast.brokers.framing import decode_headers, encode_headers, frame_record
from pythia_fast.runtime.dead_letter import DeadLetterWriter, Form, place_of
from pythia_fast.runtime.dead_letter_form import DeadLetter, broker_headers, stored_letter

TIME = "2026-01-01T00:00:00.000Z"
LETTER = DeadLetter(
    payload=b'{"price":"x"}',
    key=b"k",
    headers=encode_headers([("trace", b"1"), ("raw", b"\x00\xff"), ("empty", None)]),
    topic="orders",
    partition=3,
    offset=42,
    timestamp_ms=1_767_225_600_000,
    reason="ValueError: no sevens",
    error="ValueError",
    traceback="Traceback (most recent call last):\n  ...\nValueError: no sevens",
    attempts=1,
)


def letter(**fields: Any) -> DeadLetter:
    """LETTER with other fields."""
    return LETTER._replace(**fields)


def write_letters(path: Path, *letters: DeadLetter, form: Form = "lines", handler: str = "score") -> Path:
    """Append letters as the runtime does, a minute between each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for minute, each in enumerate(letters):
            when = TIME.replace("00:00.", f"{minute:02}:00.")
            if form == "lines":
                file.write(msgspec.json.encode(stored_letter(each, "shop", handler, when)) + b"\n")
                continue
            if form == "frames":
                encoded = msgspec.msgpack.encode(stored_letter(each, "shop", handler, when))
            else:
                headers = broker_headers(each, "shop", handler, when)
                encoded = frame_record(each.payload, each.key, headers, place_of(each))
            file.write(len(encoded).to_bytes(4, "little") + encoded)
    return path


def produce_letters(servers: str, topic: str, *letters: DeadLetter, partition: int = 0, handler: str = "score") -> None:
    """The same to a Kafka topic; returns once all are there."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers})
    for each in letters:
        headers = decode_headers(broker_headers(each, "shop", handler, TIME))
        producer.produce(topic, each.payload, each.key, partition=partition, headers=list(headers))
    assert producer.flush(30) == 0


def send_letters(sink: Sink, folder: Path, *letters: DeadLetter, handler: str = "score") -> None:
    """The same to any sink, by what a run sends them with."""
    context = PublisherContext(app="shop", handler=handler, state_dir=folder, log=print, connect_timeout=60.0)
    writer = DeadLetterWriter(sink, context)
    writer.publish(letters, 1)
    while not writer.deliveries(1.0):
        pass  # ends by the test's time limit
    writer.close(30.0)
    assert not (folder / "dead-letters" / f"{handler}.ndjson").exists()  # where it keeps what the sink refuses


def messages_of(servers: str, topic: str, partitions: int = 1) -> list[Any]:
    """All that a topic holds, of one partition after the other."""
    from confluent_kafka import Consumer, TopicPartition

    found = []
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "check", "enable.auto.commit": False})
    for partition in range(partitions):
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        consumer.assign([TopicPartition(topic, partition, 0)])
        count = 0
        while count < end:
            for message in consumer.consume(end - count, timeout=30):
                assert message.error() is None
                found.append(message)
                count += 1
    consumer.close()
    return found
