"""Dead letters: rows that are given up, with what is needed to understand them and to send them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pythia_fast.brokers.base import Delivery, PublisherContext, Sink
from pythia_fast.brokers.framing import decode_headers, encode_headers, frame_record
from pythia_fast.errors import ConfigError


class DeadLetter(NamedTuple):
    """One row given up."""

    payload: bytes | None
    key: bytes | None
    headers: bytes  #: encoded (brokers/framing.py)
    topic: str  #: where it came from: topic, file, ...
    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    error: str  #: exception type, or empty
    traceback: str
    attempts: int


class DeadLetterWriter:
    """Sends dead letters to ``sink``."""

    def __init__(self, sink: Sink | None, context: PublisherContext) -> None:
        if sink is None:
            raise ConfigError("give the handler dead_letter=")
        self._publisher = sink.open(context)

    def publish(self, letters: Sequence[DeadLetter], ticket: int) -> None:
        records = b"".join(
            frame_record(
                letter.payload,
                letter.key,
                encode_headers([*decode_headers(letter.headers), ("pf-reason", letter.reason.encode())]),
            )
            for letter in letters
        )
        self._publisher.publish(memoryview(records), len(letters), ticket)

    def deliveries(self) -> Sequence[Delivery]:
        return self._publisher.deliveries()

    def trouble(self) -> str | None:
        return self._publisher.trouble()

    def close(self, timeout: float) -> None:
        self._publisher.close(timeout)
