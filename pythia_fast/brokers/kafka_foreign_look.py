"""What the brokers tell of partitions that other members of a group have: who has them, and how far they were read.

It is asked over and over, on a thread of its own: an answer may take as long as a broker that is away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, TopicPartition

from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.brokers.kafka_coordinator import Coordinator, Group, Owner
from pythia_fast.errors import SourceError

Key = tuple[str, int]  #: topic, partition
Bounds = tuple[int, int]  #: where a partition begins for a run, and where it ends

ANSWER_S = 5.0
PEEK_S = 5.0  #: for the first message behind each position
PAUSE_S = 0.5  #: between two looks
LEAVE_S = 1.0  #: until a question that is not answered is left to itself

#: What is told of a partition in which nothing is left.
NOTHING_LEFT = frozenset({KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION})


UNTOLD = Owner("", "a member that the coordinator does not tell of")


@dataclass(frozen=True, slots=True)
class Look:
    """One round of questions."""

    began_s: float
    keys: frozenset[Key]  #: that were asked about
    bounds: Mapping[Key, Bounds] = field(default_factory=dict)  #: of these
    positions: Mapping[Key, int] = field(default_factory=dict)  #: the group's, where it has one
    finished: frozenset[Key] = frozenset()  #: nothing that can be read lies between the position and the end
    owners: Mapping[Key, Owner] | None = None  #: of every partition that anybody has; None: in a rebalance
    trouble: str = ""  #: why the brokers did not tell


class Looking:
    """Looks again and again, from its start until ``close``.

    Parameters:
        access: librdkafka's options that reach the brokers.
        coordinator: of the group; closed with this.
        group: its name.
        isolation_level: of the reader: what it does not see is not waited for.
        from_earliest: whether a group without a position begins with the oldest message.
        bounds: what to ask about: where each partition begins and ends for the run; None: as it is when it is asked.
    """

    def __init__(
        self,
        access: Mapping[str, str],
        coordinator: Coordinator,
        group: str,
        bounds: Mapping[Key, Bounds | None],
        *,
        isolation_level: str,
        from_earliest: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A consumer of what is committed would wait for the end of a transaction that a dead member has left open.
        self._access = KafkaAccess({**access, "isolation.level": "read_uncommitted"}, ANSWER_S)
        few = {"isolation.level": isolation_level, "queued.min.messages": "1"}
        self._peeking = KafkaAccess({**access, **few}, ANSWER_S)
        self._coordinator = coordinator
        self._group = group
        self._from_earliest = from_earliest
        self._clock = clock
        self._bounds = bounds
        self._measured: dict[Key, Bounds] = {}
        self._peeked: dict[Key, tuple[int, bool]] = {}  #: (position, whether a message is between it and the end)
        self._closed = threading.Event()
        self.last: Look | None = None
        self._thread = threading.Thread(target=self._run, name=f"others of {group}", daemon=True)
        self._thread.start()

    def ask_about(self, bounds: Mapping[Key, Bounds | None]) -> None:
        """From the next look on."""
        self._bounds = bounds

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        self._thread.join(LEAVE_S)

    # -- this thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        consumer: Consumer | None = None
        while not self._closed.is_set():
            began_s, bounds = self._clock(), self._bounds
            try:
                consumer = consumer or self._access.consumer(self._group)
                self.last = self._look(began_s, bounds, consumer)
            except SourceError as error:
                self.last = Look(began_s, frozenset(bounds), trouble=str(error))
            self._closed.wait(PAUSE_S)
        self._coordinator.close()
        if consumer is not None:
            consumer.close()

    def _look(self, began_s: float, wanted: Mapping[Key, Bounds | None], consumer: Consumer) -> Look:
        bounds = {key: known or self._measure(key, consumer) for key, known in wanted.items()}
        owners = _owners(self._coordinator.ask(), bounds)
        positions = self._access.committed_of(consumer, bounds, SourceError)
        finished = {key for key, (start, end) in bounds.items() if self._is_read(positions.get(key), start, end)}
        rest = {key: positions.get(key, start) for key, (start, _) in bounds.items() if key not in finished}
        self._peek({key: at for key, at in rest.items() if self._peeked.get(key, (-1,))[0] != at}, bounds)
        finished.update(key for key, at in rest.items() if self._peeked.get(key) == (at, False))
        return Look(began_s, frozenset(bounds), bounds, positions, frozenset(finished), owners)

    def _measure(self, key: Key, consumer: Consumer) -> Bounds:
        if key not in self._measured:
            with self._access.failures(SourceError):
                marks = consumer.get_watermark_offsets(TopicPartition(*key), timeout=ANSWER_S)
            if marks is None:
                raise SourceError(f"Kafka at {self._access.servers} does not tell where {key[0]}[{key[1]}] ends")
            self._measured[key] = marks
        return self._measured[key]

    def _is_read(self, position: int | None, start: int, end: int) -> bool:
        if position is None:
            return start >= end or not self._from_earliest  # else whoever gets it next begins behind the end
        return position >= end

    def _peek(self, places: Mapping[Key, int], bounds: Mapping[Key, Bounds]) -> None:
        """Whether there is a message: markers of transactions, and what was cut off, are nobody's to read."""
        if not places:
            return
        consumer = self._peeking.consumer(self._group)  # as which it may read; it does not join it
        try:
            with self._access.failures(SourceError):
                consumer.assign([TopicPartition(*key, at) for key, at in places.items()])
            unknown = set(places)
            deadline_s = self._clock() + PEEK_S
            while unknown and self._clock() < deadline_s and not self._closed.is_set():
                message = consumer.poll(0.1)
                if message is None or (key := (message.topic(), message.partition())) not in unknown:
                    continue
                error = message.error()
                if error is None or error.code() in NOTHING_LEFT:
                    self._peeked[key] = places[key], error is None and (message.offset() or 0) < bounds[key][1]
                    unknown.discard(key)
        finally:
            consumer.close()


def _owners(group: Group, keys: Mapping[Key, object]) -> dict[Key, Owner] | None:
    """Who has which partition. We are a member, so a coordinator that knows of none does not tell; not all may ask."""
    if group.state == "unknown":
        return dict.fromkeys(keys, UNTOLD)
    if group.state == "rebalance":
        return None
    return {(holding.topic, holding.partition): holding.owner for holding in group.holdings}
