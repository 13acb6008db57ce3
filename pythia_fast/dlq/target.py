"""What a place that messages are sent back to must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from pythia_fast.dlq.original import Message
from pythia_fast.dlq.store import Place


class Answer(NamedTuple):
    """What became of one message."""

    place: Place  #: of the letter that it came from
    refused: str = ""  #: why it was not taken; empty: it is durable there


class RequeueTarget(ABC):
    """Where messages go. Closed after use, whatever happened."""

    @abstractmethod
    def destination(self, message: Message) -> str:
        """Where this message goes, as a short phrase: ``kafka topic orders``."""

    def obstacle(self, message: Message) -> str:
        """Why this message cannot go anywhere, as a sentence, or nothing."""
        return ""

    @abstractmethod
    def send(self, message: Message, place: Place) -> None:
        """Start to send. Raises SinkError when the target cannot go on."""

    @abstractmethod
    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        """Those that came since the last call; waits up to ``timeout_s`` for one. Raises SinkError."""

    @abstractmethod
    def close(self) -> list[Answer]:
        """Send nothing more of what waits, and close; answers that came meanwhile. May be called twice."""


class DryRun(RequeueTarget):
    """Says where another target would send, and sends nothing."""

    def __init__(self, target: RequeueTarget) -> None:
        self._target = target
        self._answers: list[Answer] = []

    def destination(self, message: Message) -> str:
        return self._target.destination(message)

    def obstacle(self, message: Message) -> str:
        return self._target.obstacle(message)

    def send(self, message: Message, place: Place) -> None:
        self._answers.append(Answer(place))

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> list[Answer]:
        return [*self.answers(), *self._target.close()]
