"""``kill -9`` of a whole runtime between two Kafka topics, again and again; then every output is counted."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.support.kafka_run import PARTITIONS, Runtime, produce

GIVE_UP_S = 600.0
#: A static member: its successor gets the partitions at once, not when the session of the killed one is over.
STATIC = {"group.instance.id": "one"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader with isolation.level=read_committed found in the end."""

    rows: int
    missing: int
    repeated: int
    kills: int
    seconds: float

    @property
    def exactly_once(self) -> bool:
        return self.missing == self.repeated == 0


def kill_again_and_again(
    folder: Path,
    servers: str,
    topics: tuple[str, str, str],
    rows: int,
    *,
    lives_s: tuple[float, float],
    seed: int,
    tell: Callable[[str], None],
    **settings: object,
) -> Seen:
    """Send ``rows`` rows through runtimes that are killed after a random time each, until all are committed.

    Parameters:
        lives_s: shortest and longest life of a runtime, in seconds from its first assignment.
        tell: called with a line now and then.
        settings: of ``Runtime``.

    Raises TimeoutError where that takes more than ten minutes.
    """
    chance = random.Random(seed)
    group = f"group-of-{topics[0]}"
    produce(servers, topics[0], range(rows))
    began = time.monotonic()
    kills = 0
    while (done := _progress(servers, group, topics[0])) < rows:
        if time.monotonic() - began > GIVE_UP_S:
            raise TimeoutError(f"after {GIVE_UP_S:.0f} s and {kills} kills {done} of {rows} rows are committed")
        runtime = Runtime(
            folder / f"life-{kills}",
            servers,
            [topics[0]],
            topics[1],
            topics[2],
            **{"handler": {"transactional": True}, "rows": 256, "options": STATIC, **settings},
        )
        try:
            runtime.wait_for("assigned")
            time.sleep(chance.uniform(*lives_s))
            runtime.kill()
        finally:
            runtime.close()
        kills += 1
        tell(f"kill {kills}: {done:,} of {rows:,} rows were committed before it")
    seconds = time.monotonic() - began
    found = Counter(read_committed(servers, topics[1]))
    return Seen(sum(found.values()), rows - len(found), sum(found.values()) - len(found), kills, seconds)


def _progress(servers: str, group: str, topic: str) -> int:
    """Rows that the group has committed. It does not wait for a transaction that a killed runtime has left."""
    settings = {"bootstrap.servers": servers, "group.id": group, "isolation.level": "read_uncommitted"}
    asking = Consumer(settings)
    partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    try:
        while True:
            try:
                return sum(max(0, found.offset) for found in asking.committed(partitions, timeout=30))
            except KafkaException as error:
                if not error.args[0].retriable() and error.args[0].name() != "NOT_COORDINATOR":
                    raise
                time.sleep(0.2)  # a broker that has just come up makes itself the coordinator first
    finally:
        asking.close()


class Numbered(msgspec.Struct):
    """What a row, its output and its dead letter have in common."""

    id: int


def read_committed(servers: str, topic: str, partitions: int = 1) -> list[int]:
    """The id of every row that is visible in a topic, once nothing in it is undecided any more."""
    settings = {"bootstrap.servers": servers, "group.id": "check", "isolation.level": "read_committed"}
    consumer = Consumer({**settings, "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    ids: list[int] = []
    ended: dict[int, int] = {}
    deadline = time.monotonic() + 60
    try:
        # The end that a read_committed reader is told is that of what is decided; the topic's own end lies at or above.
        while len(ended) < partitions or any(ended[p] < _end(servers, topic, p) for p in range(partitions)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a transaction in {topic} has been undecided for a minute")
            for message in consumer.consume(10_000, timeout=0.5):
                error = message.error()
                if error is None:
                    ids.append(msgspec.json.decode(message.value() or b"", type=Numbered).id)
                else:
                    ended[message.partition() or 0] = message.offset() or 0
    finally:
        consumer.close()
    return ids


def _end(servers: str, topic: str, partition: int) -> int:
    """The end of a partition, undecided messages included."""
    asking = Consumer({"bootstrap.servers": servers, "group.id": "check", "isolation.level": "read_uncommitted"})
    try:
        return asking.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
    finally:
        asking.close()
