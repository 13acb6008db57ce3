"""Messages back to where they came from, which is a Kafka topic or no place that takes them back."""

from __future__ import annotations

import re
from collections.abc import Callable

from pythia_fast.brokers.named_files import STDIN
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.target import Answer, RequeueTarget

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class OriginTarget(RequeueTarget):
    """``open_kafka``: gives what sends each to its own topic; called when the first is met that may have one."""

    def __init__(self, open_kafka: Callable[[], RequeueTarget]) -> None:
        self._open_kafka = open_kafka
        self._opened: RequeueTarget | None = None

    @property
    def _kafka(self) -> RequeueTarget:
        if self._opened is None:
            self._opened = self._open_kafka()
        return self._opened

    def destination(self, message: Message) -> str:
        return self._kafka.destination(message)

    def obstacle(self, message: Message) -> str:
        topic = message.topic
        if topic == STDIN:
            origin = "standard input"
        elif topic.startswith("/"):
            origin = f"file {topic}"
        elif not _TOPIC_NAME.fullmatch(topic):
            origin = topic
        else:
            return self._kafka.obstacle(message)
        return f"they came from {origin}, not from a Kafka topic: say where to with --to-file FILE or --to-topic TOPIC"

    def send(self, message: Message, place: Place) -> None:
        self._kafka.send(message, place)

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        return self._opened.answers(timeout_s) if self._opened is not None else []

    def close(self) -> list[Answer]:
        return self._opened.close() if self._opened is not None else []
