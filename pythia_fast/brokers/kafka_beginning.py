"""Beginning: where a Kafka group begins to read in partitions that it has no position in, when that is at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pythia_fast.errors import SourceError

if TYPE_CHECKING:
    from pythia_fast._ext.kafka_reader import KafkaReaderNative

Key = tuple[str, int]  #: topic, partition

QUERY_MS = 10_000
NAMED = 8  #: partitions of which it is told where they begin


class Beginning:
    """Of one group.

    Parameters:
        moment: messages from then on are read.
        access: librdkafka's options that reach the brokers.
    """

    def __init__(self, moment: datetime, group: str, access: Mapping[str, str]) -> None:
        self._timestamp_ms = max(0, int(moment.timestamp() * 1000))
        self._group = group
        self._access = access

    def __str__(self) -> str:
        return f"{moment_text(self._timestamp_ms)} on"

    def positions(self, native: KafkaReaderNative, keys: Sequence[Key]) -> dict[Key, int]:
        """Of those partitions that the group has no position in.

        They are to be committed, not only gone to: whoever gets a partition next must not begin somewhere else.
        Raises SourceError.
        """
        committed = native.committed(keys, QUERY_MS) if keys else []
        if committed is None:
            servers = self._access["bootstrap.servers"]
            raise SourceError(f"Kafka at {servers} does not tell where group {self._group} stands; is the broker up?")
        new = [key for key, position in zip(keys, committed, strict=True) if position is None]
        if not new:
            return {}
        # Here, because confluent-kafka is needed for this question alone.
        from pythia_fast.brokers.kafka_client import KafkaAccess
        from pythia_fast.brokers.kafka_cluster import KafkaCluster
        from pythia_fast.brokers.kafka_positions import positions_at

        return positions_at(KafkaCluster(KafkaAccess(self._access, QUERY_MS / 1000)), new, self._timestamp_ms)

    def told(self, positions: Mapping[Key, int]) -> str:
        """A sentence for the log."""
        some = list(positions.items())[:NAMED]
        places = ", ".join(f"{topic}[{partition}] {offset:,}" for (topic, partition), offset in some)
        more = f" and {len(positions) - NAMED} more" if len(positions) > NAMED else ""
        return f"kafka: messages from {self} begin at {places}{more}"


def moment_text(timestamp_ms: int) -> str:
    """A time as people read it, in UTC."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
