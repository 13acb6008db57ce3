"""DeadLetterWatch: closes a gate when too many of a handler's rows are given up. Pure: the caller tells the time.

open      rows settled in the last `window` seconds are counted; beyond the limit the gate closes
closed    what is in hand is finished, and counts for nothing
probing   the first batch that was begun since then decides alone, once the rows of it that wait can change nothing more
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
        self.last_reason = ""  #: for which a row was given up last, in a line
        self._limit = limit
        self._part_s = limit.window_s / WINDOW_PARTS
        self._parts: deque[list[float]] = deque()  #: [its end, rows, rows given up]
        self._rows = 0
        self._given_up = 0
        self._probe_from_s = 0.0
        self._probe_begun_s: float | None = None  #: the batch that decides, which nothing else tells from others
        self._probe_rows = 0
        self._probe_given_up = 0

    def begin_probe(self, now_s: float) -> bool:
        """Begin to probe if the pause is over; whether it was."""
        if not self.gate.begin_probe(now_s):
            return False
        self._probe_from_s = now_s
        self.forget_probe()
        return True

    def forget_probe(self) -> None:
        """The batch that was to decide came to nothing, or there was none: another one does."""
        self._probe_begun_s = None
        self._probe_rows = self._probe_given_up = 0

    def keeps_apart(self, begun_s: float) -> bool:
        """Whether rows of a batch that was begun then must not wait with those of others: nobody could tell them from
        the rows that decide."""
        if self.gate.state != "probing":
            return False
        return self._probe_begun_s is not None or begun_s >= self._probe_from_s

    def settled(self, now_s: float, rows: int, given_up: int, begun_s: float, left: int = 0) -> None:
        """Rows of a batch that was begun at ``begun_s`` are settled, so many of them given up; ``left`` others wait.

        A batch without any, of tombstones that were skipped, says nothing and is no probe.
        """
        if self.gate.state == "open" and rows:
            self._count(now_s, rows, given_up)
            if self._rows >= self._limit.min_rows and self._given_up > self._limit.ratio * self._rows:
                within = f"the last {self._rows:,} rows settled within {self._limit.window_s:g} s"
                self.gate.close(now_s, self._beyond(self._given_up, self._rows, within))
        elif self.gate.state == "probing" and begun_s >= self._probe_from_s and (rows or left):
            self._weigh(now_s, rows, given_up, begun_s, left)

    def _weigh(self, now_s: float, rows: int, given_up: int, begun_s: float, left: int) -> None:
        """Decide by the probe, if this is of it, and if what becomes of the rows that are left makes no difference."""
        if self._probe_begun_s is None:
            self._probe_begun_s = begun_s
        if begun_s != self._probe_begun_s:
            return
        self._probe_rows += rows
        self._probe_given_up += given_up
        tried = self._probe_rows + left
        if self._probe_given_up > self._limit.ratio * tried:
            self.gate.close(now_s, self._beyond(self._probe_given_up, tried, f"{tried:,} rows that were tried"))
        elif self._probe_given_up + left <= self._limit.ratio * tried:
            self._parts.clear()
            self._rows = self._given_up = 0
            self.gate.reopen(now_s)

    def _beyond(self, given_up: int, rows: int, of: str) -> str:
        share, limit = given_up / rows, self._limit.ratio
        beyond = f"{given_up:,} of {of} were given up ({share:.0%}), more than dead_letter_limit allows ({limit:.0%})"
        return f"{beyond}; the last one: {self.last_reason}" if self.last_reason else beyond

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
