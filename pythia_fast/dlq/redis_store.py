"""Dead letters in a Redis stream: entries with the payload, the key, and a field for each header, pf-* among them.

A letter that was dealt with is deleted (XDEL). Entries are read a page at a time, from the first to the one that is the
last when reading begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from pythia_fast.brokers.framing import Headers
from pythia_fast.brokers.redis_client import RedisServer
from pythia_fast.dlq.claims import one_command
from pythia_fast.dlq.fields import Fields
from pythia_fast.dlq.redis_asking import RedisAsking
from pythia_fast.dlq.store import DeadLetterStore, Entry, Place
from pythia_fast.errors import ConfigError, SinkError, SourceError
from pythia_fast.runtime.dead_letter_form import StoredLetter, letter_of_record

PAGE_ENTRIES = 100  #: of one XRANGE at most
PAGE_BYTES = 8 << 20  #: that a page should not exceed, by the largest entry seen
DELETED_AT_ONCE = 1000
_SEQUENCE_BITS = 64


class RedisStore(DeadLetterStore):
    """One stream. ``entry``: the id of the one entry that is meant; None: all.

    ``may_lack``: a stream that is not there has no letters, as that of an app that has not given up any yet.
    """

    kind = "redis"
    settles_in_parts = True

    def __init__(
        self,
        stream: str,
        server: RedisServer,
        *,
        state_dir: Path,
        fields: Fields = Fields(),  # noqa: B008  # immutable
        entry: str | None = None,
        may_lack: bool = False,
    ) -> None:
        self._stream = stream
        self._server = server
        self._state_dir = state_dir
        self._payload_field = fields.payload.encode()
        self._key_field = fields.key.encode()
        self._entry = None if entry is None else parse_id(entry)
        self._may_lack = may_lack
        self._asking = RedisAsking(server, stream, SourceError)
        self._read = self._total = 0

    def lies_at(self, stream: str, server: RedisServer) -> bool:
        """Whether this is the stream, as far as can be told without asking."""
        return stream == self._stream and server.database == self._server.database

    def describe(self) -> str:
        return f"redis stream {self._stream}"

    def locate(self, place: Place) -> str:
        return f"{self.describe()}, entry {spell_id(place.start)}"

    def describe_foreign(self) -> str:
        if not self.foreign:
            return ""
        where = (
            f"of {self.describe()} without pf-* fields, or without a payload in field {self._payload_field.decode()!r}"
        )
        if self.foreign == 1:
            return f"1 entry {where} is no dead letter, and left alone"
        return f"{self.foreign:,} entries {where} are no dead letters, and left alone"

    def entries(self) -> Iterator[Entry]:
        self.foreign = self._read = self._total = 0
        if not self._asking.is_there(self._stream):
            if self._may_lack:
                return
            raise SourceError(self._asking.missing(self._stream))
        if self._entry is not None:
            start = end = self._entry
            self._total = 1
        else:
            self._total = self._asking.ask("XLEN", self._stream)
            last = self._asking.ask("XREVRANGE", self._stream, "+", "-", "COUNT", 1)
            if not last:
                return
            start, end = 0, parse_id(last[0][0].decode())
        largest = 1
        while start <= end:
            count = max(1, min(PAGE_ENTRIES, PAGE_BYTES // largest))
            page = self._asking.ask("XRANGE", self._stream, spell_id(start), spell_id(end), "COUNT", count)
            for name, fields in page or ():
                largest = max(largest, sum(map(len, fields or ())))
                at = parse_id(name.decode())
                start = at + 1
                self._read += 1
                stored = self._letter(fields or ())
                if stored is None:
                    self.foreign += 1
                else:
                    yield Entry(stored, Place(0, at, start))
            if not page:
                return

    def _letter(self, fields: Sequence[bytes]) -> StoredLetter | None:
        """As RedisStreamsProducer writes it: the payload first, then the key where there is one, then the headers."""
        if not fields or fields[0] != self._payload_field:
            return None
        payload, rest = fields[1], fields[2:]
        key = None
        if rest and rest[0] == self._key_field:
            key, rest = rest[1], rest[2:]
        pairs = zip(rest[::2], rest[1::2], strict=True)
        headers: Headers = [(name.decode("utf-8", "surrogateescape"), value) for name, value in pairs]
        return letter_of_record(payload, key, headers)

    def progress(self) -> tuple[int, int]:
        return self._read, max(self._read, self._total)

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        what = f"redis stream {self._stream} at {self._server.name}"
        with one_command(self._state_dir, f"redis@{self._server.name}@{self._stream}", what):
            try:
                yield
            finally:
                self.close()

    def settle(self, places: Iterable[Place], *, archive: bool) -> list[str]:
        names = (spell_id(place.start) for place in places)
        while some := list(islice(names, DELETED_AT_ONCE)):
            self._asking.ask("XDEL", self._stream, *some, kind=SinkError)
        return []

    def close(self) -> None:
        self._asking.close()


def parse_id(text: str) -> int:
    """An entry's id as one number, in the order of the ids. Raises ConfigError."""
    first, dash, second = text.partition("-")
    parts = (first, second) if dash else (first, "0")
    if not all(part.isascii() and part.isdigit() and int(part) < 1 << _SEQUENCE_BITS for part in parts):
        raise ConfigError(f"--entry {text!r}: write the id of an entry, as show gives it: 1526919030474-0")
    return int(parts[0]) << _SEQUENCE_BITS | int(parts[1])


def spell_id(number: int) -> str:
    """The id again."""
    return f"{number >> _SEQUENCE_BITS}-{number & (1 << _SEQUENCE_BITS) - 1}"
