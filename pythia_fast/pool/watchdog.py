"""The watchdog of one handler's processes: ends those that take too long for a batch, or grow too large within one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from pythia_fast._ext.ring import monotonic_ns
from pythia_fast.pool.limits import HARD_FACTOR, own_memory_mb

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.pool.places import Places
    from pythia_fast.registration import Handler

#: From SIGABRT, at which faulthandler tells all stacks, to SIGKILL. One that grows may take the machine's memory
#: meanwhile, so it gets less.
GRACE_S = 1.0
GROWING_GRACE_S = 0.2
MEMORY_EVERY_S = 0.25


class Watchdog:
    """Looks at the processes of a handler from outside; in the supervisor's thread.

    ``send``: has a signal sent to a process that has not been reaped (``Nursery.signal``).
    """

    def __init__(
        self,
        handler: Handler,
        send: Callable[[int, int], None],
        memory_mb: Callable[[int], float] = own_memory_mb,
    ) -> None:
        self._deadline_s = handler.batch_deadline
        self._max_memory_mb = handler.max_memory_mb
        self._send = send
        self._memory_mb = memory_mb
        self._next_memory = 0.0
        self._kill_at: dict[int, float] = {}  #: pid -> when it is killed, should it not have ended at SIGABRT
        self._reasons: dict[int, str] = {}

    def look(self, now: float, arena: Arena, places: Places) -> None:
        """``now``: time.monotonic(). Signals those that are due."""
        if self._deadline_s is not None:
            self._look_at_time(now, arena, places, self._deadline_s)
        if self._max_memory_mb is not None and now >= self._next_memory:
            self._next_memory = now + MEMORY_EVERY_S
            self._look_at_memory(now, arena, places, self._max_memory_mb)
        for pid in [pid for pid, due in self._kill_at.items() if now >= due]:
            del self._kill_at[pid]
            self._send(pid, signal.SIGKILL)

    def ended(self, pid: int) -> str | None:
        """Why this process, which is dead, was ended by the watchdog; None: it was not."""
        self._kill_at.pop(pid, None)
        return self._reasons.pop(pid, None)

    def _look_at_time(self, now: float, arena: Arena, places: Places, deadline_s: float) -> None:
        for worker in range(arena.n_workers):
            pid = places.pid_at(worker)
            if pid is None or pid in self._reasons:
                continue
            began_ns = arena.worker_facts(worker).began_ns
            if began_ns and monotonic_ns() - began_ns > deadline_s * 1e9:
                self._end(pid, now + GRACE_S, f"took longer than batch_deadline={deadline_s:g} s")

    def _look_at_memory(self, now: float, arena: Arena, places: Places, max_memory_mb: float) -> None:
        for worker in range(arena.n_workers):
            pid = places.pid_at(worker)
            if pid is not None and pid not in self._reasons and self._memory_mb(pid) > max_memory_mb * HARD_FACTOR:
                reason = f"grew beyond {HARD_FACTOR:g} x max_memory_mb={max_memory_mb:g} within a batch"
                self._end(pid, now + GROWING_GRACE_S, reason)

    def _end(self, pid: int, kill_at: float, reason: str) -> None:
        self._reasons[pid] = reason
        self._kill_at[pid] = kill_at
        self._send(pid, signal.SIGABRT)
