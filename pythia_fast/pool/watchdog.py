"""The watchdog of one handler's processes: ends those that take too long for a batch, for setup() or for teardown(), or
grow too large within a batch."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_fast import outlet
from pythia_fast._ext.ring import monotonic_ns
from pythia_fast._ext.spare import is_up
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
#: Of a process that has reached its limits, whose successor works meanwhile. At the end of a run it is as long.
TEARDOWN_DEADLINE_S = 10.0
#: A setup() that takes so long is told of.
SLOW_SETUP_S = 10.0


@dataclass(slots=True)
class _Setup:
    """A process that is not up."""

    since: float
    told: bool = False


class Watchdog:
    """Looks at the processes of a handler from outside; in the supervisor's thread.

    ``send``: has a signal sent to a process that has not been reaped (``Nursery.signal``). ``tell``: takes a line.
    """

    def __init__(
        self,
        handler: Handler,
        send: Callable[[int, int], None],
        tell: Callable[[str], None],
        memory_mb: Callable[[int], float] = own_memory_mb,
    ) -> None:
        self._name = handler.name
        self._deadline_s = handler.batch_deadline
        self._setup_deadline_s = handler.setup_deadline
        self._max_memory_mb = handler.max_memory_mb
        self._send = send
        self._tell = tell
        self._memory_mb = memory_mb
        self._next_memory = 0.0
        self._kill_at: dict[int, float] = {}  #: pid -> when it is killed, should it not have ended at SIGABRT
        self._reasons: dict[int, str] = {}
        self._setups: dict[int, _Setup] = {}  #: pid
        self._teardowns: dict[int, float] = {}  #: pid -> since when

    def look(self, now: float, arena: Arena, places: Places) -> None:
        """``now``: time.monotonic(). Signals those that are due."""
        self._look_at_setups(now, arena, places)
        for pid, since in self._teardowns.items():
            if now - since > TEARDOWN_DEADLINE_S and pid not in self._reasons:
                self._end(pid, now + GRACE_S, f"was not back from teardown() after {TEARDOWN_DEADLINE_S:g} s")
        if self._deadline_s is not None:
            self._look_at_time(now, arena, places, self._deadline_s)
        if self._max_memory_mb is not None and now >= self._next_memory:
            self._next_memory = now + MEMORY_EVERY_S
            self._look_at_memory(now, arena, places, self._max_memory_mb)
        for pid in [pid for pid, due in self._kill_at.items() if now >= due]:
            del self._kill_at[pid]
            self._send(pid, signal.SIGKILL)

    def tears_down(self, pid: int, now: float) -> None:
        """This process has reached its limits, and runs teardown() from now on."""
        self._teardowns[pid] = now

    def ended(self, pid: int) -> str | None:
        """Why this process, which is dead, was ended by the watchdog; None: it was not."""
        self._kill_at.pop(pid, None)
        self._setups.pop(pid, None)
        self._teardowns.pop(pid, None)
        return self._reasons.pop(pid, None)

    def _look_at_setups(self, now: float, arena: Arena, places: Places) -> None:
        starting = [
            (pid, f"process {worker}")
            for worker in range(arena.n_workers)
            if (pid := places.pid_at(worker)) is not None and not arena.worker_facts(worker).booted
        ]
        starting += [(pid, "a spare process") for spare, pid in places.waiting_spares() if not is_up(arena, spare)]
        self._setups = {pid: self._setups.get(pid) or _Setup(now) for pid, _ in starting}
        deadline_s = self._setup_deadline_s
        for pid, what in starting:
            setup = self._setups[pid]
            took_s = now - setup.since
            if pid in self._reasons:
                continue
            if deadline_s is not None and took_s > deadline_s:
                self._end(
                    pid, now + GRACE_S, f"was still starting (imports, setup()) after setup_deadline={deadline_s:g} s"
                )
            elif took_s > SLOW_SETUP_S and not setup.told:
                setup.told = True
                ends = (
                    f"setup_deadline={deadline_s:g} ends it in {deadline_s - took_s:.0f} s"
                    if deadline_s is not None
                    else "setup_deadline= is None, so nothing ends it"
                )
                self._tell(
                    f"{self._name}: {what} (pid {pid}) has been starting (imports, setup()) for {took_s:.0f} s; "
                    f"{ends} (py-spy dump --pid {pid} says what it does)"
                )

    def _look_at_time(self, now: float, arena: Arena, places: Places, deadline_s: float) -> None:
        for worker in range(arena.n_workers):
            pid = places.pid_at(worker)
            if pid is None or pid in self._reasons:
                continue
            began_ns = arena.worker_facts(worker).began_ns
            if began_ns and monotonic_ns() - began_ns > deadline_s * 1e9:
                why = f" ({nobody})" if (nobody := outlet.unread()) else ""
                self._end(pid, now + GRACE_S, f"took longer than batch_deadline={deadline_s:g} s{why}")

    def _look_at_memory(self, now: float, arena: Arena, places: Places, max_memory_mb: float) -> None:
        for worker in range(arena.n_workers):
            pid = places.pid_at(worker)
            if pid is None or pid in self._reasons or not arena.worker_facts(worker).booted:
                continue  # what setup() takes is looked at behind it
            if self._memory_mb(pid) > max_memory_mb * HARD_FACTOR:
                reason = f"grew beyond {HARD_FACTOR:g} x max_memory_mb={max_memory_mb:g} within a batch"
                self._end(pid, now + GROWING_GRACE_S, reason)

    def _end(self, pid: int, kill_at: float, reason: str) -> None:
        self._reasons[pid] = reason
        self._kill_at[pid] = kill_at
        self._send(pid, signal.SIGABRT)
