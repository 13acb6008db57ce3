"""confluent-kafka's clients, for what is no batch path: made alike, quiet, and with failures as sentences."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

import tenacity
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from pythia_fast.brokers.kafka import CONSUMER_DEFAULTS, PRODUCER_DEFAULTS
from pythia_fast.errors import SinkError, SourceError

COORDINATOR_RETRY_S = 0.1
Answer = TypeVar("Answer")

_silent = logging.getLogger("pythia_fast.kafka_client")  # those who ask tell failures themselves
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """How to reach the brokers."""

    options: Mapping[str, str]  #: librdkafka's, ``bootstrap.servers`` among them
    timeout_s: float

    @property
    def servers(self) -> str:
        """The addresses, for messages."""
        return self.options["bootstrap.servers"]

    def consumer(self, group: str) -> Consumer:
        """A consumer that is assigned partitions by hand and commits by hand."""
        chosen = {
            **CONSUMER_DEFAULTS,
            **self.options,
            "group.id": group,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "enable.partition.eof": "true",
        }
        with self.failures(SourceError):
            return Consumer(chosen, logger=_silent)

    def admin(self, told: Callable[[KafkaError], None] | None = None) -> AdminClient:
        """A client of no group. ``told``: what goes wrong with connections, while it is polled."""
        options: dict[str, Any] = dict(self.options)
        if told is not None:
            options["error_cb"] = told
        with self.failures(SourceError):
            return AdminClient(options, logger=_silent)

    def producer(self) -> Producer:
        """A producer that gives up after the timeout, and holds a bounded amount of what waits."""
        chosen = {
            **PRODUCER_DEFAULTS,
            "message.timeout.ms": str(max(1, int(self.timeout_s * 1000))),
            "queue.buffering.max.kbytes": "65536",
            "message.max.bytes": "1000000000",  # the topic decides, as it did when the message first came
            **self.options,
        }
        with self.failures(SinkError):
            return Producer(chosen, logger=_silent)

    def topics(self, client: Consumer | Producer, kind: type[SourceError | SinkError]) -> dict[str, list[int]]:
        """Every topic that there is, with its partitions. Asked for all, so that the broker makes none."""
        with self.failures(kind):
            known = client.list_topics(timeout=self.timeout_s).topics
        return {name: sorted(topic.partitions) for name, topic in known.items() if topic.error is None}

    def topic_id(self, topic: str) -> str:
        """The broker's own number of the topic: another one once it was made anew under the name."""
        with self.failures(SourceError):
            admin = self.admin()  # lives until it has answered
            asked = admin.describe_topics(TopicCollection([topic]), request_timeout=self.timeout_s)
            return str(asked[topic].result(self.timeout_s).topic_id)

    def committed(
        self, group: str, keys: Iterable[tuple[str, int]], kind: type[SourceError | SinkError]
    ) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the position that a group goes on from, where it has one.

        Asked by a consumer that joins nothing: librdkafka's admin client asks the same (ListConsumerGroupOffsets), and
        takes its process down where the answer is that the group's coordinator is being found or loaded.
        """
        asked = list(keys)
        if not asked:
            return {}
        consumer = self.consumer(group)
        try:
            return self.committed_of(consumer, asked, kind)
        finally:
            consumer.close()

    def committed_of(
        self, consumer: Consumer, keys: Iterable[tuple[str, int]], kind: type[SourceError | SinkError]
    ) -> dict[tuple[str, int], int]:
        """The same, of the group of a consumer that there is already."""
        parts = [TopicPartition(*key) for key in keys]
        found = self.of_group(lambda: _whole(consumer.committed(parts, timeout=self.timeout_s)), kind) if parts else []
        return {(part.topic, part.partition): part.offset for part in found if part.offset >= 0}

    def of_group(self, ask: Callable[[], Answer], kind: type[SourceError | SinkError]) -> Answer:
        """Ask for or commit positions; a coordinator that is just being found or elected is waited for."""
        patient = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_no_coordinator),
            stop=tenacity.stop_after_delay(self.timeout_s),
            wait=tenacity.wait_fixed(COORDINATOR_RETRY_S),
            reraise=True,
        )
        with self.failures(kind):
            return patient(ask)

    @contextlib.contextmanager
    def failures(self, kind: type[SourceError | SinkError]) -> Iterator[None]:
        """Turn what librdkafka says into an error of ours."""
        try:
            yield
        except KafkaException as error:
            raise kind(f"Kafka at {self.servers}: {text_of(error.args[0])}") from None


def _whole(parts: list[TopicPartition]) -> list[TopicPartition]:
    """The same. Raises the first failure of one of them, but for a topic that is not there: it has no position."""
    for part in parts:
        if part.error is not None and part.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(part.error)
    return parts


def _is_no_coordinator(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    )


def missing(topic: str, known: Mapping[str, object], servers: str) -> str:
    """That there is no such topic, with the nearest that there is."""
    near = get_close_matches(topic, list(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no Kafka topic {topic} at {servers}{hint}"


def text_of(error: Any) -> str:
    """A KafkaError as a phrase: its own text, and the name of its code where that is empty."""
    return str(error.str() or error.name()) if hasattr(error, "str") else str(error)
