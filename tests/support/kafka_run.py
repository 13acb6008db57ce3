"""Whole runtimes between Kafka topics, run as a user runs them, and what tests ask of those topics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from tests.support.runtime_process import RuntimeProcess

PARTITIONS = 4


class Echo(msgspec.Struct):
    id: int
    runtime: int


class Runtime(RuntimeProcess):
    """``python -m pythia_fast run tests.support.echo_app:app``."""

    def __init__(self, folder: Path, servers: str, topics: list[str], sink: str, dead: str, **settings: Any) -> None:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "CONSUMER_GROUP": settings.get("group", f"group-of-{topics[0]}"),
            "ECHO_TOPICS": ",".join(topics),
            "ECHO_TO": sink,
            "ECHO_DEAD": dead,
            "ECHO_SINK_SERVERS": settings.get("sink_servers", ""),
            "ECHO_SECONDS": str(settings.get("seconds", 0)),
            "ECHO_SLOW": str(settings.get("slow", "")),
            "ECHO_LARGE": settings.get("large", "0:0"),
            "ECHO_HANGS": str(settings.get("hangs", "")),
            "ECHO_KILLS": str(settings.get("kills", "")),
            "ECHO_AGAIN": str(settings.get("again", "")),
            "ECHO_RETRY": json.dumps(settings["retry"]) if "retry" in settings else "",
            "ECHO_CALLS": str(settings.get("calls", "")),
            "ECHO_AWAY": str(settings.get("away", "")),
            "ECHO_AWAY_EVERY": str(settings.get("away_every", 1)),
            "ECHO_BREAKER": json.dumps(settings["breaker"]) if "breaker" in settings else "",
            "ECHO_ROWS": str(settings.get("rows", 512)),
            "ECHO_OPTIONS": json.dumps(settings.get("options", {})),
            "ECHO_SINK_OPTIONS": json.dumps(settings.get("sink_options", {})),
            "ECHO_HANDLER": json.dumps(settings.get("handler", {})),
        }
        super().__init__(
            folder,
            "tests.support.echo_app:app",
            environment,
            settings.get("arguments", []),
            workers=settings.get("workers", 2),
        )


Start = Callable[..., Runtime]


@contextmanager
def runtimes(tmp_path: Path, default_servers: str, topics: tuple[str, str, str]) -> Iterator[Start]:
    """A function that starts runtimes between ``topics`` (source, sink, dead letters); each ends with the block."""
    with ExitStack() as stack:

        def start_runtime(*, servers: str = "", source: list[str] | None = None, **settings: Any) -> Runtime:
            folder = tmp_path / f"runtime-{len(list(tmp_path.glob('runtime-*')))}"
            made = Runtime(folder, servers or default_servers, source or [topics[0]], topics[1], topics[2], **settings)
            stack.callback(made.close)
            return made

        yield start_runtime


def produce(servers: str, topic: str, ids: range, partitions: int = PARTITIONS) -> None:
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    for i in ids:
        producer.produce(topic, b'{"id":%d}' % i, partition=i % partitions)
    assert producer.flush(60) == 0


class Sink:
    """Reads a topic from its beginning, as far as it has come."""

    def __init__(self, servers: str, topic: str) -> None:
        self.consumer = Consumer({"bootstrap.servers": servers, "group.id": "check", "enable.auto.commit": False})
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        self.messages: list[Message] = []

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.consumer.close()

    def rows(self) -> list[Echo]:
        return [msgspec.json.decode(message.value(), type=Echo) for message in self.messages]

    def read(self, done: Callable[[], bool], watched: list[Runtime] | None = None, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            logs = [runtime.log for runtime in watched or []]
            assert time.monotonic() < deadline, f"{len(self.messages)} messages after {seconds} s: {logs}"
            self.messages += self.consumer.consume(10_000, timeout=0.2)

    def read_ids(self, count: int, watched: list[Runtime] | None = None) -> list[int]:
        """Until so many different ids have come; all of them, repeated ones too, in order."""
        seen: set[int] = set()
        known = 0

        def done() -> bool:
            nonlocal known
            seen.update(row.id for row in self.rows_from(known))
            known = len(self.messages)
            return len(seen) >= count

        self.read(done, watched)
        return [row.id for row in self.rows()]

    def rows_from(self, at: int) -> list[Echo]:
        return [msgspec.json.decode(message.value(), type=Echo) for message in self.messages[at:]]


def committed(servers: str, group: str, topic: str, partitions: int = PARTITIONS) -> list[int]:
    """Positions, 0 where there is none. Those of a transaction under way do not count, and are not waited for."""
    deadline = time.monotonic() + 60
    while True:
        # A consumer of what is committed waits for the end of a transaction under way, by one connection all along:
        # where that was lost in a restart, until its request times out.
        consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "isolation.level": "read_uncommitted"})
        try:
            found = consumer.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=10)
            break
        except KafkaException:  # a broker that has just started is not yet the group's coordinator
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
        finally:
            consumer.close()
    return [max(0, partition.offset) for partition in found]


def ends(servers: str, topic: str, partitions: int = PARTITIONS) -> list[int]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "check"})
    found = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in range(partitions)]
    consumer.close()
    return found
