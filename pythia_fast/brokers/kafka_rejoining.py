"""Rejoining: when a member leaves its group and joins it again, so that partitions which nobody reads are given out.

A cooperative rebalance has two steps: members give back what others are to have and join again, which begins the second
step, in which it is given out. A static member that is killed between the two and started again has what the first step
left it, without a rebalance, so the second step never comes: the group is stable, and those partitions are nobody's
until somebody joins or leaves.

A group looks the same while a member still has rows in hand of partitions that it gives back. To join again does no
harm then where there is nothing to give back: the rebalance waits for that member as it would have anyway. A member
that has partitions would leave them unread meanwhile, so it waits until nobody may still be giving back.
"""

from __future__ import annotations

import random
from collections.abc import Callable

LOOK_AGAIN_S = 15.0  #: on average, between two looks at partitions that nobody reads
LONGEST_APART_S = 600.0  #: between two times that did not help, unless the session is longer


class Rejoining:
    """Of one member.

    Parameters:
        session_s: after which a member that is silent is no member any more.
        poll_s: for how long a member may give partitions back: ``max.poll.interval.ms``.
        clock: seconds.
        chance: from 0 up to 1; members that look at the same time rarely do so twice.
    """

    def __init__(
        self,
        session_s: float,
        poll_s: float,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._session_s = session_s
        self._patience_s = max(session_s, poll_s)
        self._clock = clock
        self._chance = chance
        self._since_s: float | None = None  #: since when all looks found partitions that nobody reads
        self._not_before_s = clock()
        self.times = 0  #: that this member has joined again and it did not help, as far as it has seen

    def changed(self) -> None:
        """The group has rebalanced: what was seen before counts no more."""
        self._since_s = None

    def helped(self) -> None:
        """A look has found that all partitions are read."""
        self._since_s = None
        self._not_before_s = self._clock()
        self.times = 0

    def rejoined(self) -> None:
        """This member has left its group and joins it again."""
        apart_s = min(self._session_s * 2**self.times, max(self._session_s, LONGEST_APART_S))
        self._not_before_s = self._clock() + apart_s * (1 + self._chance())
        self._since_s = None
        self.times += 1

    def is_first_look(self) -> bool:
        """Whether no look since the last rebalance has found partitions that nobody reads."""
        return self._since_s is None

    def is_due(self, held: int) -> bool:
        """A look has found partitions that nobody reads: whether to join again now. ``held``: what that gives back."""
        now = self._clock()
        if self._since_s is None:
            self._since_s = now
            return False
        return now >= self._not_before_s and (not held or now - self._since_s >= self._patience_s)

    def look_after_s(self) -> float:
        """Until the next look."""
        return LOOK_AGAIN_S * (0.5 + self._chance())

    @property
    def pause_s(self) -> float:
        """Until this member may join again."""
        return max(0.0, self._not_before_s - self._clock())
