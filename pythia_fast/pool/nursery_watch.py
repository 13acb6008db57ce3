"""Whether the pool's parent answers: one that is stopped, or waits for something, makes no successor."""

from __future__ import annotations

from collections.abc import Callable

from pythia_fast.pool.nursery import Nursery, is_stopped
from pythia_fast.routine import Routine

PING_EVERY_S = 1.0
#: The pool's parent does nothing but fork: one that does not answer for so long is told of.
SILENCE_S = 10.0


class NurseryWatch:
    """Has it answer now and then, and tells when it does not. Used by one thread."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._next_ping = 0.0
        self._silent = False  #: it was told that the nursery does not answer

    def followed(self) -> None:
        """Another one has its place."""
        self._silent = False

    def look(self, now: float, nursery: Nursery) -> None:
        """``now``: time.monotonic()."""
        if now < self._next_ping:
            return
        self._next_ping = now + PING_EVERY_S
        silent_s, pid = nursery.ping(now), nursery.pid
        if silent_s >= SILENCE_S and not self._silent:
            self._silent = True
            why = (
                f"it was stopped by a signal (kill -CONT {pid} has it go on)"
                if is_stopped(pid)
                else f"see what it does (py-spy dump --pid {pid})"
            )
            self._log(
                f"the pool's parent process {pid} does not answer for {silent_s:.0f} s: {why}. Batches go on, but a "
                "process that dies now is not replaced, and none is ended by a deadline"
            )
        elif silent_s < SILENCE_S and self._silent:
            self._silent = False
            self._log(Routine(f"the pool's parent process {pid} answers again"))
