"""Topics of a drill's own on the user's brokers: made, filled, read to their ends, and removed."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.cimpl import NewTopic

from pythia_fast.brokers.kafka_client import KafkaAccess, text_of
from pythia_fast.drill.ledger import Keys, keys_of, position_of
from pythia_fast.drill.receipts import receipt_of
from pythia_fast.drill.settings import KafkaEnds
from pythia_fast.errors import PythiaError, SinkError, SourceError

PREFIX = "pythia-fast-drill"
PARTITIONS = 4
LEADERS_S = 30.0
AT_ONCE = 100  #: messages that the broker gets, and gives, together: what a connection carries shall be felt
READ_AT_ONCE = 10_000
#: Rows that wait in the producer, and how long each may: a broker that takes 170 rows a second is fast enough.
FILL_QUEUE, FILL_S = 10_000, 60.0
FLUSH_S = 0.2
#: Answers to a request to make a topic that leave open whether it is made.
UNANSWERED = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._DESTROY, KafkaError.REQUEST_TIMED_OUT)


class Receipt(NamedTuple):
    """One result that came out."""

    key: int
    timestamp_ms: int  #: when the run gave it to its producer
    run: int  #: index of the run that wrote it


class DrillTopics:
    """A topic that rows are read from, and one for the results of each run."""

    def __init__(self, options: Mapping[str, str], runs: int, timeout_s: float = 10.0) -> None:
        self._access = KafkaAccess(options, timeout_s)
        self._timeout_s = timeout_s
        self.name = f"{PREFIX}-{uuid.uuid4().hex[:8]}"
        self.source = f"{self.name}-rows"
        self.results = [f"{self.name}-results-{run}" for run in range(runs)]
        self.brokers: list[str] = []
        self._admin = self._access.admin()
        self._made: list[str] = []
        self._group_used = False
        self._unanswered: set[str] = set()  #: those of which nobody knows whether the broker has made them, or will

    def make(self) -> None:
        """Make the topics. Whatever comes of it, ``remove`` knows what there may be from then on."""
        wanted = [NewTopic(self.source, PARTITIONS), *(NewTopic(name, 1) for name in self.results)]
        failures = []
        with self._access.failures(SourceError):
            self._admin.list_topics(timeout=self._timeout_s)  # a broker that cannot be reached has nothing to remove
            for name, made in self._admin.create_topics(wanted, request_timeout=self._timeout_s).items():
                try:
                    made.result()
                except KafkaException as error:
                    failures.append(error)
                    if error.args[0].code() not in UNANSWERED:
                        continue
                    self._unanswered.add(name)
                self._made.append(name)
            if failures:
                raise failures[0]

    def await_leaders(self) -> None:
        """Wait until they can be written to."""
        deadline = time.monotonic() + LEADERS_S
        while time.monotonic() < deadline:
            with self._access.failures(SourceError):
                known = self._admin.list_topics(timeout=self._timeout_s)
            topics = [known.topics.get(name) for name in (self.source, *self.results)]
            if all(
                topic is not None
                and topic.partitions
                and all(partition.leader >= 0 for partition in topic.partitions.values())
                for topic in topics
            ):
                self.brokers = [f"{broker.host}:{broker.port}" for broker in known.brokers.values()]
                return
            time.sleep(0.05)
        raise SourceError(f"the topics {self.name}-* have no leaders after {LEADERS_S:g} seconds")

    def ends(self, run: int) -> KafkaEnds:
        """What a run is given."""
        self._group_used = True
        return KafkaEnds(self._access.servers, self.source, self.name, self.results[run], self.brokers)

    def fill(self, payloads: Iterable[bytes]) -> Keys:
        """Send the rows, in turn to each partition; their positions."""
        options = {"batch.num.messages": str(AT_ONCE), "queue.buffering.max.messages": str(FILL_QUEUE)}
        producer = KafkaAccess({**self._access.options, **options}, FILL_S).producer()
        failures: list[str] = []
        partitions: list[int] = []
        offsets: list[int] = []

        def delivered(error: object, message: Message) -> None:
            if error is not None:
                failures.append(text_of(error))
                return
            partitions.append(message.partition() or 0)
            offsets.append(message.offset() or 0)

        try:
            with self._access.failures(SinkError):
                for row, payload in enumerate(payloads):
                    while not failures:
                        try:
                            producer.produce(self.source, payload, partition=row % PARTITIONS, on_delivery=delivered)
                        except BufferError:
                            producer.poll(0.1)
                            continue
                        break
                    producer.poll(0)
                while producer.flush(FLUSH_S):  # in steps: a signal is seen between them
                    pass
        finally:
            # Cut short, it would look for its topic after that was removed, and the broker might make it anew.
            producer.purge()
            del producer
        if failures:
            raise SinkError(f"the rows cannot be sent to topic {self.source}: {failures[0]}")
        return keys_of(np.array(partitions, np.int64), np.array(offsets, np.int64))

    def remove(self) -> list[str]:
        """Remove the topics and the group; sentences about what stays."""
        if not self._made:
            return []
        left = []
        for name, removed in self._admin.delete_topics(self._made, request_timeout=self._timeout_s).items():
            try:
                removed.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    left.append(self._not_removed(f"topic {name}", error))
                elif name in self._unanswered:
                    left.append(
                        f"topic {name} may come to be at {self._access.servers}: it was not there when it was to be "
                        "removed, but the broker had not answered whether it makes it"
                    )
        if self._group_used:
            left += self._remove_group()
        return left

    def _remove_group(self) -> list[str]:
        """Asked for only where brokers that answer have it: librdkafka's admin client takes its process down where it
        asks for a group whose coordinator does not answer."""
        try:
            listed = self._admin.list_consumer_groups(request_timeout=self._timeout_s).result()
            if any(group.group_id == self.name for group in listed.valid):
                self._admin.delete_consumer_groups([self.name], request_timeout=self._timeout_s)[self.name].result()
            elif listed.errors:
                raise KafkaException(listed.errors[0])
        except KafkaException as error:
            return [self._not_removed(f"consumer group {self.name}", error)]
        return []

    def _not_removed(self, what: str, error: KafkaException) -> str:
        return f"{what} could not be removed from {self._access.servers}: {text_of(error.args[0])}"


class Results:
    """Reads what the runs wrote, while they do."""

    def __init__(self, topics: DrillTopics) -> None:
        self.receipts: list[Receipt] = []
        self._topics = topics
        self._consumer: Consumer = topics._access.consumer(f"{topics.name}-reader")
        self._consumer.assign([TopicPartition(name, 0, 0) for name in topics.results])

    def read(self) -> None:
        """What has come since the last call."""
        for message in self._messages(0.02):
            key = receipt_of(message.value())
            if key is not None:
                run = self._topics.results.index(message.topic() or "")
                self.receipts.append(Receipt(key, message.timestamp()[1], run))

    def _messages(self, timeout: float) -> Iterator[Message]:
        while True:
            found = self._consumer.consume(READ_AT_ONCE, timeout=timeout)
            yield from (message for message in found if message.error() is None)
            if len(found) < READ_AT_ONCE:
                return

    def read_to_end(self, timeout_s: float) -> None:
        """All that was written before this call. Raises PythiaError."""
        with self._topics._access.failures(SourceError):
            ends = [
                self._consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=self._topics._timeout_s)[1]
                for name in self._topics.results
            ]
        deadline = time.monotonic() + timeout_s
        while True:
            self.read()
            places = self._consumer.position([TopicPartition(name, 0) for name in self._topics.results])
            if all(max(place.offset, 0) >= end for place, end in zip(places, ends, strict=True)):
                return
            if time.monotonic() > deadline:
                raise PythiaError(f"the results could not be read to their ends in {timeout_s:g} seconds")

    @property
    def keys(self) -> Keys:
        """Of each result."""
        return np.fromiter((receipt.key for receipt in self.receipts), np.int64, len(self.receipts))

    def handovers_ms(self) -> list[float]:
        """For each time that a partition went from one run to another: from the last result to the next."""
        found = []
        by_partition: dict[int, list[Receipt]] = {}
        for receipt in sorted(self.receipts, key=lambda receipt: receipt.timestamp_ms):
            by_partition.setdefault(position_of(receipt.key)[0], []).append(receipt)
        for receipts in by_partition.values():
            for before, after in itertools.pairwise(receipts):
                if before.run != after.run:
                    found.append(float(after.timestamp_ms - before.timestamp_ms))
        return found

    def close(self) -> None:
        self._consumer.close()
