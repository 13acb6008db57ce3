"""Messages into a sink that runs write to: a file, a Redis stream, a RabbitMQ queue, by the publisher of each."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

from pythia_fast.brokers.base import Delivery, Publisher, PublisherContext
from pythia_fast.brokers.framing import Headers, encode_headers, frame_record
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.target import Answer, RequeueTarget
from pythia_fast.errors import SinkError

BATCH_MESSAGES = 500  #: that are handed to the publisher together; a file writes and syncs them once
BATCH_BYTES = 1 << 20  #: the same, by what they hold
MOST_BATCHES = 4  #: that the publisher may have in hand
CLOSE_S = 5.0


def publisher_context(timeout_s: float) -> PublisherContext:
    """For a publisher of this command, which tells what it has to say by ``trouble()`` and errors."""
    return PublisherContext(
        app="dlq", handler="requeue", state_dir=Path(".pythia"), log=lambda line: None, connect_timeout=timeout_s
    )


class SinkTarget(RequeueTarget):
    """One sink. Its publisher is opened when something is sent.

    ``patience_s``: how long it may be in trouble, or silent, while something is under way.
    """

    def __init__(self, name: str, open_publisher: Callable[[], Publisher], patience_s: float) -> None:
        self._name = name
        self._open_publisher = open_publisher
        self._patience_s = patience_s
        self._publisher: Publisher | None = None
        self._waiting: list[tuple[bytes, Place]] = []
        self._waiting_bytes = 0
        self._sent: dict[int, list[Place]] = {}  # by ticket
        self._tickets = 0
        self._answers: list[Answer] = []
        self._silent_since_s = 0.0

    def destination(self, message: Message) -> str:
        return self._name

    def _record(self, message: Message) -> bytes:
        return frame_record(message.payload, message.key, encode_headers(message.headers))

    def send(self, message: Message, place: Place) -> None:
        record = self._record(message)
        self._waiting.append((record, place))
        self._waiting_bytes += len(record)
        if len(self._waiting) >= BATCH_MESSAGES or self._waiting_bytes >= BATCH_BYTES:
            self._publish()

    def _publish(self) -> None:
        if self._publisher is None:
            self._publisher = self._open_publisher()
        while len(self._sent) >= MOST_BATCHES:
            self._hear(1.0)
        if not self._sent:
            self._silent_since_s = time.monotonic()
        self._tickets += 1
        self._sent[self._tickets] = [place for _, place in self._waiting]
        records = b"".join([record for record, _ in self._waiting])
        self._publisher.publish(memoryview(records), len(self._waiting), self._tickets)
        self._waiting, self._waiting_bytes = [], 0

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        if timeout_s > 0 and self._waiting:
            self._publish()
        if self._publisher is not None:
            self._hear(0.0 if self._answers else timeout_s)
        answers, self._answers = self._answers, []
        return answers

    def _hear(self, timeout_s: float) -> None:
        """Take in what became of batches. Raises SinkError where nothing has come of any for too long."""
        assert self._publisher is not None
        deliveries = self._publisher.deliveries(timeout_s)
        now = time.monotonic()
        if deliveries or not self._sent:
            self._silent_since_s = now
        for delivery in deliveries:
            self._take(delivery)
        silent_s = now - self._silent_since_s
        trouble = self._publisher.trouble()
        if self._sent and trouble is not None and silent_s >= self._patience_s:
            raise SinkError(trouble.partition(";")[0])

    def _take(self, delivery: Delivery) -> None:
        refused = {record.index: record.reason for record in delivery.failed}
        places = self._sent.pop(delivery.ticket)
        self._answers += [Answer(place, refused.get(index, "")) for index, place in enumerate(places)]

    def close(self) -> list[Answer]:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close(CLOSE_S)
            # A publisher that failed has told so to ``answers()``; what it does not tell now is sent again.
            with contextlib.suppress(Exception):
                for delivery in publisher.deliveries():
                    self._take(delivery)
        answers, self._answers = self._answers, []
        return answers


class PlacesTarget(RequeueTarget):
    """Several sinks of one server, by name: each message goes to its own, or all to the one of ``name``."""

    def __init__(self, name: str | None, *, kind: str, timeout_s: float) -> None:
        self._name = name
        self._kind = kind
        self._timeout_s = timeout_s
        self._targets: dict[str, SinkTarget] = {}
        self._why_not: dict[str, str] = {}

    @abstractmethod
    def _lacking(self, name: str) -> str:
        """Why nothing can be sent there, as a sentence; asked once for each. Raises SinkError."""

    @abstractmethod
    def _open(self, name: str) -> SinkTarget:
        """What sends there."""

    def _own_headers(self, message: Message) -> Headers:
        """Its headers, without those that its source had made itself."""
        return message.headers

    def _name_of(self, message: Message) -> str:
        return message.topic if self._name is None else self._name

    def destination(self, message: Message) -> str:
        return f"{self._kind} {self._name_of(message)}"

    def obstacle(self, message: Message) -> str:
        name = self._name_of(message)
        if name not in self._why_not:
            self._why_not[name] = self._lacking(name)
        if self._why_not[name] and self._name is not None:
            raise SinkError(self._why_not[name])
        return self._why_not[name]

    def send(self, message: Message, place: Place) -> None:
        name = self._name_of(message)
        if name not in self._targets:
            self._targets[name] = self._open(name)
        self._targets[name].send(message._replace(headers=self._own_headers(message)), place)

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        answers: list[Answer] = []
        for target in self._targets.values():
            answers += target.answers(timeout_s / len(self._targets))
        return answers

    def close(self) -> list[Answer]:
        return [answer for target in self._targets.values() for answer in target.close()]
