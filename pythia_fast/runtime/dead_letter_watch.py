"""DeadLetterWatch: closes a gate when too many of a handler's rows are given up. Pure: the caller tells the time.

open      rows settled in the last `window` seconds are counted; beyond the limit the gate closes
closed    what is in hand is finished, and counts for nothing
probing   the first batch that was begun after the probe decides alone
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pythia_fast.runtime.gate import Gate

if TYPE_CHECKING:
    from pythia_fast.dead_letter_limit import DeadLetterLimit

#: Parts of the window that rows are counted in: a part leaves it as a whole.
WINDOW_PARTS = 60


class DeadLetterWatch:
    """The rows of one handler that were settled lately, and the gate that they close."""

    def __init__(self, limit: DeadLetterLimit, *, bounded: bool) -> None:
        self.gate = Gate(limit.pause_s, limit.max_pause_s, limit.probes if bounded else None)
        self._limit = limit
        self._part_s = limit.window_s / WINDOW_PARTS
        self._parts: deque[list[float]] = deque()  #: [its end, rows, rows given up]
        self._rows = 0
        self._given_up = 0
        self._probe_from_s = 0.0

    def begin_probe(self, now_s: float) -> bool:
        """Begin to probe if the pause is over; whether it was."""
        if not self.gate.begin_probe(now_s):
            return False
        self._probe_from_s = now_s
        return True

    def settled(self, now_s: float, rows: int, given_up: int, begun_s: float) -> None:
        """A batch that was begun at ``begun_s`` is settled, so many of its rows given up."""
        if self.gate.state == "open":
            self._count(now_s, rows, given_up)
            if self._rows >= self._limit.min_rows and self._given_up > self._limit.ratio * self._rows:
                within = f"the last {self._rows:,} rows settled within {self._limit.window_s:g} s"
                self.gate.close(now_s, self._beyond(self._given_up, self._rows, within))
        elif self.gate.state == "probing" and begun_s >= self._probe_from_s and rows:
            if given_up > self._limit.ratio * rows:
                self.gate.close(now_s, self._beyond(given_up, rows, f"{rows:,} rows that were tried"))
            else:
                self._parts.clear()
                self._rows = self._given_up = 0
                self.gate.reopen(now_s)

    def _beyond(self, given_up: int, rows: int, of: str) -> str:
        share, limit = given_up / rows, self._limit.ratio
        return f"{given_up:,} of {of} were given up ({share:.0%}), more than dead_letter_limit allows ({limit:.0%})"

    def _count(self, now_s: float, rows: int, given_up: int) -> None:
        while self._parts and self._parts[0][0] + self._limit.window_s <= now_s:
            _, old_rows, old_given_up = self._parts.popleft()
            self._rows -= int(old_rows)
            self._given_up -= int(old_given_up)
        if not self._parts or self._parts[-1][0] <= now_s:
            self._parts.append([now_s + self._part_s, 0, 0])
        self._parts[-1][1] += rows
        self._parts[-1][2] += given_up
        self._rows += rows
        self._given_up += given_up
