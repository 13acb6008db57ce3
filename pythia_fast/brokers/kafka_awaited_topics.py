"""Topics of a transactional producer that do not exist: waited for between two transactions, and given up in time.

A record of such a topic takes its transaction with it, and so would that of the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pythia_fast.brokers.kafka_missing_topics import UNKNOWN_TOPIC_OR_PART
from pythia_fast.brokers.kafka_waiting_calls import CALL_MS, ClosedError
from pythia_fast.errors import SinkError

AGAIN_S = 1.0  #: between two looks whether a topic exists now


class AwaitedTopics:
    """Of one producer; ``wait`` is called on the thread of its calls.

    Parameters:
        topics: by name, with the server each is to be at.
        limit_s: seconds after which they are given up; None: never.
        closing: whether the run ends.
        tell: says a sentence to the user.
    """

    def __init__(
        self,
        topics: Sequence[tuple[str, str]],
        limit_s: float | None,
        closing: threading.Event,
        tell: Callable[[str], None],
    ) -> None:
        self.missing: tuple[str, ...] = ()  #: those that do not exist, while they are waited for
        self._topics = topics
        self._limit_s = limit_s
        self._closing = closing
        self._tell = tell

    def wait(self, error_of: Callable[[str, int], int]) -> None:
        """Until all exist. ``error_of``: what the brokers answer about a topic, in so many milliseconds.

        Raises ClosedError, and SinkError at the limit.
        """
        began = time.monotonic()
        told: tuple[str, ...] = ()
        while missing := tuple(topic for topic, _ in self._topics if error_of(topic, CALL_MS) == UNKNOWN_TOPIC_OR_PART):
            self.missing = missing
            if missing != told:
                told = missing
                self._tell(f"it waits until Kafka topic {' and '.join(missing)} exists")
            if self._limit_s is not None and time.monotonic() - began >= self._limit_s:
                servers = dict(self._topics)[missing[0]]
                raise SinkError(f"Kafka topic {missing[0]} does not exist at {servers}: create it, or correct topic=")
            if self._closing.wait(AGAIN_S):
                raise ClosedError
        self.missing = ()
