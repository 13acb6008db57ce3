"""The account of a drill: positions that went in, against results and dead letters that came out.

A row is known by its position, one number: partition and offset (a byte offset in a file). Nothing here knows where
the positions come from, or which fault there was.

| came out as a result | as a dead letter | the row is    |
|----------------------|------------------|---------------|
| once                 | never            | out           |
| never                | once             | dead-lettered |
| never                | never            | lost          |
| more than once in all                   || duplicated    |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

OFFSET_BITS = 48
_OFFSETS = (1 << OFFSET_BITS) - 1

Keys = npt.NDArray[np.int64]


def keys_of(partitions: npt.NDArray[Any] | int, offsets: npt.NDArray[Any]) -> Keys:
    """Positions as one number each."""
    keys: Keys = (np.asarray(partitions, np.int64) << OFFSET_BITS) | np.asarray(offsets, np.int64)
    return keys


def position_of(key: int) -> tuple[int, int]:
    """(partition, offset) of a key."""
    return key >> OFFSET_BITS, key & _OFFSETS


def position_text(key: int) -> str:
    """A position as a person reads it."""
    partition, offset = position_of(key)
    return f"partition {partition} offset {offset:,}"


@dataclass(frozen=True)
class Account:
    """What became of the rows."""

    rows_in: int
    rows_out: int  #: results that came out, repeated ones too
    dead_lettered: int  #: dead letters, repeated ones too
    lost: Keys  #: sorted
    duplicated: Keys  #: sorted, each once however often it came
    repeats: int  #: results and dead letters beyond the first of their rows
    foreign: Keys  #: results and dead letters of rows that never went in

    @property
    def settled(self) -> bool:
        """Every row that went in came out, at least once."""
        return not len(self.lost)


def balance(inputs: Iterable[int] | Keys, outputs: Iterable[int] | Keys, letters: Iterable[int] | Keys) -> Account:
    """Count every row.

    Parameters:
        inputs: keys of the rows that went in, each once.
        outputs: a key for each result.
        letters: a key for each dead letter.
    """
    known = np.unique(_array(inputs))
    out, dead = _array(outputs), _array(letters)
    came = np.concatenate([out, dead])
    at = np.searchsorted(known, came)
    is_known = np.zeros(len(came), np.bool_)
    inside = at < len(known)
    is_known[inside] = known[at[inside]] == came[inside]
    times = np.bincount(at[is_known], minlength=len(known))
    return Account(
        rows_in=len(known),
        rows_out=int(is_known[: len(out)].sum()),
        dead_lettered=int(is_known[len(out) :].sum()),
        lost=known[times == 0],
        duplicated=known[times > 1],
        repeats=int((times[times > 1] - 1).sum()),
        foreign=np.unique(came[~is_known]),
    )


def _array(keys: Iterable[int] | Keys) -> Keys:
    return keys if isinstance(keys, np.ndarray) else np.fromiter(keys, np.int64)
