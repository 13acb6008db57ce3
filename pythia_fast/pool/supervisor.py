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
from pythia_fast.errors import ConfigError, PoolError
from pythia_fast.pool.closing import Closing, teardown_line
from pythia_fast.pool.limits import Recycled
from pythia_fast.pool.messages import BootFailed, Died, Launched, Message, Recycles, TeardownFailed
from pythia_fast.pool.nursery import Nursery, NurseryGoneError
from pythia_fast.pool.nursery_process import EXIT_BOOT_FAILED
from pythia_fast.pool.nursery_watch import NurseryWatch
from pythia_fast.pool.obituary import Obituary, describe_status, end_of
from pythia_fast.pool.places import Holder, Places
from pythia_fast.pool.repeated_failures import RepeatedFailures
from pythia_fast.pool.restart_budget import Death, RestartBudget
from pythia_fast.pool.spare_care import LONGEST_WAIT_S, SpareCare
from pythia_fast.pool.watchdog import Watchdog
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.runtime.handler_run import HandlerRun
    from pythia_fast.runtime.shutdown import StopRequest

#: Spares are made this long after the pool is up: the start has enough to do.
#: New parents of the pool that may be killed before they are up, one after the other.
NURSERY_ATTEMPTS = 5
SPARES_AFTER_S = 1.0
#: Until a successor follows one whose setup() raised: twice as long each time. The restart budget is spent within half
#: a minute; then the handler is paused.
FIRST_SETUP_WAIT_S, LONGEST_SETUP_WAIT_S = 0.1, 2.0


class Supervisor:
    """Keeps every place of every handler's pool filled."""

    def __init__(
        self,
        nursery: Nursery,
        runs: Sequence[HandlerRun],
        log: Callable[[str], None],
        remake: Callable[[], Nursery],
    ) -> None:
        """``remake``: makes a nursery that follows one that is gone; raises PoolError where that is impossible."""
        self._nursery = nursery
        self._remake = remake
        self._runs = runs
        self._log = log
        self._stopping = False
        self._budgets = [RestartBudget.of(run.handler.dead_letter_limit) for run in runs]
        self._nursery_budget = RestartBudget()
        self._nursery_watch = NurseryWatch(log)
        self._spare_cares = [SpareCare() for _ in runs]
        self._failures = [RepeatedFailures() for _ in runs]
        self._boots_failed: dict[int, BootFailed] = {}  #: by pid, until its death is told
        self._places = [Places(run.workers, run.handler.spares, run.arena.n_spares) for run in runs]
        self._changing = threading.Lock()  #: the places, between this thread and those that ask for successors
        self._spares_from_s = float("inf")
        self._watchdogs = [Watchdog(run.handler, nursery.signal, log) for run in runs]
        self._reached: dict[int, str] = {}  #: pid of one that leaves, but keeps its place until its end -> why
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

    def launch_all(self, stop: StopRequest) -> bool:
        """Launch every place and wait until each has run its ``setup()``; False: ``stop`` was asked for meanwhile.

        Raises PoolError with the traceback of one that cannot start, or where setup() is not back in time.
        """
        for run in self._runs:
            for worker in range(run.workers):
                self.launch(run.pool, worker)
        began = time.monotonic()
        while not all(run.booted() for run in self._runs):
            if stop.asked:
                return False
            for run in self._runs:
                deadline_s = run.handler.setup_deadline
                if deadline_s is not None and time.monotonic() - began > deadline_s and not run.booted():
                    raise PoolError(
                        f"the pool of handler {run.handler.name!r} was not up after setup_deadline={deadline_s:g} s: "
                        "its imports and setup() take longer, or do not return"
                    )
            for message in self._nursery.receive(0.005):
                self._take(message)
            self._look_at_processes(time.monotonic())
        self._spares_from_s = time.monotonic() + SPARES_AFTER_S
        return True

    def serve(self, timeout: float) -> None:
        """Handle what the nursery has to say, waiting up to ``timeout`` seconds for it."""
        try:
            for message in self._nursery.receive(timeout):
                self._take(message)
        except NurseryGoneError as gone:
            self._follow_nursery(gone)
        now = time.monotonic()
        self._nursery_watch.look(now, self._nursery)
        with self._changing:
            due = [(pool, worker) for when, pool, worker in self._later if when <= now]
            self._later = [later for later in self._later if later[0] > now]
        for pool, worker in due:
            self._nursery.launch(pool, worker)
        if now >= self._spares_from_s:
            for run in self._runs:
                self._launch_spares(run)
        self._look_at_processes(now)

    def _look_at_processes(self, now: float) -> None:
        for run, places, watchdog in zip(self._runs, self._places, self._watchdogs, strict=True):
            with self._changing:
                watchdog.look(now, run.arena, places)
                spare_is_up = any(spare_words.is_up(run.arena, spare) for spare, _ in places.waiting_spares())
            if spare_is_up and self._spare_cares[run.pool].up():
                self._log(Routine(f"{run.handler.name}: a spare process is up again"))

    # -- the pool's parent ---------------------------------------------------------------------

    def _follow_nursery(self, gone: NurseryGoneError) -> None:
        """Make a new nursery, and hand on what the processes held that went with the old one."""
        settled = sum(run.counts.rows - run.counts.killed for run in self._runs)
        if self._nursery_budget.spend(Death(time.monotonic(), settled, "nothing", handled=False)) is not None:
            raise PoolError(f"{gone}. It was so again and again, and no row was settled between") from None
        old = self._nursery.pid
        died = self._nursery.bury_children()
        fresh = self._make_another(gone)
        self._log(
            f"the pool's parent process {old} is gone (killed, or ended from within a handler), and with it the pool's "
            f"{len(died)} processes; {fresh.pid} follows it, and their batches are handled again"
        )
        self._nursery_watch.followed()
        for message in died:
            self._went_down(message)
        self._nursery.follow_by(fresh)

    def _make_another(self, gone: NurseryGoneError) -> Nursery:
        """One that is killed before it is up, as by a kernel that is short of memory, is followed as well."""
        for attempt in range(1, NURSERY_ATTEMPTS + 1):
            try:
                return self._remake()
            except NurseryGoneError as error:
                if attempt == NURSERY_ATTEMPTS:
                    raise PoolError(f"{gone}. None of {attempt} others came up; the last one: {error}") from None
                self._log(f"{error.what}, where it was to follow the one before; another one is made")
            except PoolError as error:
                raise PoolError(f"{gone}. Another one cannot be made: {error}") from None
        raise AssertionError("the last attempt returns or raises")

    def _went_down(self, message: Died) -> None:
        """With the nursery."""
        run, holder = self._runs[message.pool], self._forget(message)
        self._watchdogs[message.pool].ended(message.pid)
        self._boots_failed.pop(message.pid, None)
        if holder.place is not None and not holder.leaving:
            recycled = self._reached.pop(message.pid, "") != ""
            run.died(holder.place, Obituary("went down with the pool's parent process, which was killed", "", recycled))

    # -- spares --------------------------------------------------------------------------------

    def _launch_spares(self, run: HandlerRun) -> None:
        """Ask for those that are missing. Any thread."""
        places = self._places[run.pool]
        if self._stopping or not self._spare_cares[run.pool].may_launch(time.monotonic()):
            return
        with self._changing:
            # A seat whose word says that somebody is up there is that of one who has not noticed its place yet.
            vacant = [spare for spare in places.vacant_seats() if not spare_words.is_up(run.arena, spare)]
            wanted = vacant[: places.missing_spares]
            for spare in wanted:
                spare_words.prepare(run.arena, spare)
                places.asked(spare)
        for spare in wanted:
            self._nursery.launch(run.pool, places.seat_of(spare))

    def stop_all(self, timeout: float, stop: StopRequest) -> None:
        """All is done: tell every process to leave and wait for it, see closing.py."""
        self._stopping = True
        closing = Closing(self._nursery, self._runs, self._places, self._changing, self._log)
        closing.run(timeout, stop)

    @staticmethod
    def raise_if_boot_failed(message: Message) -> None:
        if isinstance(message, BootFailed):
            raise PoolError(f"a pool process could not start:\n{message.traceback.rstrip()}")

    def _take(self, message: Message) -> None:
        if isinstance(message, BootFailed) and message.worker >= 0 and not message.app_changed:
            run = self._runs[message.pool]
            place = self._place(message.pool, message.pid, message.worker)
            self._boots_failed[message.pid] = message
            if place is None:
                return
            if run.started or run.arena.worker_facts(place).booted:
                return  # it is told with its death
            if message.misconfigured:
                raise ConfigError(f"handler {run.handler.name!r}: {message.traceback}")
        self.raise_if_boot_failed(message)
        if isinstance(message, Launched):
            self._launched(message)
        elif isinstance(message, Died):
            self._died(message)
        elif isinstance(message, Recycles):
            self._recycles(message)
        elif isinstance(message, TeardownFailed):
            name, place = self._runs[message.pool].handler.name, self._place(message.pool, message.pid, message.worker)
            self._log(teardown_line(name, place, message))

    def _place(self, pool: int, pid: int, seat: int) -> int | None:
        """The place of a process, which may have said something before it was told of; None: a spare has none."""
        with self._changing:
            place = self._places[pool].place(pid)
        return seat if place is None and seat < self._runs[pool].workers else place

    def _launched(self, message: Launched) -> None:
        with self._changing:
            self._places[message.pool].launched(message.worker, message.pid)

    def _forget(self, message: Died) -> Holder:
        """It is gone: what it was."""
        places, arena = self._places[message.pool], self._runs[message.pool].arena
        with self._changing:
            holder = places.died(message.pid, message.worker)
            if holder.spare is not None:
                spare_words.prepare(arena, holder.spare)  # it may have died before it took notice of its place
        return holder

    def _recycles(self, message: Recycles) -> None:
        """Its last batch is done: a successor goes on while it runs its teardown()."""
        run = self._runs[message.pool]
        worker = self._place(message.pool, message.pid, message.worker)
        assert worker is not None  # a spare that waits for a place has no batches
        now = time.monotonic()
        line = self._recycled[message.pool].line(now, f"process {worker} (pid {message.pid})", message.why)
        if line:
            self._log(Routine(f"{run.handler.name}: {line}"))
        self._watchdogs[message.pool].tears_down(message.pid, now)
        with self._changing:
            gives_up = self._places[message.pool].leaves(message.pid, worker)
        if not gives_up:
            self._reached[message.pid] = message.why
        elif run.started:
            run.died(worker, Obituary("", recycled=True))

    def _died(self, message: Died) -> None:
        run = self._runs[message.pool]
        holder = self._forget(message)
        ended = self._watchdogs[message.pool].ended(message.pid)
        how = describe_status(
            message.status, ended_by_us=ended is not None, quit_reason=message.quit_reason, cause=message.cause
        )
        how = how if ended is None else f"{ended} and {how}"
        name = run.handler.name
        failed = self._boots_failed.pop(message.pid, None)
        if holder.place is None:
            if message.status or failed is not None:
                self._spare_died(message, run, how, failed)
            return
        worker = holder.place
        recycled = self._reached.pop(message.pid, "") != ""
        if holder.leaving or recycled:
            if message.status:
                self._log(f"{name}: process {worker} (pid {message.pid}) {how} in teardown(), after its last batch")
            if not holder.leaving and run.started:
                run.died(worker, Obituary(how, recycled=True))
            return
        booted = run.arena.worker_facts(worker).booted
        if message.status == EXIT_BOOT_FAILED and not booted and not run.started:
            raise PoolError(f"process {message.pid} of handler {name!r} ended before it was up ({how})")
        if run.started:
            self._setups_failed[message.pool] = 0 if booted else self._setups_failed[message.pool] + 1
        if booted and failed is not None:  # it met another exception while it left because of one
            how, failed = f"{how}, after {failed.cause}", None
        self._log(self._how_it_went(run, worker, message, how, failed))
        cause = how if failed is None else f"could not start: {failed.cause}"
        in_vain = self._spend_budget(run, worker, cause, booted=bool(booted))
        if run.started:
            run.died(worker, Obituary(how, message.said, in_vain=in_vain))
        else:  # no batch was ever queued for it
            run.arena.return_taken(worker)
            self.launch(message.pool, worker)

    def _how_it_went(self, run: HandlerRun, worker: int, message: Died, how: str, failed: BootFailed | None) -> str:
        """Of a death, for the log: a traceback that comes again and again is told in full once."""
        process = f"{run.handler.name}: process {worker} (pid {message.pid})"
        failures, now = self._failures[run.pool], time.monotonic()
        if run.arena.worker_facts(worker).booted:
            if message.quit_reason != "exception":
                return f"{process} {how}; its batches are handled again"
            count = failures.count(now, message.cause, message.said)
            if count > 1:
                return f"{process} {how}, {count} by now at the same place; its batches are handled again"
            return f"{process} {how}; its batches are handled again:\n{end_of(message.said)}"
        if failed is None:
            return f"{process} {how}; it was not up yet; another one is made"
        count = failures.count(now, failed.cause, failed.traceback)
        if count > 1:
            return f"{process} could not start, {count} by now at the same place; another one is made: {failed.cause}"
        return f"{process} could not start; another one is made:\n{end_of(failed.traceback)}"

    def _spare_died(self, message: Died, run: HandlerRun, how: str, failed: BootFailed | None) -> None:
        """While it waited, or in its setup(). Without spares, successors are made when they are needed."""
        if not self._spare_cares[message.pool].failed(time.monotonic()):
            return
        what, traceback = (how, "") if failed is None else ("could not start", f":\n{end_of(failed.traceback)}")
        self._log(
            f"{run.handler.name}: a spare process (pid {message.pid}) {what}; another one is made, and again until one "
            f"is up, at growing intervals of up to {LONGEST_WAIT_S:.0f} s{traceback}"
        )

    def _spend_budget(self, run: HandlerRun, worker: int, how: str, *, booted: bool) -> str:
        """Why another process at once does not help; empty where it may.

        Raises PoolError before the run has begun: there is nothing yet that could go on.
        """
        counts = run.counts
        found, handled = run.found_by_death(worker)
        death = Death(time.monotonic(), counts.rows - counts.killed, found, handled, booted)
        reason = self._budgets[run.pool].spend(death)
        if reason is None:
            return ""
        if not run.started:
            raise PoolError(f"handler {run.handler.name!r}: {reason} (the last {how}); restarting does not help")
        return f"{reason} (the last {how})"
