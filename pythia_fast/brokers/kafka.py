"""Kafka as a source and a sink: what a user writes down.

Settings come from the argument, else the environment (``KAFKA_BOOTSTRAP_SERVERS``, ``CONSUMER_GROUP``), else a
default. Every option of librdkafka can be given, by its own name with ``_`` for ``.``
(``session_timeout_ms=10_000``) or as ``options={"session.timeout.ms": 10_000}``; librdkafka itself checks names and
values when the consumer or producer is declared. Its list of them: CONFIGURATION.md of librdkafka.

Nothing of confluent-kafka is imported, and librdkafka is opened only when there is an option to check or something
to open.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pythia_fast import options as options_  # the word is taken here by librdkafka's
from pythia_fast.brokers.base import Publisher, PublisherContext, Reader, ReaderContext, Sink, Source
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.group_share import GroupShare, is_among
from pythia_fast.brokers.kafka_options import (
    Strategy,
    check_options,
    client_id,
    connecting,
    is_idempotent,
    option_values,
    topic_names,
    topic_phrase,
    with_strategy,
)
from pythia_fast.brokers.kafka_servers import given_servers, server_names, servers_in_use
from pythia_fast.errors import ConfigError
from pythia_fast.moments import parse_moment
from pythia_fast.options import named_options

#: What we ask of librdkafka where the user does not say otherwise, and why.
CONSUMER_DEFAULTS: Mapping[str, str] = {
    "auto.offset.reset": "earliest",  # a new group reads what there is, instead of losing it silently
    "isolation.level": "read_committed",
    "queued.min.messages": "20000",  # 200,000 costs 12 % more CPU: the messages leave the cache
    "queued.max.messages.kbytes": "32768",  # bounds what waits in librdkafka, whatever the message size
    "fetch.queue.backoff.ms": "2",  # the default of 1000 stalls a consumer slower than its fetcher
    "fetch.wait.max.ms": "100",  # a partition that is ready waits for the fetch under way, so keep that short
    "allow.auto.create.topics": "false",  # a mistyped topic is said, not created
    "topic.metadata.refresh.interval.ms": "10000",  # a topic created later is found after 10 s, not 5 minutes
    "reconnect.backoff.max.ms": "2000",  # a broker that is back is used again within 2 s
}
PRODUCER_DEFAULTS: Mapping[str, str] = {
    "enable.idempotence": "true",  # librdkafka's own retries neither repeat nor reorder
    "message.timeout.ms": "0",  # never given up: the source is held back instead
    "linger.ms": "5",
    "compression.type": "lz4",
    "topic.metadata.propagation.max.ms": "3000",  # a topic that does not exist is told after 3 s, not 30
    "reconnect.backoff.max.ms": "2000",
}
#: What a transactional producer has instead. A runtime that is killed blocks read_committed readers, and whoever takes
#: its partitions over, until its transaction times out or its successor has come up.
TRANSACTIONAL_DEFAULTS: Mapping[str, str] = {
    "enable.idempotence": "true",
    "transaction.timeout.ms": "10000",
    "linger.ms": "5",
    "compression.type": "lz4",
    "topic.metadata.propagation.max.ms": "3000",
    "reconnect.backoff.max.ms": "2000",
}
#: Options that the runtime answers for.
CONSUMER_RESERVED: Mapping[str, str] = {
    "enable.auto.commit": "positions are committed once their rows are handled",
    "enable.auto.offset.store": "positions are committed once their rows are handled",
    "enable.partition.eof": "until='end' is told by it, and what does not come",
    "log.queue": "log lines go to the run's own log",
    "enabled_events": "it takes librdkafka's events itself",
}
PRODUCER_RESERVED: Mapping[str, str] = {
    "transactional.id": "a handler has it: @app.batch_handler(transactional=True, transactional_id=...)",
    "delivery.report.only.error": "a record counts as written once its delivery report has come",
    "log.queue": "log lines go to the run's own log",
    "enabled_events": "it takes librdkafka's events itself",
}


class KafkaConsumer(Source):
    """Reads topics as a member of a consumer group.

    ``topic`` or ``topics``: names, or regular expressions that begin with ``^``.
    ``consumer_group`` (or ``group_id``): default ``CONSUMER_GROUP``, else ``<app>-<handler>``.
    ``bootstrap_servers``: ``host:port,...``; default ``KAFKA_BOOTSTRAP_SERVERS``, else ``localhost:9092``.
    ``partition_assignment_strategy``: ``cooperative-sticky`` (default: partitions that stay are not interrupted by a
    rebalance), ``range`` or ``roundrobin``. All members of a group must use the same protocol: cooperative-sticky
    does not mix with the other two.
    ``start_at``: where the group has no position: at the first message as young as this, a datetime, or a text such as
    ``2026-01-31T08:00Z`` or ``2h`` (before the reading begins).

    Else a group without a position starts at the earliest message; transactions' aborted messages are not read.

    Raises ConfigError, and UnknownOptionError for an option that librdkafka does not have.
    """

    @named_options("KafkaConsumer")
    def __init__(
        self,
        topic: str | None = None,
        *,
        topics: Iterable[str] | None = None,
        consumer_group: str | None = None,
        group_id: str | None = None,
        bootstrap_servers: str | Iterable[str] | None = None,
        partition_assignment_strategy: Strategy | None = None,
        start_at: datetime | str | None = None,
        options: Mapping[str, object] | None = None,
        **librdkafka_options: object,
    ) -> None:
        where = "KafkaConsumer"
        self.topics = topic_names(where, topic, topics)
        for option, value in (("consumer_group", consumer_group), ("group_id", group_id)):
            if value is not None:
                options_.text(where, option, value, "the name of a group, 1 to 249 characters", longest=249)
        if consumer_group is not None and group_id is not None and consumer_group != group_id:
            raise ConfigError(
                f"KafkaConsumer: consumer_group={consumer_group!r} and group_id={group_id!r} mean the same; give one"
            )
        named = option_values("KafkaConsumer", options, librdkafka_options, CONSUMER_RESERVED, KafkaConsumer)
        if (in_options := named.pop("group.id", None)) is not None:
            if consumer_group is not None or group_id is not None:
                raise ConfigError("KafkaConsumer: consumer_group= is given, and group.id in options= as well: give one")
            options_.text(where, "group.id", in_options, "the name of a group, 1 to 249 characters", longest=249)
        self._group = consumer_group or group_id or in_options
        self._servers = given_servers(where, bootstrap_servers, named)
        self._start_at = start_at
        self.start_at(datetime.now(UTC))  # what is no moment is told now
        strategy: str | None = partition_assignment_strategy
        in_options = named.pop("partition.assignment.strategy", None)
        if strategy is None:
            strategy = in_options
        elif in_options is not None:
            raise ConfigError(
                "KafkaConsumer: partition_assignment_strategy= is given, and in options= as well: give one"
            )
        self._options = with_strategy(strategy, named)
        if named:
            check_options(self._options)
            from pythia_fast.brokers.kafka_contradictions import check_consumer_options, check_ignored_topics

            check_consumer_options(where, {**CONSUMER_DEFAULTS, **self._options})
            check_ignored_topics(where, self.topics, self._options)

    @property
    def bootstrap_servers(self) -> str:
        return servers_in_use(self._servers, self._options)

    def group(self, app: str, handler: str) -> str:
        """The consumer group as which a handler reads."""
        return self._group or os.environ.get("CONSUMER_GROUP") or f"{app}-{handler}"

    def share(self, app: str, handler: str) -> GroupShare:
        servers = server_names(self.bootstrap_servers)
        group, given = self.group(app, handler), self._group is not None
        return GroupShare("Kafka topic", self.topics, servers, group, given, patterns=True)

    def reads_what(self, sink: Sink) -> str | None:
        if not isinstance(sink, KafkaProducer) or not is_among(sink.topic, self.topics):
            return None
        same = server_names(self.bootstrap_servers) & server_names(sink.bootstrap_servers)
        return f"Kafka topic {sink.topic}" if same else None

    def start_at(self, now: datetime) -> datetime | None:
        """From when on a group without a position reads; None: from where ``auto.offset.reset`` says."""
        if self._start_at is None:
            return None
        takes = "a datetime, or a text: 2026-01-31T08:00Z, 2h"
        if not isinstance(self._start_at, (datetime, str)):
            raise options_.refusal("KafkaConsumer", "start_at", self._start_at, takes)
        if isinstance(self._start_at, str):
            return parse_moment("KafkaConsumer: start_at", self._start_at, now)
        return self._start_at.astimezone(UTC)

    def as_group(self, group: str) -> KafkaConsumer:
        other = copy.copy(self)
        other._group = group
        return other

    @property
    def isolation_level(self) -> str:
        """Whether messages of transactions that are not committed are read."""
        return self._options.get("isolation.level", CONSUMER_DEFAULTS["isolation.level"])

    @property
    def instance_id(self) -> str | None:
        """``group.instance.id``, by which a static member is known to its group."""
        return self._options.get("group.instance.id")

    def librdkafka_options(self, context: ReaderContext) -> dict[str, str]:
        """Everything that the consumer is configured with."""
        return {
            "client.id": client_id(context.app, context.handler),
            **CONSUMER_DEFAULTS,
            **self._options,
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": self.group(context.app, context.handler),
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "enable.partition.eof": "true",
            "log.queue": "true",
        }

    @property
    def given_options(self) -> Mapping[str, str]:
        """librdkafka's options that were given, by its names; what is not among them has its default."""
        return self._options

    def open(self, context: ReaderContext) -> Reader:
        from pythia_fast.brokers.kafka_reader import KafkaReader

        return KafkaReader(self, context)

    def connection_options(self) -> dict[str, str]:
        """What another client needs to reach the same brokers: addresses and credentials."""
        return {**connecting(self._options), "bootstrap.servers": self.bootstrap_servers}

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.kafka_checkup import check_consumer

        return check_consumer(self, context)

    def describe(self) -> str:
        group = self._group or os.environ.get("CONSUMER_GROUP")
        return f"kafka {topic_phrase(self.topics)}" + (f" as group {group}" if group else "")


class KafkaProducer(Sink):
    """Writes to a topic; a record counts as written once every in-sync replica has it (``acks=all``).

    ``topic``: must exist. ``bootstrap_servers``: as for KafkaConsumer. Records are batched for up to 5 ms
    (``linger_ms``) and compressed with lz4 (``compression_type``). A record keeps its key, which chooses the
    partition, and its headers.

    Raises ConfigError, and UnknownOptionError for an option that librdkafka does not have.
    """

    takes_places = True

    @named_options("KafkaProducer")
    def __init__(
        self,
        topic: str,
        *,
        bootstrap_servers: str | Iterable[str] | None = None,
        options: Mapping[str, object] | None = None,
        **librdkafka_options: object,
    ) -> None:
        if isinstance(topic, str) and topic.startswith("^"):
            raise ConfigError(f"KafkaProducer: topic={topic!r} is a pattern; a sink writes to one topic")
        (self.topic,) = topic_names("KafkaProducer", topic, None, patterns=False)
        named = option_values("KafkaProducer", options, librdkafka_options, PRODUCER_RESERVED, KafkaProducer)
        self._servers = given_servers("KafkaProducer", bootstrap_servers, named)
        self._options = named
        check_options(named)
        acks = named.get("acks", named.get("request.required.acks", "all"))
        if acks not in ("all", "-1") and is_idempotent({**PRODUCER_DEFAULTS, **named}):
            raise ConfigError(
                f"KafkaProducer: acks={acks} would count records as written that a broker may still lose: leave it "
                "out, or give enable_idempotence=False with it"
            )
        if named:
            from pythia_fast.brokers.kafka_contradictions import check_producer_options

            check_producer_options("KafkaProducer", {**PRODUCER_DEFAULTS, **named})

    @property
    def bootstrap_servers(self) -> str:
        return servers_in_use(self._servers, self._options)

    def librdkafka_options(self, context: PublisherContext) -> dict[str, str]:
        """Everything that the producer is configured with."""
        return {
            "client.id": client_id(context.app, context.handler),
            **PRODUCER_DEFAULTS,
            **self._options,
            "bootstrap.servers": self.bootstrap_servers,
            "log.queue": "true",
        }

    def check_transactional(self) -> None:
        """Raise ConfigError for options that cannot be those of a producer of transactions."""
        if self._options:
            from pythia_fast.brokers.kafka_contradictions import check_transactional_options

            check_transactional_options("KafkaProducer", {**TRANSACTIONAL_DEFAULTS, **self._options})

    @property
    def transaction_timeout_s(self) -> float:
        """Seconds for which a transaction may be open; the broker aborts it then."""
        return int(self._options.get("transaction.timeout.ms", TRANSACTIONAL_DEFAULTS["transaction.timeout.ms"])) / 1000

    def transactional_options(self, context: PublisherContext, transactional_id: str) -> dict[str, str]:
        """The same for a producer of transactions."""
        return {
            "client.id": client_id(context.app, context.handler),
            **TRANSACTIONAL_DEFAULTS,
            **self._options,
            "bootstrap.servers": self.bootstrap_servers,
            "log.queue": "true",
            "transactional.id": transactional_id,
        }

    @property
    def given_options(self) -> Mapping[str, str]:
        """librdkafka's options that were given, by its names; what is not among them has its default."""
        return self._options

    def open(self, context: PublisherContext) -> Publisher:
        from pythia_fast.brokers.kafka_publisher import KafkaPublisher

        return KafkaPublisher(self, context)

    def connection_options(self) -> dict[str, str]:
        """What another client needs to reach the same brokers: addresses and credentials."""
        return {**connecting(self._options), "bootstrap.servers": self.bootstrap_servers}

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.kafka_checkup import check_producer

        return check_producer(self, context)

    def describe(self) -> str:
        return f"kafka topic {self.topic}"


def admin_options(
    where: str,
    bootstrap_servers: str | Iterable[str] | None,
    options: Mapping[str, object] | None,
    keywords: Mapping[str, object],
) -> dict[str, str]:
    """librdkafka's options, ``bootstrap.servers`` among them, of a client that reads and writes nothing."""
    named = option_values(where, options, keywords, {})
    given = given_servers(where, bootstrap_servers, named)
    if named:
        check_options(named)
        from pythia_fast.brokers.kafka_contradictions import check_client_options

        check_client_options(where, named)
    return {**named, "bootstrap.servers": servers_in_use(given, named)}


def __getattr__(name: str) -> Any:
    # Beside the consumer and the producer, where it is looked for; it alone needs confluent-kafka to be imported.
    if name == "KafkaAdmin":
        from pythia_fast.brokers.kafka_admin import KafkaAdmin

        return KafkaAdmin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
