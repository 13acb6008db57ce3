"""The supervisor: launches pool processes, notices at once when one dies, and decides whether to go on.

It runs in the engine's watching thread: the nursery reaps a process and says so, which ends the wait. What the dead
process held is handed on by the completion thread, which then asks for the successor: a spare that waits, or a process
made now. The supervisor also ends processes that take too long or grow too large.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pythia_fast._ext import spare as spare_words
from pythia_fast.errors import PoolError
from pythia_fast.pool.limits import EXIT_RECYCLED, Recycled
from pythia_fast.pool.messages import BootFailed, Died, Launched, Message, TeardownFailed
from pythia_fast.pool.nursery import EXIT_BOOT_FAILED, Nursery
from pythia_fast.pool.obituary import Obituary, describe_status
from pythia_fast.pool.places import Places
from pythia_fast.pool.restart_budget import Death, RestartBudget
from pythia_fast.pool.watchdog import Watchdog

if TYPE_CHECKING:
    from pythia_fast.runtime.handler_run import HandlerRun
    from pythia_fast.runtime.shutdown import StopRequest

#: Lines of teardown()'s traceback that are told: the place and the error stand last.
TEARDOWN_LINES = 6
#: Spares are made this long after the pool is up: the start has enough to do.
SPARES_AFTER_S = 1.0
#: Until a successor follows one whose setup() raised: twice as long each time. The restart budget is spent within half
#: a minute; then the handler is paused.
FIRST_SETUP_WAIT_S, LONGEST_SETUP_WAIT_S = 0.1, 2.0


class Supervisor:
    """Keeps every place of every handler's pool filled."""

    def __init__(self, nursery: Nursery, runs: Sequence[HandlerRun], log: Callable[[str], None]) -> None:
        self._nursery = nursery
        self._runs = runs
        self._log = log
        self._stopping = False
        self._budgets = [RestartBudget.of(run.handler.dead_letter_limit) for run in runs]
        self._spare_budgets = [RestartBudget() for _ in runs]
        self._places = [Places(run.workers, run.handler.spares, run.arena.n_spares) for run in runs]
        self._changing = threading.Lock()  #: the places, between this thread and those that ask for successors
        self._spares_from_s = float("inf")
        self._watchdogs = [Watchdog(run.handler, nursery.signal) for run in runs]
        self._recycled = [Recycled() for _ in runs]
        self._setups_failed = [0 for _ in runs]  #: one after the other
        self._later: list[tuple[float, int, int]] = []  #: (when, pool, place) of successors; as the places

    def processes(self) -> list[tuple[str, int]]:
        """(name, pid) of the nursery and of every pool process."""
        found = [("nursery", self._nursery.pid)]
        for run, places in zip(self._runs, self._places, strict=True):
            with self._changing:
                held = places.processes()
            if len(self._runs) > 1:
                held = [(f"{run.handler.name} {name.removeprefix('worker ')}", pid) for name, pid in held]
            found += held
        return found

    def launch(self, pool: int, worker: int) -> None:
        """Fill this place: with a spare that is up, or a process made now. Any thread."""
        if self._stopping:
            return
        failed = self._setups_failed[pool]
        if self._seat_spare(pool, worker):
            self._launch_spares(self._runs[pool])
        elif failed:
            wait_s = min(FIRST_SETUP_WAIT_S * 2.0 ** (failed - 1), LONGEST_SETUP_WAIT_S)
            with self._changing:
                self._later.append((time.monotonic() + wait_s, pool, worker))
        else:
            self._nursery.launch(pool, worker)

    def _seat_spare(self, pool: int, worker: int) -> bool:
        """Give the place to a spare that is up, if there is one."""
        arena, places = self._runs[pool].arena, self._places[pool]
        with self._changing:
            for spare, pid in places.waiting_spares():
                if spare_words.is_up(arena, spare):
                    places.seated(pid, worker)
                    spare_words.seat(arena, spare, worker)
                    return True
        return False

    def launch_all(self, timeout: float, stop: StopRequest) -> bool:
        """Launch every place and wait until each has run its ``setup()``; False: ``stop`` was asked for meanwhile.

        Raises PoolError with the traceback of one that cannot start.
        """
        for run in self._runs:
            for worker in range(run.workers):
                self.launch(run.pool, worker)
        deadline = time.monotonic() + timeout
        while not all(run.booted() for run in self._runs):
            if stop.asked:
                return False
            if time.monotonic() > deadline:
                raise PoolError(
                    f"the pool was not up after {timeout:.0f} seconds: setup() of a handler does not return"
                )
            for message in self._nursery.receive(0.005):
                self._take(message)
        self._spares_from_s = time.monotonic() + SPARES_AFTER_S
        return True

    def serve(self, timeout: float) -> None:
        """Handle what the nursery has to say, waiting up to ``timeout`` seconds for it."""
        for message in self._nursery.receive(timeout):
            self._take(message)
        now = time.monotonic()
        with self._changing:
            due = [(pool, worker) for when, pool, worker in self._later if when <= now]
            self._later = [later for later in self._later if later[0] > now]
        for pool, worker in due:
            self._nursery.launch(pool, worker)
        if now >= self._spares_from_s:
            for run in self._runs:
                self._launch_spares(run)
        for run, places, watchdog in zip(self._runs, self._places, self._watchdogs, strict=True):
            with self._changing:
                watchdog.look(now, run.arena, places)

    def _launch_spares(self, run: HandlerRun) -> None:
        """Ask for those that are missing. Any thread."""
        places = self._places[run.pool]
        with self._changing:
            # A seat whose word says that somebody is up there is that of one who has not noticed its place yet.
            vacant = [spare for spare in places.vacant_seats() if not spare_words.is_up(run.arena, spare)]
            wanted = vacant[: places.missing_spares]
            for spare in wanted:
                spare_words.prepare(run.arena, spare)
                places.asked(spare)
        for spare in wanted:
            self._nursery.launch(run.pool, places.seat_of(spare))

    def stop_all(self, timeout: float) -> None:
        """Tell every process to leave and wait for it; the nursery kills what is left when it is closed."""
        self._stopping = True
        for run in self._runs:
            for worker in range(run.workers):
                run.arena.stop_worker(worker)
            for spare in range(run.arena.n_spares):
                spare_words.dismiss(run.arena, spare)
        deadline = time.monotonic() + timeout
        while any(self._places) and time.monotonic() < deadline:
            for message in self._nursery.receive(0.05):
                if isinstance(message, Launched):
                    self._launched(message)
                elif isinstance(message, Died):
                    self._left(message)
                elif isinstance(message, TeardownFailed):
                    self._teardown_failed(message)
        for name, pid in self.processes()[1:]:
            self._log(f"{name} (pid {pid}) did not leave in {timeout:.0f} s and is killed")

    @staticmethod
    def raise_if_boot_failed(message: Message) -> None:
        if isinstance(message, BootFailed):
            raise PoolError(f"a pool process could not start:\n{message.traceback.rstrip()}")

    def _take(self, message: Message) -> None:
        if isinstance(message, BootFailed) and message.worker >= 0:
            run = self._runs[message.pool]
            place = self._place(message.pool, message.pid, message.worker)
            if place is None:
                self._spare_failed(run, message)
                return
            if run.arena.worker_facts(place).booted:
                raise PoolError(
                    f"process {place} of handler {run.handler.name!r} failed outside the handler; "
                    f"please report it:\n{message.traceback.rstrip()}"
                )
            if run.started:
                last = "\n".join(message.traceback.rstrip().splitlines()[-TEARDOWN_LINES:])
                self._log(f"{run.handler.name}: the successor of process {place} could not start:\n{last}")
                return
        self.raise_if_boot_failed(message)
        if isinstance(message, Launched):
            self._launched(message)
        elif isinstance(message, Died):
            self._died(message)

    def _place(self, pool: int, pid: int, seat: int) -> int | None:
        """The place of a process, which may have said something before it was told of; None: a spare has none."""
        with self._changing:
            place = self._places[pool].place(pid)
        return seat if place is None and seat < self._runs[pool].workers else place

    def _launched(self, message: Launched) -> None:
        with self._changing:
            self._places[message.pool].launched(message.worker, message.pid)

    def _spare_failed(self, run: HandlerRun, message: BootFailed) -> None:
        """It is not needed yet. If the next one that is needed cannot start either, that ends the run."""
        last = "\n".join(message.traceback.rstrip().splitlines()[-TEARDOWN_LINES:])
        self._log(f"{run.handler.name}: a spare process could not start, so none is kept:\n{last}")
        with self._changing:
            self._places[message.pool].spares = 0

    def _left(self, message: Died) -> None:
        """One that was told to leave has done so."""
        with self._changing:
            holder = self._places[message.pool].died(message.pid, message.worker)
        if message.status and holder.place is not None:
            name = self._runs[message.pool].handler.name
            how = describe_status(message.status)
            self._log(f"{name}: process {holder.place} {how} after its last batch, in teardown()")

    def _teardown_failed(self, message: TeardownFailed) -> None:
        last = "\n".join(message.traceback.rstrip().splitlines()[-TEARDOWN_LINES:])
        self._log(
            f"{self._runs[message.pool].handler.name}: teardown() raised in process "
            f"{self._place(message.pool, message.pid, message.worker)} (pid {message.pid}), after its last batch was "
            f"done:\n{last}"
        )

    def _died(self, message: Died) -> None:
        run = self._runs[message.pool]
        with self._changing:
            holder = self._places[message.pool].died(message.pid, message.worker)
            if holder.spare is not None and holder.spare in self._places[message.pool].vacant_seats():
                spare_words.prepare(run.arena, holder.spare)  # it may have died before it took notice of its place
        ended = self._watchdogs[message.pool].ended(message.pid)
        how = describe_status(message.status, ended_by_us=ended is not None)
        how = how if ended is None else f"{ended} and {how}"
        name = run.handler.name
        if holder.place is None:
            if message.status:
                self._spare_died(message, run, how)
            return
        worker = holder.place
        booted = run.arena.worker_facts(worker).booted
        if message.status == EXIT_BOOT_FAILED and not booted and not run.started:
            raise PoolError(f"process {message.pid} of handler {name!r} ended before it was up ({how})")
        if run.started:
            self._setups_failed[message.pool] = 0 if booted else self._setups_failed[message.pool] + 1
        recycled = message.status == EXIT_RECYCLED and run.arena.slot_in_hand(worker) is None
        if recycled:
            line = self._recycled[message.pool].line(time.monotonic(), f"process {worker} (pid {message.pid})")
            if line:
                self._log(f"{name}: {line}")
            in_vain = ""
        else:
            then = "its batches are handled again" if booted else "it was not up yet; another one is made"
            self._log(f"{name}: process {worker} (pid {message.pid}) {how}; {then}")
            in_vain = self._spend_budget(message, run, worker, how)
        if run.started:
            run.died(worker, Obituary(how, message.said, recycled, in_vain))
        else:  # no batch was ever queued for it
            run.arena.return_taken(worker)
            self.launch(message.pool, worker)

    def _spare_died(self, message: Died, run: HandlerRun, how: str) -> None:
        """While it waited. That does not end the run: without spares, successors are made when they are needed."""
        line = f"{run.handler.name}: a spare process (pid {message.pid}) {how}"
        if self._spare_budgets[message.pool].spend(Death(time.monotonic(), 0, "nothing", handled=False)) is None:
            self._log(f"{line}; another one is made")
            return
        self._log(f"{line}, as others did before it, so none is kept any more")
        with self._changing:
            self._places[message.pool].spares = 0

    def _spend_budget(self, message: Died, run: HandlerRun, worker: int, how: str) -> str:
        """Why another process at once does not help; empty where it may.

        Raises PoolError before the run has begun: there is nothing yet that could go on.
        """
        counts = run.counts
        found, handled = run.found_by_death(worker)
        death = Death(time.monotonic(), counts.rows - counts.killed, found, handled)
        reason = self._budgets[message.pool].spend(death)
        if reason is None:
            return ""
        if not run.started:
            raise PoolError(f"handler {run.handler.name!r}: {reason} (the last {how}); restarting does not help")
        return f"{reason} (the last {how})"
