"""Messages into a file: their payloads, by the sink that runs write files with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pythia_fast.brokers.base import Delivery, Publisher
from pythia_fast.brokers.file_sink import FileProducer, FilePublisher
from pythia_fast.brokers.framing import frame_record
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.target import Answer, RequeueTarget
from pythia_fast.errors import SinkError
from pythia_fast.private import PRIVATE_MODE

BATCH_MESSAGES = 500  #: that share one write and one fsync


class FileTarget(RequeueTarget):
    """Appends to a file; keys and headers have no place there. The file is opened when something is sent."""

    def __init__(self, path: Path, form: Literal["ndjson", "msgpack-frames"]) -> None:
        self._producer = FileProducer(path, format=form)
        self._publisher: Publisher | None = None
        self._waiting: list[tuple[bytes, Place]] = []
        self._sent: dict[int, list[Place]] = {}  # by ticket
        self._tickets = 0

    def destination(self, message: Message) -> str:
        return self._producer.describe()

    def send(self, message: Message, place: Place) -> None:
        self._waiting.append((frame_record(message.payload), place))
        if len(self._waiting) >= BATCH_MESSAGES:
            self._publish()

    def _publish(self) -> None:
        if self._publisher is None:
            self._publisher = FilePublisher(self._producer, lambda line: None, PRIVATE_MODE)
        self._tickets += 1
        self._sent[self._tickets] = [place for _, place in self._waiting]
        records = b"".join([record for record, _ in self._waiting])
        self._publisher.publish(memoryview(records), len(self._waiting), self._tickets)
        self._waiting = []

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        if timeout_s > 0 and self._waiting:
            self._publish()
        if self._publisher is None:
            return []
        answers: list[Answer] = []
        for delivery in self._publisher.deliveries(timeout_s):
            answers += self._answers(delivery)
        trouble = self._publisher.trouble()
        if trouble is not None and not answers:
            raise SinkError(trouble.partition(";")[0])
        return answers

    def close(self) -> list[Answer]:
        publisher, self._publisher = self._publisher, None
        if publisher is None:
            return []
        publisher.close(5.0)
        answers: list[Answer] = []
        for delivery in publisher.deliveries():
            answers += self._answers(delivery)
        return answers

    def _answers(self, delivery: Delivery) -> list[Answer]:
        refused = {record.index: record.reason for record in delivery.failed}
        return [Answer(place, refused.get(index, "")) for index, place in enumerate(self._sent.pop(delivery.ticket))]
