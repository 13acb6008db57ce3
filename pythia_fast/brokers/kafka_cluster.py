"""Questions and orders to a Kafka cluster, answered when the brokers have answered.

Each topic and group is looked up by name first, so that one that does not exist is told apart from one that is empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

from pythia_fast.brokers.kafka_client import KafkaAccess, missing, text_of
from pythia_fast.errors import SourceError, UnknownGroupError, UnknownTopicError

CLUSTER_DEFAULT = -1  #: Kafka's own word for "as the cluster has it" (KIP-464)

LOOK_AGAIN_S = 0.05  #: for a topic that was made

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a consumer group is behind in one partition."""

    start: int  #: offset of the oldest message that there is
    end: int  #: offset that the next message will have
    committed: int | None  #: offset that the group goes on from; None: it has none here

    @property
    def lag(self) -> int:
        """Messages from the group's position to the end; without a position all that there are."""
        position = self.start if self.committed is None else max(self.committed, self.start)
        return max(0, self.end - position)


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """Who has a partition. Brokers by their ids."""

    leader: int | None  #: None: there is none now, so nobody can read or write it
    replicas: tuple[int, ...]
    in_sync_replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as it stands."""

    name: str
    topic_id: str  #: another one once a topic was made anew under the name
    partitions: Mapping[int, PartitionDescription]
    config: Mapping[str, str]  #: every setting of the topic, those of the cluster's defaults included


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a consumer group."""

    member_id: str  #: another one each time that it joins anew
    client_id: str
    host: str
    instance_id: str | None  #: of a static member
    partitions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A consumer group as it stands."""

    state: str  #: STABLE, EMPTY, ...
    assignor: str  #: empty while it has no members
    members: tuple[GroupMember, ...]
    rights: frozenset[str] | None  #: READ and the like; None: the brokers do not tell


class KafkaCluster:
    """The brokers that ``access`` reaches.

    Every method raises SourceError when they do not answer in time, or refuse.
    """

    def __init__(self, access: KafkaAccess, admin: AdminClient | None = None) -> None:
        """``admin``: a client that there is already."""
        self._access = access
        self._admin = access.admin() if admin is None else admin

    def broker_config(self) -> dict[str, str]:
        """Every setting of one of the brokers."""
        with self._access.failures(SourceError):
            broker = next(iter(self._admin.list_topics(timeout=self._access.timeout_s).brokers))
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        asked = self._admin.describe_configs([resource], request_timeout=self._access.timeout_s)
        return {name: entry.value for name, entry in self._answer(asked[resource]).items() if entry.value is not None}

    def topic_rights(self, topic: str) -> frozenset[str] | None:
        """READ, WRITE and the like; None: the brokers do not tell."""
        asked = self._admin.describe_topics(
            TopicCollection([topic]), include_authorized_operations=True, request_timeout=self._access.timeout_s
        )
        return _rights(self._answer(asked[topic]))

    def group(self, group: str) -> GroupDescription | None:
        """A group as it stands; None: the brokers do not know it."""
        asked = self._admin.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=self._access.timeout_s
        )[group]
        try:
            found = self._access.of_group(lambda: asked.result(self._access.timeout_s), SourceError)
        except SourceError:
            if _code_of(asked) == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            raise
        members = tuple(
            GroupMember(
                member.member_id,
                member.client_id,
                member.host,
                member.group_instance_id,
                tuple((part.topic, part.partition) for part in member.assignment.topic_partitions),
            )
            for member in found.members
        )
        state = "DEAD" if found.state is None else found.state.name
        return GroupDescription(state, found.partition_assignor, members, _rights(found))

    def offsets_at(self, topic: str, partitions: Iterable[int], timestamp_ms: int) -> dict[int, int]:
        """Partition -> the first offset whose message is so young, -1 where there is none."""
        keys = [TopicPartition(topic, partition) for partition in partitions]
        return self._offsets(keys, OffsetSpec.for_timestamp(timestamp_ms))

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> the offset that its next message will have."""
        return self._offsets([TopicPartition(topic, partition) for partition in partitions], OffsetSpec.latest())

    def topics(self) -> dict[str, list[int]]:
        """Every topic with its partitions."""
        with self._access.failures(SourceError):
            known = self._admin.list_topics(timeout=self._access.timeout_s).topics
        return {name: sorted(topic.partitions) for name, topic in known.items() if topic.error is None}

    def groups(self) -> list[str]:
        """Every consumer group, those without members included."""
        found = self._answer(self._admin.list_consumer_groups(request_timeout=self._access.timeout_s))
        return sorted(group.group_id for group in found.valid)

    def partition_lags(self, group: str, topic: str, *, new_group: bool = False) -> dict[int, PartitionLag]:
        """By partition number. ``new_group``: there need be no such group.

        Raises UnknownTopicError, UnknownGroupError.
        """
        keys = [TopicPartition(topic, partition) for partition in self._partitions(topic)]
        committed = self._committed(group, keys)
        if not committed and not new_group:
            self._must_exist(group)
        starts = self._offsets(keys, OffsetSpec.earliest())
        ends = self._offsets(keys, OffsetSpec.latest())  # last, so that no position is beyond its end
        return {
            key.partition: PartitionLag(starts[key.partition], ends[key.partition], committed.get(key.partition))
            for key in keys
        }

    def set_positions(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Have a group without members go on at these offsets; a group that there is not is made."""
        places = [TopicPartition(*key, offset) for key, offset in offsets.items()]
        request = [ConsumerGroupTopicPartitions(group, places)]
        seconds = self._access.timeout_s

        def order() -> Any:
            return self._admin.alter_consumer_group_offsets(request, request_timeout=seconds)[group].result(seconds)

        refused = [
            part for part in self._access.of_group(order, SourceError).topic_partitions if part.error is not None
        ]
        if refused:
            first = refused[0]
            raise SourceError(
                f"Kafka at {self._access.servers} did not set {len(refused)} of {len(places)} positions of group "
                f"{group}, {first.topic}[{first.partition}] for one: {text_of(first.error)}"
            )

    def describe_topic(self, topic: str) -> TopicDescription:
        """Partitions, their brokers, settings. Raises UnknownTopicError."""
        self._partitions(topic)
        seconds = self._access.timeout_s
        found = self._answer(self._admin.describe_topics(TopicCollection([topic]), request_timeout=seconds)[topic])
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = self._answer(self._admin.describe_configs([resource], request_timeout=seconds)[resource])
        partitions = {
            part.id: PartitionDescription(
                None if part.leader is None else part.leader.id,
                tuple(node.id for node in part.replicas),
                tuple(node.id for node in part.isr),
            )
            for part in found.partitions
        }
        settings = {name: entry.value for name, entry in sorted(config.items()) if entry.value is not None}
        return TopicDescription(topic, str(found.topic_id), partitions, settings)

    def create_topic(
        self, topic: str, partitions: int, replication_factor: int, config: Mapping[str, str], *, exist_ok: bool
    ) -> bool:
        """Whether it was made: False where there was one, with ``exist_ok``. Returns once the brokers tell of it."""
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replication_factor, config=dict(config))
        try:
            asked = self._admin.create_topics([new], request_timeout=self._access.timeout_s)[topic]
            with self._access.failures(SourceError):
                asked.result(self._access.timeout_s)
        except SourceError as error:
            if exist_ok and _code_of(asked) == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise SourceError(f"topic {topic} cannot be created: {error}") from None
        deadline = time.monotonic() + self._access.timeout_s
        while topic not in self.topics():  # the broker that is asked hears of it after the controller
            if time.monotonic() > deadline:
                raise SourceError(f"topic {topic} was created, but {self._access.servers} does not tell of it yet")
            time.sleep(LOOK_AGAIN_S)
        return True

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Have the topic so many in all. Returns once the brokers tell of them."""
        asked = self._admin.create_partitions(
            [NewPartitions(topic, partitions)], request_timeout=self._access.timeout_s
        )[topic]
        try:
            self._answer(asked)
        except SourceError as error:
            raise SourceError(f"topic {topic} cannot be given {partitions} partitions: {error}") from None
        deadline = time.monotonic() + self._access.timeout_s
        while len(self._partitions(topic)) < partitions:
            if time.monotonic() > deadline:
                raise SourceError(
                    f"topic {topic} was given partitions, but {self._access.servers} does not tell of them"
                )
            time.sleep(LOOK_AGAIN_S)

    def _partitions(self, topic: str) -> Sequence[int]:
        known = self.topics()
        if topic not in known:
            raise UnknownTopicError(missing(topic, known, self._access.servers))
        return known[topic]

    def _committed(self, group: str, keys: list[TopicPartition]) -> dict[int, int]:
        """Partition -> position, where the group has one."""
        asked = [(key.topic, key.partition) for key in keys]
        found = self._access.committed(group, asked, SourceError)
        return {partition: offset for (_, partition), offset in found.items()}

    def _must_exist(self, group: str) -> None:
        if not self._exists(group):
            near = get_close_matches(group, self.groups(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UnknownGroupError(f"there is no consumer group {group} at {self._access.servers}{hint}")

    def _exists(self, group: str) -> bool:
        """Asked only for a group without positions here: it may have members, or positions in other topics."""
        asked = self._admin.describe_consumer_groups([group], request_timeout=self._access.timeout_s)[group]
        try:
            state = asked.result(self._access.timeout_s).state
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return False
            with self._access.failures(SourceError):
                raise
        known: bool = state != ConsumerGroupState.DEAD  # what brokers before Kafka 4.0 say of a group they do not know
        return known

    def _offsets(self, keys: list[TopicPartition], which: OffsetSpec) -> dict[int, int]:
        asked = self._admin.list_offsets(dict.fromkeys(keys, which), request_timeout=self._access.timeout_s)
        return {key.partition: self._answer(answer).offset for key, answer in asked.items()}

    def _answer(self, asked: Future[Answer]) -> Answer:
        with self._access.failures(SourceError):
            return asked.result(self._access.timeout_s)


def _rights(described: Any) -> frozenset[str] | None:
    told = described.authorized_operations
    return None if told is None else frozenset(operation.name for operation in told)


def _code_of(asked: Future[Any]) -> int | None:
    error = asked.exception(0)
    return error.args[0].code() if isinstance(error, KafkaException) else None
