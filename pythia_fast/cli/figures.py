"""Figures as people read them."""

from __future__ import annotations

from collections import deque

from pythia_fast.observer import Snapshot


def short(value: float) -> str:
    """Three significant digits with a unit prefix: 4.81 M, 96.4 k, 12."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit * 0.9995:
            scaled = value / limit
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{value:.0f}"


def clock(seconds: float) -> str:
    """Minutes and seconds, hours when there are any: 0:07, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def in_flight(snapshot: Snapshot, between: str) -> str:
    """What is in hand: batches that processes have, and rows that none has, because they wait for a retry."""
    batches = f"{snapshot.batches_in_flight} batches in flight"
    if not snapshot.rows_waiting:
        return batches
    waits = "row waits for its" if snapshot.rows_waiting == 1 else "rows wait for their"
    return f"{batches}{between}{snapshot.rows_waiting:,} {waits} next attempt"


class RateWindow:
    """Rows and bytes a second over the last moments, steady enough to read and quick enough to follow."""

    def __init__(self, span_s: float = 2.0) -> None:
        self._span_s = span_s
        self._seen: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def add(self, snapshot: Snapshot) -> None:
        """Take in the newest state."""
        self._seen.append((snapshot.seconds, snapshot.rows, snapshot.bytes))
        while len(self._seen) > 2 and self._seen[1][0] <= snapshot.seconds - self._span_s:
            self._seen.popleft()

    @property
    def rows_per_second(self) -> float:
        """Rows settled a second, over the window. What an aborted transaction took back is no rate: never below 0."""
        return self._rate(1)

    @property
    def mb_per_second(self) -> float:
        """Payload bytes a second over the window, in units of 10**6."""
        return self._rate(2) / 1e6

    def _rate(self, column: int) -> float:
        oldest, newest = self._seen[0], self._seen[-1]
        seconds = newest[0] - oldest[0]
        return max(0.0, (newest[column] - oldest[column]) / seconds) if seconds > 0 else 0.0
