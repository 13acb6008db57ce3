"""Where partitions begin and end for a run to the end: as they were when it began, or when they were first seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from pythia_fast._ext.kafka_reader import KafkaReaderNative
from pythia_fast.brokers.kafka_missing_topics import MissingTopics
from pythia_fast.brokers.kafka_partition_names import partition_names

Key = tuple[str, int]  #: topic, partition

QUERY_MS = 10_000


class Bounds:
    """Of one reader, on the thread that serves it.

    Parameters:
        native: the open consumer.
        topics: that are read, patterns among them.
        servers: where the brokers are, for messages.
        missing: is told of a topic that is not there.
        fail: takes why the run cannot go on.
    """

    def __init__(
        self,
        native: KafkaReaderNative,
        topics: Sequence[str],
        servers: str,
        missing: MissingTopics,
        fail: Callable[[str], None],
    ) -> None:
        self.known: dict[Key, tuple[int, int]] = {}  #: where each begins for us, and where it ends
        self._native = native
        self._topics = topics
        self._servers = servers
        self._missing = missing
        self._fail = fail
        self._all_asked = False

    @property
    def topics(self) -> set[str]:
        """Of which any partition is known."""
        return {topic for topic, _ in self.known}

    def measure(self, assigned: Sequence[Key]) -> None:
        """Note those that are not known yet; at the first call, those of every topic that is named."""
        keys = list(assigned)
        if not self._all_asked:
            for topic in self._topics:
                count, error = (0, 0) if topic.startswith("^") else self._native.partition_count(topic, QUERY_MS)
                self._missing.answered(topic, error)
                keys += [(topic, partition) for partition in range(count)]
            self._all_asked = True
        keys = sorted(set(keys) - self.known.keys())
        if not keys:
            return
        committed = self._native.committed(keys, QUERY_MS) or [None] * len(keys)
        for key, position in zip(keys, committed, strict=True):
            marks = self._native.watermarks(*key, QUERY_MS)
            if marks is None:
                self._fail(
                    f"Kafka at {self._servers} does not tell where {partition_names([key])} ends; is the broker up?"
                )
                marks = (0, 0)
            low, end = marks
            self.known[key] = (min(end, max(low, position or 0)), end)

    def measure_anew(self, key: Key) -> None:
        """The partition's log is another one now."""
        self.known.pop(key, None)
        self.measure([key])

    def progress(self, positions: Mapping[Key, int], held: Collection[Key]) -> tuple[int, int] | None:
        """(offsets read, offsets in all) of the partitions that this member has, or had; None: none is known."""
        if not self.known:
            return None
        read = total = 0
        for key, (start, end) in self.known.items():
            if key in positions or key in held:
                total += end - start
                read += min(max(positions.get(key, start), start), end) - start
        return read, total
