"""What the sink's topic takes, learned before the first record is written (ext/kafka_topic_limits.h).

A batch that is too large for its topic is refused whole, while batches behind it are on their way and may be taken: the
order would be lost. So ``batch.size`` is made no larger than what the topic takes. A compacted topic refuses a batch
whole for one record without a key: so no such record is handed over, and it alone is refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_publisher import KafkaPublisherNative

#: No answer came: _RESOLVE, _TRANSPORT, _ALL_BROKERS_DOWN, _TIMED_OUT, _SSL, REQUEST_TIMED_OUT.
UNANSWERED = frozenset({-193, -195, -187, -185, -181, 7})
ANSWER_MS = 5000
AGAIN_S = 1.0  #: after a question that was not answered
ATTEMPTS = 3  #: of brokers that answer others


class TopicLimits:
    """Asks, and has the producer go on once it is known, or cannot be.

    Parameters:
        native: an open producer, of one topic; it hands nothing over before.
        options: that it was made of.
    """

    def __init__(self, native: KafkaPublisherNative, options: Mapping[str, str]) -> None:
        self.known = False  #: the producer has gone on
        self._native = native
        self._options = options
        self._attempts = 0
        self._asked = False
        self._ask_at = 0.0
        self._ask()

    def wait(self, timeout_ms: int) -> None:
        """Hear the answer, for so long at most."""
        if not self._asked:
            if time.monotonic() < self._ask_at:
                self._native.poll(timeout_ms)
                return
            self._ask()
        answer = self._native.hear_limits(timeout_ms)
        if answer is None:
            return
        self._asked = False
        code, batch_bytes, needs_key = answer
        self._attempts += self._native.broker_seen
        if code in UNANSWERED and self._attempts < ATTEMPTS:
            self._ask_at = time.monotonic() + AGAIN_S
            return
        self.known = True
        size = int(librdkafka.option_value(self._options, "batch.size") or 0)
        if 0 < batch_bytes < size:
            self._native.go_on({**self._options, "batch.size": str(batch_bytes)}, needs_key=needs_key)
        else:
            self._native.go_on(needs_key=needs_key)

    def _ask(self) -> None:
        self._native.ask_limits(ANSWER_MS)
        self._asked = True
