"""Topics that a consumer names and that do not exist: said while they are waited for, and given up in time.

What matches a pattern is the group's business: see kafka_group_watch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.routine import Routine

UNKNOWN_TOPIC_OR_PART = 3
ANSWER_MS = 1000
DEALT_S = (
    30.0  #: a group has its partitions dealt anew, once a topic exists that it named: at the next look at the topics
)


class AsksForTopics(Protocol):
    """A client, as far as it is asked here."""

    def partition_count(self, topic: str, timeout_ms: int) -> tuple[int, int]: ...


class MissingTopics:
    """Of one reader, on the thread that serves it; true while there is one.

    Parameters:
        servers: for messages.
        tell: takes a subject and a line, which is not to be told over and over.
        log: takes a line.
    """

    def __init__(
        self,
        native: AsksForTopics,
        topics: Sequence[str],
        servers: str,
        troubles: TroubleLog,
        log: Callable[[str], None],
    ) -> None:
        self._native = native
        self._names = [topic for topic in topics if not topic.startswith("^")]
        self._servers = servers
        self._troubles = troubles
        self._log = log
        self._since: dict[str, float] = {}
        self._appeared: dict[str, float] = {}  #: when it was seen to exist

    def __bool__(self) -> bool:
        return bool(self._since)

    def look(self) -> None:
        """Ask the broker which of them exist."""
        for topic in self._names:
            _, error = self._native.partition_count(topic, ANSWER_MS)
            self.answered(topic, error)

    def answered(self, topic: str, error: int) -> None:
        """What the broker says of a topic, by which it was asked for."""
        if error == UNKNOWN_TOPIC_OR_PART and not topic.startswith("^"):
            self._since.setdefault(topic, time.monotonic())
            self._troubles.tell(f"kafka: topic {topic} does not exist at {self._servers}; waiting")
        elif error == 0 and self._since.pop(topic, None) is not None:
            self._appeared[topic] = time.monotonic()
            self._log(Routine(f"kafka: topic {topic} exists now"))

    def to_come(self, known: Collection[str]) -> bool:
        """Whether one of them is still to be read: it does not exist, or its group has not dealt it out yet.

        ``known``: topics whose ends this reader knows. Those that were dealt to other members are waited for in vain,
        for ``DEALT_S``.
        """
        dealt = time.monotonic() - DEALT_S
        waited = [*self._since, *(topic for topic, since in self._appeared.items() if since > dealt)]
        return any(topic not in known for topic in waited)

    def failure(self, limit_s: float | None) -> str | None:
        """Why the run is to end, once one has been missing for so long; None: it is not, or there is no limit."""
        if limit_s is None:
            return None
        for topic, since in self._since.items():
            if time.monotonic() - since >= limit_s:
                return (
                    f"topic {topic} does not exist at {self._servers}, and nobody created it within {limit_s:g} s: "
                    "check its name, or create it (kafka-topics.sh --create)"
                )
        return None
