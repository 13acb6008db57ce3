"""A reader, driven as the intake thread drives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pythia_fast._ext import collecting_sink
from pythia_fast._ext.collecting_sink import CALL, CollectingSink, Incoming
from pythia_fast.brokers.base import Reader, Source
from pythia_fast.brokers.framing import decode_headers
from pythia_fast.testing.readers import RememberingListener, reader_context


class Reading:
    """One reader with its sink and log."""

    def __init__(self, consumer: Source, folder: Path, **context: Any) -> None:
        self.sink = CollectingSink()
        self.listener = RememberingListener()
        self.log: list[str] = []
        given = {"until": "forever", "listener": self.listener, "log": self.log.append} | context
        self.reader: Reader = consumer.open(reader_context(folder, **given))

    @property
    def messages(self) -> list[Incoming]:
        return self.sink.messages

    @property
    def payloads(self) -> list[bytes | None]:
        return self.sink.payloads

    def has_told(self, text: str) -> bool:
        return any(text in line for line in self.log)

    def poll(self, timeout_us: int = 20_000) -> int:
        result = collecting_sink.poll(self.reader.native, self.sink, timeout_us=timeout_us)
        if result == CALL:
            self.reader.serve()
        return result

    def poll_until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{len(self.messages)} messages; {self.log}"
            result = self.poll()
            assert result not in (collecting_sink.END, collecting_sink.FAILED), (
                result,
                self.reader.failure(),
                self.log,
            )

    def poll_to(self, result: int, seconds: float = 60) -> None:
        """Until a poll comes to this."""
        deadline = time.monotonic() + seconds
        while self.poll() != result:
            assert time.monotonic() < deadline, f"{len(self.messages)} messages; {self.log}"

    def commit(self, count: int | None = None) -> None:
        """Everything, or the first so many messages, is done."""
        positions = {message.partition: message.next_offset for message in self.messages[:count]}
        self.reader.commit(positions, wait=True)


def headers(message: Incoming) -> dict[str, bytes | None]:
    return dict(decode_headers(message.headers))
