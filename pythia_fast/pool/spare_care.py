"""When spares are made again after one that failed, and what is told of it. Pure: the caller tells the time.

Without spares the run goes on, and successors are made when they are needed. So a spare that cannot start is tried
again for ever, at growing intervals, and told of once until one is up.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 60.0
#: Without a failure, after which the next one is waited for as the first one was.
FORGET_S = 60.0


@dataclass(slots=True)
class SpareCare:
    """Of one handler's spares."""

    _wait_s: float = 0.0
    _failed_s: float = float("-inf")
    _told: bool = False

    def failed(self, now_s: float) -> bool:
        """One failed at ``now_s``; whether that is to be told."""
        fresh = now_s - self._failed_s > self._wait_s + FORGET_S
        self._wait_s = FIRST_WAIT_S if fresh or not self._wait_s else min(2 * self._wait_s, LONGEST_WAIT_S)
        self._failed_s = now_s
        told, self._told = self._told, True
        return not told

    def may_launch(self, now_s: float) -> bool:
        """Whether another one is to be made."""
        return now_s >= self._failed_s + self._wait_s

    def up(self) -> bool:
        """One is up; whether that is to be told."""
        told, self._told = self._told, False
        return told
