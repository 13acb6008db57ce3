"""Which letters are meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pythia_fast.errors import ConfigError
from pythia_fast.runtime.dead_letter_form import StoredLetter

_OFFSETS = re.compile(r"(\d{1,19})?\.\.(\d{1,19})?|(\d{1,19})")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a letter must have; None: anything."""

    reason: str | None = None  #: a part of it, whatever the case
    error: str | None = None
    handler: str | None = None
    topic: str | None = None
    partition: int | None = None
    offsets: tuple[int, int | None] | None = None  #: first and last
    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None  #: as text, or as base64 where it is not UTF-8

    def matches(self, letter: StoredLetter) -> bool:
        """Whether the letter has all of it."""
        return (
            (self.handler is None or letter.handler == self.handler)
            and (self.topic is None or letter.topic == self.topic)
            and (self.partition is None or letter.partition == self.partition)
            and (self.error is None or letter.error == self.error)
            and (self.key is None or self.key in (letter.key, letter.key_base64))
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and self._has_offset(letter.offset)
            and self._has_time(letter.time)
        )

    def _has_offset(self, offset: int) -> bool:
        if self.offsets is None:
            return True
        first, last = self.offsets
        return first <= offset and (last is None or offset <= last)

    def _has_time(self, text: str) -> bool:
        if self.since is None and self.until is None:
            return True
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            return False
        time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        return (self.since is None or time >= self.since) and (self.until is None or time <= self.until)


def parse_offsets(text: str) -> tuple[int, int | None]:
    """``10..20`` (both included), ``10..``, ``..20`` or ``10`` as (first, last). Raises ConfigError."""
    found = _OFFSETS.fullmatch(text)
    if found is None or text == "..":
        raise ConfigError(f"--offset {text!r}: write 10..20 (both included), 10.., ..20 or 10")
    first, last, only = found.groups()
    if only is not None:
        return int(only), int(only)
    if first is not None and last is not None and int(last) < int(first):
        raise ConfigError(f"--offset {text!r}: the last offset comes before the first")
    return int(first or 0), None if last is None else int(last)
