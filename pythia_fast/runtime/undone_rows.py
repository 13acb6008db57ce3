"""Whose rows an aborted transaction leaves: those of partitions that this run still has are its next run's, the others
are read by whoever has their partitions now. No I/O, no clock, no threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class UndoneRows:
    """Rows of one handler by partition, from the last commit on. A partition index stands for one assignment."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        self._settled: Counter[int] = Counter()  #: in the transaction that is open
        self._undone: Counter[int] = Counter()  #: taken in, and come to nothing

    def assign(self, partitions: Iterable[int]) -> None:
        """These are read."""
        self._ours.update(partitions)

    def forget(self, partitions: Iterable[int]) -> None:
        """They are lost, or taken away."""
        self._ours.difference_update(partitions)

    def settle(self, partition: int, rows: int) -> None:
        """So many rows are in the open transaction."""
        self._settled[partition] += rows

    def committed(self) -> None:
        """The transaction is durable."""
        self._settled.clear()

    def abort(self) -> None:
        """The transaction comes to nothing."""
        self._undone.update(self._settled)
        self._settled.clear()

    def drop(self, partition: int, rows: int) -> None:
        """So many rows were not in it yet, and come to nothing as well."""
        self._undone[partition] += rows

    def rewound(self) -> None:
        """What came to nothing is read again from here on."""
        self._undone.clear()

    @property
    def ours(self) -> int:
        """Rows that came to nothing and are read again by the next run."""
        return sum(rows for partition, rows in self._undone.items() if partition in self._ours)

    @property
    def of_others(self) -> int:
        """Those that are another member's now."""
        return self._undone.total() - self.ours
