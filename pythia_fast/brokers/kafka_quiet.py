"""Partitions of a Kafka consumer that have messages which do not come.

A partition is quiet while neither a message nor its end comes from it. Where it ended when the broker last said so is
known without asking. A partition that stays quiet is asked for its end, on a thread of its own: the answer may never
come, and that is worth knowing, too. Nobody is asked about a partition whose messages keep coming.

    position ≥ end, or its end was met there     all is well
    end beyond it                                its messages do not come
    no answer                                    nor does the broker

A member that has no partition asks whether any broker is there: one that the group went on without has none, either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_fast.brokers.base import Kept, Quiet

if TYPE_CHECKING:
    from pythia_fast._ext.kafka_reader import KafkaReaderNative

Key = tuple[str, int]

TOLD_AFTER_S = 3.0  #: of quiet, with messages that are known to be there
ASK_AFTER_S = 5.0
ASK_EVERY_S = 10.0
ASK_SILENT_EVERY_S = 1.0  #: a broker that did not answer, so that its answer is noticed
ASKED_AT_ONCE = 64  #: partitions
ANSWER_MS = 1000
NO_PARTITION = -1


@dataclass(slots=True)
class _Partition:
    reached: int  #: the position, or where the end was met beyond it
    quiet_since_s: float
    asked_s: float = 0.0
    silent_since_s: float | None = None  #: when the first question was asked that was not answered
    end: int = -1  #: as told to the last question


class QuietPartitions:
    """See the module's docstring. ``look``, ``kept`` and then ``close`` belong to one thread."""

    def __init__(
        self, native: KafkaReaderNative, topics: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._native = native
        self._topics = ", ".join(topics)
        self._clock = clock
        self._partitions: dict[Key, _Partition] = {}
        self._alone = _Partition(-1, clock())  #: stands for all while none is assigned
        self._asker: threading.Thread | None = None
        self._next_question_s = 0.0
        self._closed = threading.Event()

    def kept(self) -> list[Kept]:
        """Partitions whose next message was taken from the broker and waits for room."""
        return [
            Kept(topic, partition, held, held_s)
            for topic, partition, _position, _ended_at, held, held_s, _paused in self._standing()
            if held >= 0
        ]

    def look(self) -> list[Quiet]:
        """Those whose messages do not come."""
        now = self._clock()
        standing = self._standing()
        for topic, partition, position, ended_at, held, _held_s, paused in standing:
            self._note((topic, partition), max(position, ended_at), now, flows=paused or held >= 0)
        for gone in self._partitions.keys() - {(topic, partition) for topic, partition, *_ in standing}:
            del self._partitions[gone]
        if not standing and not self._closed.is_set():
            self._partitions[self._topics, NO_PARTITION] = self._alone
        elif standing:
            self._alone = _Partition(-1, now)
        self._ask(now)
        return [found for key, part in self._partitions.items() if (found := self._judge(key, part, now)) is not None]

    def close(self) -> None:
        """Ask no more, and wait for the question that is under way."""
        self._closed.set()
        if self._asker is not None:
            self._asker.join()

    def _standing(self) -> Sequence[tuple[str, int, int, int, int, float, bool]]:
        return [] if self._closed.is_set() else self._native.standing()

    def _note(self, key: Key, reached: int, now: float, *, flows: bool) -> None:
        part = self._partitions.get(key)
        if part is None:
            self._partitions[key] = _Partition(reached, now)
        elif flows or part.reached != reached:  # one that is not fetched on purpose is not the broker's to bring
            part.reached, part.quiet_since_s, part.silent_since_s = reached, now, None

    def _judge(self, key: Key, part: _Partition, now: float) -> Quiet | None:
        quiet_s = now - part.quiet_since_s
        silent_s = now - part.silent_since_s if part.silent_since_s is not None else 0.0
        if key[1] == NO_PARTITION:
            return Quiet(*key, -1, quiet_s, None, silent_s) if silent_s else None
        if quiet_s < TOLD_AFTER_S:
            return None
        marks = self._native.watermarks(*key, 0)  # as last heard: nobody is asked
        end = max(part.end, marks[1] if marks is not None else -1)
        messages = end - part.reached if part.reached >= 0 and end > part.reached else None
        # Neither a message nor the end since it was assigned, although its broker answers: it should have brought one.
        mute = part.reached < 0 and part.end >= 0
        if messages is None and not silent_s and not mute:
            return None
        return Quiet(*key, max(part.reached, 0), quiet_s, messages, silent_s)

    # -- questions -------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        if now < self._next_question_s or (self._asker is not None and self._asker.is_alive()):
            return
        since_s = now - ASK_AFTER_S
        quiet = [(part.asked_s, key) for key, part in self._partitions.items() if part.quiet_since_s <= since_s]
        if not quiet:
            return
        keys = [key for _, key in sorted(quiet)[:ASKED_AT_ONCE]]
        silent = any(part.silent_since_s is not None for part in self._partitions.values())
        self._next_question_s = now + (ASK_SILENT_EVERY_S if silent else ASK_EVERY_S)
        asker = threading.Thread(target=self._ask_each, args=(keys,), name="kafka question", daemon=True)
        asker.start()
        self._asker = asker  # now that it can be joined

    def _ask_each(self, keys: Sequence[Key]) -> None:
        for key in keys:
            part = self._partitions.get(key)
            if part is None or self._closed.is_set():
                continue
            part.asked_s = asked = self._clock()
            if key[1] == NO_PARTITION:
                answered = self._native.broker_answers(ANSWER_MS)
            else:
                marks = self._native.watermarks(*key, ANSWER_MS)
                answered = marks is not None
                part.end = marks[1] if marks is not None else part.end
            if answered:
                part.silent_since_s = None
            elif part.silent_since_s is None:
                part.silent_since_s = asked
                self._next_question_s = min(self._next_question_s, asked + ASK_SILENT_EVERY_S)
