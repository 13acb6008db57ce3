"""The watchdog of one handler's processes: ends those that take too long for a batch, or grow too large within one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from pythia_fast._ext.ring import monotonic_ns
from pythia_fast.pool.limits import HARD_FACTOR, own_memory_mb

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.pool.places import Places
    from pythia_fast.registration import Handler

#: From SIGABRT, at which faulthandler tells all stacks, to SIGKILL.
GRACE_S = 1.0
MEMORY_EVERY_S = 0.25


class Watchdog:
    """Looks at the processes of a handler from outside; in the supervisor's thread."""

    def __init__(
        self,
        handler: Handler,
        send: Callable[[int, int], None] = os.kill,
        memory_mb: Callable[[int], float] = own_memory_mb,
    ) -> None:
        self._deadline_s = handler.batch_deadline
        self._max_memory_mb = handler.max_memory_mb
        self._send = send
        self._memory_mb = memory_mb
        self._next_memory = 0.0
        self._kill_at: dict[int, float] = {}  #: pid -> when it is killed that did not end at SIGABRT
        self._reasons: dict[int, str] = {}

    def look(self, now: float, arena: Arena, places: Places) -> None:
        """``now``: time.monotonic(). Signals those that are due."""
        if self._deadline_s is not None:
            self._look_at_time(now, arena, places, self._deadline_s)
        if self._max_memory_mb is not None and now >= self._next_memory:
            self._next_memory = now + MEMORY_EVERY_S
            self._look_at_memory(arena, places, self._max_memory_mb)

    def ended(self, pid: int) -> str | None:
        """Why this process, which is dead, was ended by the watchdog; None: it was not."""
        self._kill_at.pop(pid, None)
        return self._reasons.pop(pid, None)

    def _look_at_time(self, now: float, arena: Arena, places: Places, deadline_s: float) -> None:
        for worker in range(arena.n_workers):
            pid = places.pid_at(worker)
            if pid is None:
                continue
            if pid in self._kill_at:
                if now >= self._kill_at[pid]:
                    self._signal(pid, signal.SIGKILL)
                continue
            began_ns = arena.worker_facts(worker).began_ns
            if began_ns and monotonic_ns() - began_ns > deadline_s * 1e9:
                self._reasons[pid] = f"took longer than batch_deadline={deadline_s:g} s"
                self._kill_at[pid] = now + GRACE_S
                self._signal(pid, signal.SIGABRT)

    def _look_at_memory(self, arena: Arena, places: Places, max_memory_mb: float) -> None:
        for worker in range(arena.n_workers):
            pid = places.pid_at(worker)
            if pid is not None and pid not in self._reasons and self._memory_mb(pid) > max_memory_mb * HARD_FACTOR:
                self._reasons[pid] = f"grew beyond {HARD_FACTOR:g} x max_memory_mb={max_memory_mb:g} within a batch"
                self._signal(pid, signal.SIGKILL)

    def _signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._send(pid, number)
