"""Positions of consumer groups, translated from the source of a mirror to its target and committed there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicPartition

from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.brokers.kafka_cluster import KafkaCluster
from pythia_fast.brokers.kafka_coordinator import ask_coordinator
from pythia_fast.errors import ConfigError, SinkError, SourceError
from pythia_fast.moving.mirror_topics import matching
from pythia_fast.moving.offset_table import OffsetTable

Positions = dict[tuple[str, int], int]


def group_pattern(text: str) -> str:
    """A name, or a regular expression for whole names, as ``matching`` takes it. Raises ConfigError."""
    if re.fullmatch(r"[A-Za-z0-9._-]+", text):
        return text
    try:
        re.compile(text)
    except re.error as error:
        raise ConfigError(f"--groups {text!r} is neither a name nor a regular expression: {error}") from None
    return f"^({text.removeprefix('^').removesuffix('$')})$"


@dataclass(slots=True)
class Moved:
    """What became of one group's positions."""

    group: str
    moved: int = 0  #: positions that were committed in the target
    kept: int = 0  #: those that are there already, or further on
    unknown: int = 0  #: those that the table does not know, since it began later
    why_not: str = ""  #: why nothing was committed

    def __str__(self) -> str:
        if self.why_not:
            return f"group {self.group}: {self.why_not}"
        unknown = f", {self.unknown} not known (mirrored before this mirror kept its table)" if self.unknown else ""
        return f"group {self.group}: {self.moved} positions moved, {self.kept} where they were{unknown}"


class GroupPositions:
    """Reads groups' positions in the source, and commits what they are in the target.

    A position is only ever moved forward there, and only while the group has no members there: those go their own way.
    Methods raise SourceError, SinkError where a cluster does not answer.
    """

    def __init__(
        self,
        source: KafkaAccess,
        target: KafkaAccess,
        table: OffsetTable,
        *,
        prefix: str,
        own_group: str,
        patterns: Sequence[str],
        is_mirrored: Callable[[str], bool],
    ) -> None:
        self._source, self._target = source, target
        self._cluster = KafkaCluster(source)
        self._table = table
        self._prefix = prefix
        self._own_group = own_group
        self._patterns = tuple(patterns)
        self._is_mirrored = is_mirrored

    def move(self) -> list[Moved]:
        """Once for every group that is meant; the mirror's own first."""
        others = matching(self._patterns, self._cluster.groups()) if self._patterns else []
        known = self._cluster.topics()
        partitions = [(topic, number) for topic in known if self._is_mirrored(topic) for number in known[topic]]
        return [self._move(group, partitions) for group in dict.fromkeys([self._own_group, *others])]

    def _move(self, group: str, partitions: Sequence[tuple[str, int]]) -> Moved:
        moved = Moved(group)
        wanted: Positions = {}
        for (topic, partition), position in self._source.committed(group, partitions, SourceError).items():
            target = self._table.target(topic, partition, position)
            if target is None:
                moved.unknown += 1
            else:
                wanted[self._prefix + topic, partition] = target
        if not wanted:
            return moved
        there = self._target.committed(group, wanted, SinkError)
        further = {key: offset for key, offset in wanted.items() if there.get(key, -1) < offset}
        moved.kept = len(wanted) - len(further)
        if further:
            moved.why_not = self._commit(group, further)
            moved.moved = 0 if moved.why_not else len(further)
        return moved

    def _commit(self, group: str, positions: Positions) -> str:
        """Commit them as a consumer that is no member; why the group refuses it, or ""."""
        parts = [TopicPartition(topic, partition, offset) for (topic, partition), offset in sorted(positions.items())]
        consumer = self._target.consumer(group)
        try:
            self._target.of_group(lambda: accepted(consumer.commit(offsets=parts, asynchronous=False)), SinkError)
        except SinkError as error:
            if self._has_members(group):
                return "has members at the target, so its positions there are its own now"
            return f"refused: {error}"
        finally:
            consumer.close()
        return ""

    def _has_members(self, group: str) -> bool:
        return bool(ask_coordinator(self._target.options, group, client_id="", instance_id=None).members)


def accepted(parts: list[TopicPartition]) -> None:
    """Raise what the first of them was refused with."""
    for part in parts:
        if part.error is not None:
            raise KafkaException(part.error)
