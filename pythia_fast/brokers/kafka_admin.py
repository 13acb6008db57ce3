"""KafkaAdmin: questions and orders to a Kafka cluster, for programs with an event loop.

The brokers are waited for in a thread of its own, so the loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from pythia_fast import options as options_
from pythia_fast.brokers.kafka import admin_options
from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.brokers.kafka_cluster import CLUSTER_DEFAULT, KafkaCluster, PartitionLag, TopicDescription
from pythia_fast.options import named_options

DEFAULT_TIMEOUT_S = 10.0
MAX_PARTITIONS = 100_000
MAX_REPLICAS = 32_767


class KafkaAdmin:
    """Asks and orders; reads no messages.

    ``bootstrap_servers``: ``host:port,...``; default ``KAFKA_BOOTSTRAP_SERVERS``, else ``localhost:9092``.
    ``timeout``: seconds that a broker may take for one answer. Every other option is librdkafka's, as for
    KafkaConsumer. Nothing is connected before the first question.

    Every method raises SourceError when no broker answers in time, or one refuses.

    >>> admin = KafkaAdmin(bootstrap_servers="localhost:9092")
    >>> await admin.get_consumer_lag("order-processors", "orders")
    1205
    """

    @named_options("KafkaAdmin")
    def __init__(
        self,
        *,
        bootstrap_servers: str | Iterable[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        options: Mapping[str, object] | None = None,
        **librdkafka_options: object,
    ) -> None:
        self._options = admin_options("KafkaAdmin", bootstrap_servers, options, librdkafka_options)
        self._timeout_s = options_.seconds("KafkaAdmin", "timeout", timeout)
        if self._timeout_s == 0:
            raise options_.refusal("KafkaAdmin", "timeout", timeout, "more than 0 seconds")
        self._made: KafkaCluster | None = None

    async def get_consumer_lag(self, group: str, topic: str) -> int:
        """Messages of a topic that a consumer group has not committed yet, all partitions added up.

        Raises UnknownTopicError, UnknownGroupError.
        """
        return sum(part.lag for part in (await self.get_partition_lags(group, topic)).values())

    async def get_partition_lags(self, group: str, topic: str) -> dict[int, PartitionLag]:
        """The same by partition number.

        A transaction's end takes an offset of its own, so where producers are transactional a group that has read
        everything may be one behind. Raises UnknownTopicError, UnknownGroupError.
        """
        _names("get_consumer_lag", group=group, topic=topic)
        return await asyncio.to_thread(lambda: self._cluster().partition_lags(group, topic))

    async def list_topics(self) -> list[str]:
        """The names of all topics, Kafka's own included."""
        return sorted(await asyncio.to_thread(lambda: self._cluster().topics()))

    async def list_groups(self) -> list[str]:
        """The names of all consumer groups, those without members included."""
        return await asyncio.to_thread(lambda: self._cluster().groups())

    async def describe_topic(self, topic: str) -> TopicDescription:
        """Partitions, their brokers, and the topic's settings. Raises UnknownTopicError."""
        _names("describe_topic", topic=topic)
        return await asyncio.to_thread(lambda: self._cluster().describe_topic(topic))

    async def create_topic(
        self,
        topic: str,
        *,
        partitions: int = CLUSTER_DEFAULT,
        replication_factor: int = CLUSTER_DEFAULT,
        config: Mapping[str, str] | None = None,
        exist_ok: bool = False,
    ) -> bool:
        """Make a topic; -1: as many partitions or replicas as the cluster makes where nobody says.

        ``config``: settings by Kafka's names, ``{"cleanup.policy": "compact"}``. True: it was made; False: there was
        one already, with ``exist_ok``.
        """
        _names("create_topic", topic=topic)
        where = "KafkaAdmin.create_topic"
        if partitions != CLUSTER_DEFAULT:
            options_.whole(where, "partitions", partitions, 1, MAX_PARTITIONS, "partitions")
        if replication_factor != CLUSTER_DEFAULT:
            options_.whole(where, "replication_factor", replication_factor, 1, MAX_REPLICAS, "replicas")
        settings = {} if config is None else config
        if not isinstance(settings, Mapping) or not all(isinstance(v, str) for kv in settings.items() for v in kv):
            raise options_.refusal(where, "config", config, "a mapping of Kafka's settings to their values as text")
        return await asyncio.to_thread(
            lambda: self._cluster().create_topic(topic, partitions, replication_factor, settings, exist_ok=exist_ok)
        )

    def _cluster(self) -> KafkaCluster:
        if self._made is None:
            self._made = KafkaCluster(KafkaAccess(self._options, self._timeout_s))
        return self._made


def _names(method: str, **names: object) -> None:
    for option, value in names.items():
        options_.text(
            f"KafkaAdmin.{method}", option, value, f"the name of a {option}, 1 to 249 characters", longest=249
        )
