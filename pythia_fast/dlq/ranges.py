"""Positions that were dealt with, as intervals: few numbers however many letters there are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class Ranges:
    """Half-open intervals, ascending, merged where they touch."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in pairs:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add an interval; it may overlap others. Raises ValueError for an empty one."""
        if start >= end:
            raise ValueError(f"no interval: {start} to {end}")
        first = bisect_left(self._ends, start)
        after = bisect_right(self._starts, end)
        if first < after:
            start = min(start, self._starts[first])
            end = max(end, self._ends[after - 1])
        self._starts[first:after] = [start]
        self._ends[first:after] = [end]

    def cut(self, below: int) -> None:
        """Forget what lies below a position."""
        kept = [(max(start, below), end) for start, end in self.pairs() if end > below]
        self._starts = [start for start, _ in kept]
        self._ends = [end for _, end in kept]

    def pairs(self) -> list[tuple[int, int]]:
        """The intervals as (start, end)."""
        return list(zip(self._starts, self._ends, strict=True))

    def __contains__(self, position: int) -> bool:
        index = bisect_right(self._starts, position) - 1
        return index >= 0 and position < self._ends[index]

    def __bool__(self) -> bool:
        return bool(self._starts)
