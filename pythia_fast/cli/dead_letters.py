"""The messages in a file of dead letters, as they came from their source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pythia_fast.brokers.framing import decode_headers
from pythia_fast.brokers.memory import MemoryMessage
from pythia_fast.errors import SourceError
from pythia_fast.runtime.dead_letter import read_dead_letters


class LetterMessages:
    """Payload, key, headers and timestamp of each message that the file held when this was made.

    A record of a sink that refused it is a dead letter too, but no message of the source: the handler made it.
    Those are left out, and counted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self.left_out = 0

    def __iter__(self) -> Iterator[MemoryMessage]:
        """Raises SourceError where the file holds something else."""
        self.left_out = 0
        for number, stored in enumerate(read_dead_letters(self._path, self._size), 1):
            try:
                letter = stored.letter()
                headers = decode_headers(letter.headers)
            except ValueError as error:
                raise SourceError(f"dead letter {number} of {self._path} cannot be unpacked: {error}") from None
            if letter.offset < 0:
                self.left_out += 1
                continue
            timestamp_ms = letter.timestamp_ms if letter.timestamp_ms >= 0 else None
            yield MemoryMessage(letter.payload, letter.key, headers, timestamp_ms=timestamp_ms)
