"""A Kafka share group (KIP-932) as a source: what a user writes down.

Options are those of ``KafkaConsumer`` (kafka.py). Nothing of confluent-kafka is imported before something is opened.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from typing import Literal

from pythia_fast import options as options_
from pythia_fast.brokers.base import Reader, ReaderContext, Sink, Source
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.group_share import GroupShare
from pythia_fast.brokers.kafka import CONSUMER_RESERVED, KafkaProducer
from pythia_fast.brokers.kafka_options import (
    check_options,
    client_id,
    connecting,
    option_values,
    topic_names,
    topic_phrase,
)
from pythia_fast.brokers.kafka_servers import given_servers, server_names, servers_in_use
from pythia_fast.errors import ConfigError
from pythia_fast.options import named_options

Reset = Literal["earliest", "latest"]

MEMBERS = 4
MOST_MEMBERS = 16

#: What we ask of librdkafka where the user does not say otherwise, and why.
SHARE_DEFAULTS: Mapping[str, str] = {
    "max.poll.records": "500",  # of each member; four of them are what a broker locks of a partition (2,000)
    "fetch.max.bytes": "8388608",  # bounds what each member holds, but for one batch of a producer
    "max.poll.interval.ms": "86400000",  # a member does not poll while its rows are in hand
    "topic.metadata.refresh.interval.ms": "10000",  # a topic created later is found after 10 s, not 5 minutes
    "reconnect.backoff.max.ms": "2000",  # a broker that is back is used again within 2 s
}
#: Options that the runtime answers for, or that a share group does not have.
SHARE_RESERVED: Mapping[str, str] = {
    **CONSUMER_RESERVED,
    "share.acknowledgement.mode": "rows are acknowledged once they are handled",
    "isolation.level": "the group has it, share.isolation.level",
    "partition.assignment.strategy": "the brokers assign the partitions of a share group",
    "group.protocol": "share groups have a protocol of their own",
    "group.instance.id": "a share group has no static members",
}


class KafkaShareConsumer(Source):
    """Reads topics as a member of a share group: several runtimes take rows of the same partitions, each row is
    acknowledged by itself, and the brokers count deliveries. There is no order, so ``ordering="unordered"`` alone.

    Needs Kafka 4.2 with ``share.version=1`` and confluent-kafka 2.16.

    ``topic`` or ``topics``: names; a share group knows no patterns.
    ``consumer_group`` (or ``group_id``): the share group; default ``CONSUMER_GROUP``, else ``<app>-<handler>``.
    ``bootstrap_servers``: ``host:port,...``; default ``KAFKA_BOOTSTRAP_SERVERS``, else ``localhost:9092``.
    ``members``: share consumers of this process, 1 to 16: each brings ``max_poll_records`` rows (500), and more once
    all of them are done.
    ``auto_offset_reset``: where a group begins that has no position: ``earliest`` (default) or ``latest``. It is a
    setting of the group at the brokers (``share.auto.offset.reset``), set there where the group has none of its own.

    Raises ConfigError, and UnknownOptionError for an option that librdkafka does not have.
    """

    @named_options("KafkaShareConsumer")
    def __init__(
        self,
        topic: str | None = None,
        *,
        topics: Iterable[str] | None = None,
        consumer_group: str | None = None,
        group_id: str | None = None,
        bootstrap_servers: str | Iterable[str] | None = None,
        members: int = MEMBERS,
        auto_offset_reset: Reset = "earliest",
        options: Mapping[str, object] | None = None,
        **librdkafka_options: object,
    ) -> None:
        where = "KafkaShareConsumer"
        self.topics = topic_names(where, topic, topics, patterns=False)
        for name in self.topics:
            if name.startswith("^"):
                raise ConfigError(f"{where}: {name!r} is a pattern, which share groups do not know: name the topics")
        for option, value in (("consumer_group", consumer_group), ("group_id", group_id)):
            if value is not None:
                options_.text(where, option, value, "the name of a group, 1 to 249 characters", longest=249)
        if consumer_group is not None and group_id is not None and consumer_group != group_id:
            raise ConfigError(
                f"{where}: consumer_group={consumer_group!r} and group_id={group_id!r} mean the same; give one"
            )
        self.members = options_.whole(where, "members", members, 1, MOST_MEMBERS, "share consumers")
        if options or librdkafka_options:
            from pythia_fast._ext import kafka_share_reader

            kafka_share_reader.check_library()  # an older one does not know the options either
        named = option_values(where, options, librdkafka_options, SHARE_RESERVED, KafkaShareConsumer)
        for name, instead in (("group.id", "consumer_group="), ("auto.offset.reset", "auto_offset_reset=")):
            if name in named:
                raise ConfigError(f"{where}: {name} is in options=: give it as {instead}")
        options_.choice(where, "auto_offset_reset", auto_offset_reset, ("earliest", "latest"))
        self.auto_offset_reset: Reset = auto_offset_reset
        self._group = consumer_group or group_id
        self._servers = given_servers(where, bootstrap_servers, named)
        self._options = named
        check_options(named)

    @property
    def bootstrap_servers(self) -> str:
        return servers_in_use(self._servers, self._options)

    def group(self, app: str, handler: str) -> str:
        """The share group as which a handler reads."""
        return self._group or os.environ.get("CONSUMER_GROUP") or f"{app}-{handler}"

    def share(self, app: str, handler: str) -> GroupShare:
        servers = server_names(self.bootstrap_servers)
        return GroupShare("Kafka topic", self.topics, servers, self.group(app, handler), self._group is not None)

    def reads_what(self, sink: Sink) -> str | None:
        if not isinstance(sink, KafkaProducer) or sink.topic not in self.topics:
            return None
        same = server_names(self.bootstrap_servers) & server_names(sink.bootstrap_servers)
        return f"Kafka topic {sink.topic}" if same else None

    def unordered_because(self) -> str:
        return (
            "a share group gives the rows of a partition to several members, and those that come back come behind "
            'later ones: leave ordering= out ("unordered"), or read with KafkaConsumer'
        )

    def as_group(self, group: str) -> KafkaShareConsumer:
        other = copy.copy(self)
        other._group = group
        return other

    def librdkafka_options(self, context: ReaderContext) -> dict[str, str]:
        """Everything that each share consumer is configured with."""
        return {
            "client.id": client_id(context.app, context.handler),
            **SHARE_DEFAULTS,
            **self._options,
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": self.group(context.app, context.handler),
            "share.acknowledgement.mode": "explicit",
        }

    @property
    def given_options(self) -> Mapping[str, str]:
        """librdkafka's options that were given, by its names; what is not among them has its default."""
        return self._options

    def open(self, context: ReaderContext) -> Reader:
        from pythia_fast.brokers.kafka_share_reader import KafkaShareReader

        return KafkaShareReader(self, context)

    def connection_options(self) -> dict[str, str]:
        """What another client needs to reach the same brokers: addresses and credentials."""
        return {**connecting(self._options), "bootstrap.servers": self.bootstrap_servers}

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.kafka_share_checkup import check_share_consumer

        return check_share_consumer(self, context)

    def describe(self) -> str:
        group = self._group or os.environ.get("CONSUMER_GROUP")
        return f"kafka {topic_phrase(self.topics)}" + (f" as share group {group}" if group else " as a share group")
