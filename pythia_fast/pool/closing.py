"""The pool's end: all batches are done, and every process is told to leave and waited for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pythia_fast._ext import spare as spare_words
from pythia_fast.pool.messages import Died, Launched, TeardownFailed
from pythia_fast.pool.nursery import Nursery, NurseryGoneError
from pythia_fast.pool.obituary import describe_status, end_of
from pythia_fast.pool.places import Places
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.runtime.handler_run import HandlerRun
    from pythia_fast.runtime.shutdown import StopRequest

#: For those that are not up yet, and have nothing to tear down.
STARTING_S = 1.0


class Closing:
    """Once, by the thread that supervised the pool."""

    def __init__(
        self,
        nursery: Nursery,
        runs: Sequence[HandlerRun],
        places: Sequence[Places],
        changing: threading.Lock,
        log: Callable[[str], None],
    ) -> None:
        """``changing``: held while the places are looked at or changed."""
        self._nursery = nursery
        self._runs = runs
        self._places = places
        self._changing = changing
        self._log = log
        self._cut: set[int] = set()  #: pids of those that were ended before they were up

    def run(self, timeout: float, stop: StopRequest) -> None:
        """Until all have left, ``timeout`` seconds have passed or ``stop`` asks for the end; the nursery kills what is
        left when it is closed."""
        starting = self._starting()
        for run in self._runs:
            for worker in range(run.workers):
                run.arena.stop_worker(worker)
            for spare in range(run.arena.n_spares):
                spare_words.dismiss(run.arena, spare)
        began, unseen = time.monotonic(), False
        try:
            while any(self._places) and time.monotonic() < began + timeout and not stop.killed and not unseen:
                if time.monotonic() > began + STARTING_S:
                    self._cut_short(starting)
                unseen = self._nursery.children_ended_unseen()  # and what they have said comes next
                for message in self._nursery.receive(0.05):
                    if isinstance(message, Launched):
                        self._launched(message, starting)
                    elif isinstance(message, Died):
                        self._left(message)
                    elif isinstance(message, TeardownFailed):
                        self._log(teardown_line(self._name(message.pool), self._place(message), message))
        except NurseryGoneError:
            self._log("the pool's parent process is gone, so teardown() was cut short; all batches were done before")
            return
        if unseen:
            pid = self._nursery.pid
            self._log(f"the pool's parent process {pid} was stopped, so it is killed; its children have left")
            return
        why = "a second signal asked for the end" if stop.killed else f"{timeout:.0f} s have passed"
        for run, places in zip(self._runs, self._places, strict=True):
            for name, pid in places.processes():
                self._log(
                    f"{run.handler.name}: {name} (pid {pid}) is killed, for {why} and its teardown() is not back; all "
                    "batches were done before"
                )

    def _starting(self) -> dict[int, str]:
        """Processes that are not up, by pid: they have handled nothing, and hold no batch."""
        found = {}
        for run, places in zip(self._runs, self._places, strict=True):
            with self._changing:
                for spare, pid in places.waiting_spares():
                    if not spare_words.is_up(run.arena, spare):
                        found[pid] = "a spare process"
                for worker in range(run.workers):
                    at = places.pid_at(worker)
                    if at is not None and not run.arena.worker_facts(worker).booted:
                        found[at] = f"process {worker}"
        return found

    def _launched(self, message: Launched, starting: dict[int, str]) -> None:
        """One that was asked for before: it comes too late."""
        with self._changing:
            self._places[message.pool].launched(message.worker, message.pid)
        starting[message.pid] = "a process that was just made"

    def _cut_short(self, starting: dict[int, str]) -> None:
        """Kill those that are still there: no setup() that loads or hangs delays the end."""
        for run, places in zip(self._runs, self._places, strict=True):
            for _, pid in places.processes():
                if pid not in starting or pid in self._cut:
                    continue
                self._cut.add(pid)
                self._nursery.signal(pid, signal.SIGKILL)
                self._log(
                    Routine(
                        f"{run.handler.name}: {starting[pid]} (pid {pid}) is ended: it was still starting "
                        "(imports, setup()) when the run was over"
                    )
                )

    def _left(self, message: Died) -> None:
        """One that was told to leave has done so."""
        with self._changing:
            holder = self._places[message.pool].died(message.pid, message.worker)
        if message.status and holder.place is not None and message.pid not in self._cut:
            how = describe_status(message.status, quit_reason=message.quit_reason, cause=message.cause)
            where = "" if message.quit_reason == "exception" else ", in teardown()"
            self._log(f"{self._name(message.pool)}: process {holder.place} {how} after its last batch{where}")

    def _place(self, message: TeardownFailed) -> int | None:
        place = self._places[message.pool].place(message.pid)
        return message.worker if place is None else place

    def _name(self, pool: int) -> str:
        return self._runs[pool].handler.name


def teardown_line(handler: str, place: int | None, message: TeardownFailed) -> str:
    """What is told of a teardown() that raised."""
    return (
        f"{handler}: teardown() raised in process {place} (pid {message.pid}), after its last batch was done:\n"
        f"{end_of(message.traceback)}"
    )
