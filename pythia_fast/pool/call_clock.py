"""CallClock: how long the call in hand lasts, for the supervisor, which ends one that exceeds ``batch_deadline``.

The user's code runs on when the handler is back: a lazy table is read and objects are encoded, exceptions are compared
and made into text, the result and the frames are given up. Any of it may hang. So the clock goes until the next call
begins or the batch is done, and stands only while the process decodes or waits for room for its output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena


class CallClock:
    """Of one pool process, in a word of its place in the arena. ``watched``: somebody looks at it."""

    def __init__(self, arena: Arena, worker: int, *, watched: bool) -> None:
        self._arena = arena
        self._worker = worker
        self._watched = watched

    def start(self) -> None:
        """From zero: what comes now may be the user's code."""
        if self._watched:
            self._arena.call_begins(self._worker)

    def stop(self) -> None:
        """What comes now is not."""
        if self._watched:
            self._arena.call_ends(self._worker)
