"""Letters counted by handler and reason: the first look at what went wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pythia_fast.pool.notes import DIED
from pythia_fast.runtime.dead_letter_form import StoredLetter

By = Literal["reason", "error"]
#: Of a reason by the decoder: where in the payload, or how large, which differs from letter to letter.
_FIGURES = re.compile(r", byte \d+$|(?<= larger than a batch may be) \([^)]*\)")


@dataclass(slots=True)
class Group:
    """Letters of one handler with the same reason or error."""

    handler: str
    why: str
    count: int = 0
    oldest: str = ""  #: RFC 3339
    newest: str = ""
    sources: Counter[tuple[str, int]] = field(default_factory=Counter)  #: letters by (topic, partition)

    def add(self, letter: StoredLetter) -> None:
        """Count one more."""
        self.count += 1
        self.oldest = min(self.oldest or letter.time, letter.time)
        self.newest = max(self.newest, letter.time)
        self.sources[letter.topic, letter.partition] += 1


def _kind(letter: StoredLetter) -> str:
    """What a letter without an exception is."""
    if not letter.reason.startswith(DIED):
        return "(rejected by the handler)"
    how = letter.reason.removeprefix(DIED).strip(" ()")
    return f"(its process {how or 'died'})"


def grouped(letters: Iterable[StoredLetter], by: By) -> list[Group]:
    """The groups, largest first."""
    groups: dict[tuple[str, str], Group] = {}
    for letter in letters:
        why = _FIGURES.sub("", letter.reason) if by == "reason" else letter.error or _kind(letter)
        key = letter.handler, why
        if key not in groups:
            groups[key] = Group(*key)
        groups[key].add(letter)
    return sorted(groups.values(), key=lambda group: (-group.count, group.handler, group.why))
