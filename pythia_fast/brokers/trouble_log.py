"""Lines about trouble, of which the same is logged once in a while: a broker may be away for hours."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_S = 30.0  #: before the same trouble is told again
MOST_SUBJECTS = 256  #: remembered; texts of servers may differ each time


class TroubleLog:
    """Tells ``log`` of trouble, unless it was told of the same a moment ago."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._told_at: dict[object, float] = {}  # the one told of last comes last

    def tell(self, line: str, subject: object = None) -> None:
        """Log a line. ``subject``: what it is about, where lines about the same may differ; by default the line."""
        subject = line if subject is None else subject
        now = self._clock()
        if now - self._told_at.get(subject, -QUIET_S) < QUIET_S:
            return
        self._told_at.pop(subject, None)
        self._told_at[subject] = now
        if len(self._told_at) > MOST_SUBJECTS:
            del self._told_at[next(iter(self._told_at))]
        self._log(line)

    def is_told(self, subject: object) -> bool:
        """Whether there was a line about it since it was over."""
        return subject in self._told_at

    def over(self, subject: object) -> None:
        """It is: when it comes again, it is told at once."""
        self._told_at.pop(subject, None)

    def all_over(self) -> bool:
        """All trouble is; whether there was a line about any."""
        told = bool(self._told_at)
        self._told_at.clear()
        return told
