"""Kafka to Kafka, message by message: source and sink of the command ``mirror``.

    KafkaReader ─▶ run of the runtime ─▶ producer that writes each record to its own topic and partition
         │                                        │ which offset became which
         └── commit: the table is saved first ◀── OffsetTable

A partition's messages are handled in their order (``ordering="partition"``) and published in it; the producer is
idempotent and hands them over in it (ext/kafka_outbox.c). The positions of the source are committed once their messages
are durable in the target, so a mirror that is killed goes on without loss, and writes again what it had not committed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers.base import Publisher, PublisherContext, Reader, ReaderContext, Sink, Source
from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer
from pythia_fast.brokers.kafka_bounds import QUERY_MS
from pythia_fast.brokers.kafka_publisher import POLL_MS, KafkaPublisher
from pythia_fast.brokers.kafka_reader import KafkaReader
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.moving.mirror_topics import MirrorTopics
from pythia_fast.moving.offset_table import FROM_THE_START, OffsetTable
from pythia_fast.routine import Routine

Key = tuple[str, int]


class MirrorSource(Source):
    """The topics that are mirrored, and the table of what became of them."""

    def __init__(self, consumer: KafkaConsumer, topics: MirrorTopics, table: OffsetTable) -> None:
        self._consumer = consumer
        self._topics = topics
        self._table = table
        self.reader: MirrorReader | None = None

    def open(self, context: ReaderContext) -> Reader:
        self.reader = MirrorReader(self._consumer, context, self._topics, self._table)
        return self.reader

    def describe(self) -> str:
        return f"{self._consumer.describe()} at {self._consumer.bootstrap_servers}"


class MirrorReader(KafkaReader):
    """Sees to it that a topic is in the target before the first message of it is read."""

    def __init__(
        self, consumer: KafkaConsumer, context: ReaderContext, topics: MirrorTopics, table: OffsetTable
    ) -> None:
        self._mirrored = topics
        self._table = table
        super().__init__(consumer, context)

    def _assign(self, keys: Sequence[Key]) -> None:
        try:
            # Nothing is asked for what is known, so that a target that is away ends no mirror at a rebalance.
            for made in self._mirrored.ensure(
                topic for topic, part in keys if part >= self._mirrored.partitions(topic)
            ):
                self._context.log(Routine(f"made {made}"))
        except (ConfigError, SourceError) as error:
            self._fail(str(error))
            return
        new = [key for key in keys if not self._table.knows(*key)]
        committed = self.native.committed(new, QUERY_MS) if new else []
        if committed is None:
            self._fail(f"Kafka at {self._servers} does not tell where group {self._group} stands; is the broker up?")
            return
        for key, position in zip(new, committed, strict=True):
            self._table.begin(*key, FROM_THE_START if position is None or position < 0 else position)
        super()._assign(keys)

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str | None:
        try:
            self._table.save()
        except OSError as error:
            return f"the table of offsets cannot be saved, so nothing is committed: {error.strerror}"
        return super().commit(positions, wait=wait)


class MirrorSink(Sink):
    """The target: every record goes to the topic and partition that it names."""

    takes_places = True

    def __init__(self, producer: KafkaProducer, prefix: str, table: OffsetTable) -> None:
        self._producer = producer
        self._prefix = prefix
        self._table = table

    def open(self, context: PublisherContext) -> Publisher:
        return MirrorPublisher(self._producer, context, self._prefix, self._table)

    def describe(self) -> str:
        named = f"topics {self._prefix}..." if self._prefix else "the same topics"
        return f"kafka {named} at {self._producer.bootstrap_servers}"


class MirrorPublisher(KafkaPublisher):
    """Tells the table which offset became which, before the deliveries are told that this is true of."""

    def __init__(self, producer: KafkaProducer, context: PublisherContext, prefix: str, table: OffsetTable) -> None:
        self._table = table
        native = KafkaPublisherNative(producer.librdkafka_options(context), prefix=prefix)
        super().__init__(producer, context, native)

    def _poll(self, timeout_ms: int) -> Sequence[tuple[int, list[tuple[int, int]]]]:
        done = self._native.poll(timeout_ms)
        if done:
            self._table.note(self._native.take_runs())
        return done

    def _reason(self, code: int) -> str:
        return f"the target does not take it: {librdkafka.error_text(code)}"

    def _missing(self) -> str:
        return f"a topic or partition that is mirrored does not exist at {self._servers}"

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._native.tickets and time.monotonic() < deadline:
            self._poll(POLL_MS)
        self._native.close()
