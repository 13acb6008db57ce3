"""Where a Kafka consumer group goes on: looked up, planned and set, while none of its members runs.

Kafka keeps one offset for each group and partition. Members commit it; while there are none, anybody with the rights
may set it (AlterConsumerGroupOffsets, KIP-396).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pythia_fast.brokers.kafka_cluster import KafkaCluster, PartitionLag
from pythia_fast.errors import ConfigError, UnknownTopicError

Key = tuple[str, int]  #: topic, partition

MAX_OFFSET = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Aim:
    """Where positions are to be set to.

    ``kind``: "earliest", "latest"; "time": the first message as young as ``value``, milliseconds since 1970, or the
    end; "offset": ``value``; "shift": ``value`` messages on, or back where it is negative.
    """

    kind: Literal["earliest", "latest", "time", "offset", "shift"]
    value: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's position."""

    topic: str
    partition: int
    before: int | None  #: None: the group had none
    after: int
    end: int  #: offset that the next message will have

    @property
    def read_again(self) -> int:
        """Messages that the group will read again; negative: that it leaves out."""
        return 0 if self.before is None else self.before - self.after


def offset_for(aim: Aim, lag: PartitionLag, at_time: int) -> int:
    """The offset that is aimed at in one partition, within what there is. ``at_time``: -1 where nothing is so young."""
    if aim.kind == "earliest":
        return lag.start
    if aim.kind == "latest":
        return lag.end
    if aim.kind == "time":
        wanted = lag.end if at_time < 0 else at_time
    elif aim.kind == "offset":
        wanted = aim.value
    else:
        wanted = (lag.start if lag.committed is None else lag.committed) + aim.value
    return min(max(wanted, lag.start), lag.end)


def plan(
    cluster: KafkaCluster, group: str, topics: Iterable[str], aim: Aim, partitions: Mapping[str, Sequence[int]] = {}
) -> list[Move]:
    """What setting the positions will do. Nothing is changed.

    Parameters:
        topics: names, and regular expressions that begin with ``^``.
        partitions: topic -> those that are meant, where not all are.

    Raises UnknownTopicError, SourceError.
    """
    known = cluster.topics()
    moves = []
    for topic in _named(topics, known):
        lags = cluster.partition_lags(group, topic, new_group=True)
        chosen = partitions.get(topic, sorted(lags))
        for partition in chosen:
            if partition not in lags:
                raise UnknownTopicError(f"topic {topic} has no partition {partition}: it has {len(lags)}")
        times = cluster.offsets_at(topic, chosen, aim.value) if aim.kind == "time" else {}
        for partition in chosen:
            lag = lags[partition]
            after = offset_for(aim, lag, times.get(partition, -1))
            moves.append(Move(topic, partition, lag.committed, after, lag.end))
    return moves


def positions_at(cluster: KafkaCluster, keys: Iterable[Key], timestamp_ms: int) -> dict[Key, int]:
    """Of each partition the offset of the first message as young as that; its end where there is none so young."""
    found: dict[Key, int] = {}
    wanted = sorted(keys)
    for topic in dict.fromkeys(topic for topic, _ in wanted):
        partitions = [partition for name, partition in wanted if name == topic]
        offsets = cluster.offsets_at(topic, partitions, timestamp_ms)
        older = [partition for partition, offset in offsets.items() if offset < 0]
        offsets.update(cluster.ends(topic, older) if older else {})
        found.update(((topic, partition), offset) for partition, offset in offsets.items())
    return found


def set_positions(cluster: KafkaCluster, group: str, moves: Iterable[Move]) -> None:
    """Have the group go on there. Raises ConfigError while it has members, SourceError."""
    described = cluster.group(group)
    if described is not None and described.members:
        hosts = ", ".join(sorted({f"{member.client_id} on {member.host}" for member in described.members})[:5])
        members = "a member" if len(described.members) == 1 else f"{len(described.members)} members"
        raise ConfigError(
            f"group {group} has {members} ({hosts}): they would commit over what is set here. "
            "Stop them, or wait until their session has ended, and try again"
        )
    cluster.set_positions(group, {(move.topic, move.partition): move.after for move in moves})


def _named(topics: Iterable[str], known: Mapping[str, object]) -> list[str]:
    """The topics that are meant. One that is missing is told when it is asked for."""
    found: list[str] = []
    for topic in topics:
        matching = [name for name in known if re.match(topic, name)] if topic.startswith("^") else [topic]
        if not matching:
            raise UnknownTopicError(f"no topic matches {topic}")
        found += sorted(matching)
    return list(dict.fromkeys(found))
