"""What a member of a consumer group commits, and how far it is behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_reader import KafkaReaderNative
from pythia_fast.brokers.kafka_away import TIMED_OUT, TRANSPORT
from pythia_fast.brokers.kafka_missing_topics import ANSWER_MS
from pythia_fast.brokers.kafka_partition_names import partition_names
from pythia_fast.errors import SourceError

Key = tuple[str, int]  #: topic, partition

IN_PROGRESS = -178
FATAL = -150
#: What a member is told that another one has replaced, by its group.instance.id, when it commits.
FENCED = frozenset({FATAL, -144, 82})
#: Errors that end by themselves: the coordinator moves or loads, a rebalance is under way.
PASSING = frozenset({TRANSPORT, -180, TIMED_OUT, 7, 14, 15, 16, 27})
COMMIT_SECONDS = 5.0


class Commits:
    """Of one reader, on the thread that serves it.

    Parameters:
        native: the open consumer.
        hurried: whether nobody is to be waited for any longer.
        ended: makes the error that ends the run of why a member may commit nothing any more.
    """

    def __init__(
        self,
        native: KafkaReaderNative,
        hurried: Callable[[], bool] | None,
        ended: Callable[[str], SourceError],
    ) -> None:
        self.silent = False  #: the last commit that was waited for was not answered
        self._native = native
        self._hurried = hurried
        self._ended = ended
        self._positions: dict[Key, int] = {}  #: that were committed

    def forget(self, key: Key) -> None:
        """The partition is another's, or its log another one."""
        self._positions.pop(key, None)

    def commit(self, offsets: Sequence[tuple[str, int, int]], *, wait: bool) -> str | None:
        """(topic, partition, offset) each. Why it failed, empty where it did not; None: it is on its way.

        ``wait``: try again until it is answered for good, for COMMIT_SECONDS at most.
        """
        deadline = time.monotonic() + COMMIT_SECONDS
        while True:
            error = self._native.commit(offsets, max(0.0, deadline - time.monotonic()) if wait else None)
            self.silent = wait and error == TIMED_OUT
            if error == 0:
                self._positions.update({(topic, partition): offset for topic, partition, offset in offsets})
                return ""
            if error == IN_PROGRESS:
                return None
            hurried = self._hurried is not None and self._hurried()
            if not wait or error not in PASSING or time.monotonic() >= deadline or hurried:
                break
            time.sleep(0.05)
        if error in FENCED:
            raise self._ended(self._native.fatal_error or librdkafka.error_text(error))
        where = partition_names([offset[:2] for offset in offsets])
        return f"kafka: could not commit {where}: {librdkafka.error_text(error)}"

    def lag(self, keys: Collection[Key]) -> Mapping[Key, int]:
        """Offsets between what the group has committed and the ends, of partitions whose ends are known."""
        unknown = [key for key in keys if key not in self._positions]
        known = dict(zip(unknown, self._native.committed(unknown, ANSWER_MS) or [], strict=False)) if unknown else {}
        behind = {}
        for key in keys:
            marks = self._native.watermarks(*key, 0)
            if marks is not None:
                position = self._positions.get(key, known.get(key))
                behind[key] = max(0, marks[1] - max(marks[0], position or 0))
        return behind
