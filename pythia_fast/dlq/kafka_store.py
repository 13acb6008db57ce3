"""Dead letters in a Kafka topic: records with the original key, headers and payload, and pf-* headers.

A topic cannot lose a record in its middle. What lies below the position of a consumer group was dealt with; so was
what is recorded in the state folder (``handled.py``), until the position has passed it.
"""

from __future__ import annotations

import contextlib
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from pythia_fast.brokers.framing import Headers
from pythia_fast.brokers.kafka_client import KafkaAccess, missing, text_of
from pythia_fast.brokers.kafka_servers import server_names
from pythia_fast.dlq.handled import Handled
from pythia_fast.dlq.ranges import Ranges
from pythia_fast.dlq.store import DeadLetterStore, Entry, Place
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.runtime.dead_letter_form import letter_of_record

FETCH_MESSAGES = 500
POLL_S = 0.2


class KafkaStore(DeadLetterStore):
    """One topic, read from the group's position to the ends that its partitions have when reading begins."""

    kind = "kafka"

    def __init__(self, topic: str, access: KafkaAccess, *, group: str, state_dir: Path) -> None:
        self._topic = topic
        self._access = access
        self._group = group
        self._record = Handled(state_dir, group, topic)
        self._consumer: Consumer | None = None
        self._topic_id = ""
        self._handled: dict[int, Ranges] = {}
        self._begins: dict[int, int] = {}
        self._read_to: dict[int, int] = {}
        self._seen: dict[int, array[int]] = {}  # offsets of the letters read, per partition, ascending
        self._total = 0

    def lies_at(self, topic: str, access: KafkaAccess) -> bool:
        """Whether this is the topic, as far as can be told without asking."""
        return topic == self._topic and bool(server_names(access.servers) & server_names(self._access.servers))

    def describe(self) -> str:
        return f"kafka topic {self._topic}"

    def locate(self, place: Place) -> str:
        return f"kafka topic {self._topic}, partition {place.partition}, offset {place.start}"

    def describe_foreign(self) -> str:
        if not self.foreign:
            return ""
        where = f"of {self.describe()} without pf-* headers"
        if self.foreign == 1:
            return f"1 record {where} is no dead letter, and left alone"
        return f"{self.foreign:,} records {where} are no dead letters, and left alone"

    def entries(self) -> Iterator[Entry]:
        consumer, ends = self._open()
        for message in self._messages(consumer, ends):
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            self._read_to[partition] = offset + 1
            if offset in self._handled.get(partition, ()):
                continue
            stored = letter_of_record(_bytes(message.value()), _bytes(message.key()), _headers(message))
            if stored is None:
                self.foreign += 1
                continue
            # Before the caller has it: one that it has not dealt with keeps the position back.
            self._seen.setdefault(partition, array("q")).append(offset)
            yield Entry(stored, Place(partition, offset, offset + 1))

    def _open(self) -> tuple[Consumer, dict[int, int]]:
        """The consumer, and where the partitions with something to read end."""
        self.close()
        self.foreign = 0
        consumer = self._consumer = self._access.consumer(self._group)
        known = self._access.topics(consumer, SourceError)
        if self._topic not in known:
            raise SourceError(missing(self._topic, known, self._access.servers))
        self._topic_id = self._access.topic_id(self._topic)
        self._handled = self._record.load(self._topic_id)
        partitions = [TopicPartition(self._topic, partition) for partition in known[self._topic]]
        ends: dict[int, int] = {}
        positions = self._access.of_group(
            lambda: consumer.committed(partitions, timeout=self._access.timeout_s), SourceError
        )
        with self._access.failures(SourceError):
            for committed in positions:
                if committed.error is not None:
                    raise SourceError(f"position of group {self._group}: {text_of(committed.error)}")
                bare = TopicPartition(self._topic, committed.partition)
                low, high = consumer.get_watermark_offsets(bare, timeout=self._access.timeout_s)
                begin = max(low, committed.offset)
                self._begins[committed.partition] = self._read_to[committed.partition] = begin
                if begin < high:
                    ends[committed.partition] = high
            self._total = sum(end - self._begins[partition] for partition, end in ends.items())
            consumer.assign([TopicPartition(self._topic, partition, self._begins[partition]) for partition in ends])
        return consumer, ends

    def _messages(self, consumer: Consumer, ends: dict[int, int]) -> Iterator[Message]:
        open_ends = dict(ends)
        deadline = time.monotonic() + self._access.timeout_s
        while open_ends:
            with self._access.failures(SourceError):
                fetched = consumer.consume(FETCH_MESSAGES, timeout=POLL_S)
            if not fetched and time.monotonic() > deadline:
                raise SourceError(
                    f"nothing came from {self.describe()} at {self._access.servers} for {self._access.timeout_s:.0f} s"
                )
            for message in fetched:
                error, partition, offset = message.error(), message.partition(), message.offset()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                        continue  # librdkafka tries again; the deadline ends it
                    raise SourceError(f"Kafka at {self._access.servers}: {text_of(error)}")
                deadline = time.monotonic() + self._access.timeout_s
                if partition not in open_ends or offset is None:
                    continue
                if error is None and offset < open_ends[partition]:
                    yield message
                    # The command may have taken long over it, and nothing was asked of the broker meanwhile.
                    deadline = time.monotonic() + self._access.timeout_s
                if error is not None or offset + 1 >= open_ends[partition]:
                    # The last offsets may be those of transaction markers, which no consumer is given; and where a
                    # transaction is open, its first is the end for now.
                    end = open_ends.pop(partition)
                    self._read_to[partition] = end if error is None else min(end, offset)
                    consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def progress(self) -> tuple[int, int]:
        return sum(self._read_to[partition] - begin for partition, begin in self._begins.items()), self._total

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        with self._record.locked():
            try:
                yield
            finally:
                self.close()

    def settle(self, places: Iterable[Place], *, archive: bool) -> list[str]:
        consumer, places = self._consumer, list(places)
        if not places or consumer is None:
            return []
        for place in places:
            self._handled.setdefault(place.partition, Ranges()).add(place.start, place.end)
        # Recorded first: between the two steps no letter counts as one that is still to be dealt with.
        self._record.save(self._topic_id, self._handled)
        positions = {partition: self._position(partition) for partition in self._begins}
        moved = [
            TopicPartition(self._topic, partition, position)
            for partition, position in positions.items()
            if position > self._begins[partition]
        ]
        if moved:
            results = self._access.of_group(lambda: consumer.commit(offsets=moved, asynchronous=False), SinkError)
            for done in results or ():
                if done.error is not None:
                    raise SinkError(f"cannot commit the position of group {self._group}: {text_of(done.error)}")
        for partition, ranges in self._handled.items():
            ranges.cut(positions.get(partition, 0))
        self._record.save(self._topic_id, self._handled)
        if not any(self._handled.values()):
            return []
        told = (
            f"{self.describe()} holds other letters before some of them: those dealt with are recorded in "
            f"{self._record.path}, which hides them until the position of group {self._group} has passed them"
        )
        return [told]

    def _position(self, partition: int) -> int:
        """Up to where everything was dealt with, or was no dead letter."""
        handled = self._handled.get(partition, Ranges())
        pending = (offset for offset in self._seen.get(partition, ()) if offset not in handled)
        return min(next(pending, self._read_to[partition]), self._read_to[partition])

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
        self._begins, self._read_to, self._seen = {}, {}, {}


def _headers(message: Message) -> Headers:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, _bytes(value)) for name, value in pairs]


def _bytes(value: str | bytes | None) -> bytes | None:
    """confluent-kafka gives bytes; its annotations allow for text."""
    return value.encode() if isinstance(value, str) else value
