"""The supervisor: launches pool processes, notices at once when one dies, and decides whether to go on.

It runs in the engine's watching thread: the nursery reaps a process and says so, which ends the wait.
What the dead process held is handed on by the completion thread, which then asks for the successor.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pythia_fast.errors import PoolError
from pythia_fast.pool.messages import BootFailed, Died, Launched, Message, TeardownFailed
from pythia_fast.pool.nursery import EXIT_BOOT_FAILED, Nursery
from pythia_fast.pool.restart_budget import Death, RestartBudget

if TYPE_CHECKING:
    from pythia_fast.runtime.handler_run import HandlerRun
    from pythia_fast.runtime.shutdown import StopRequest

#: Lines of teardown()'s traceback that are told: the place and the error stand last.
TEARDOWN_LINES = 6


class Supervisor:
    """Keeps every place of every handler's pool filled."""

    def __init__(self, nursery: Nursery, runs: Sequence[HandlerRun], log: Callable[[str], None]) -> None:
        self._nursery = nursery
        self._runs = runs
        self._log = log
        self._pids: dict[tuple[int, int], int] = {}
        self._stopping = False
        self._budgets = [RestartBudget() for _ in runs]

    def processes(self) -> list[tuple[str, int]]:
        """(name, pid) of the nursery and of every pool process."""
        single = len(self._runs) == 1
        found = [("nursery", self._nursery.pid)]
        for (pool, worker), pid in sorted(self._pids.items()):
            found.append((f"worker {worker}" if single else f"{self._runs[pool].handler.name} {worker}", pid))
        return found

    def launch(self, pool: int, worker: int) -> None:
        """Ask for a process for this place. Any thread."""
        if not self._stopping:
            self._nursery.launch(pool, worker)

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
        return True

    def serve(self, timeout: float) -> None:
        """Handle what the nursery has to say, waiting up to ``timeout`` seconds for it."""
        for message in self._nursery.receive(timeout):
            self._take(message)

    def stop_all(self, timeout: float) -> None:
        """Tell every process to leave and wait for it; the nursery kills what is left when it is closed."""
        self._stopping = True
        for run in self._runs:
            for worker in range(run.workers):
                run.arena.stop_worker(worker)
        deadline = time.monotonic() + timeout
        while self._pids and time.monotonic() < deadline:
            for message in self._nursery.receive(0.05):
                if isinstance(message, Died):
                    self._pids.pop((message.pool, message.worker), None)
                    if message.status:
                        name = self._runs[message.pool].handler.name
                        how = describe_status(message.status)
                        self._log(f"{name}: process {message.worker} {how} after its last batch, in teardown()")
                elif isinstance(message, TeardownFailed):
                    self._teardown_failed(message)
        for pool, worker in self._pids:
            self._log(
                f"{self._runs[pool].handler.name}: process {worker} did not leave in {timeout:.0f} s and is killed"
            )

    @staticmethod
    def raise_if_boot_failed(message: Message) -> None:
        if isinstance(message, BootFailed):
            raise PoolError(f"a pool process could not start:\n{message.traceback.rstrip()}")

    def _take(self, message: Message) -> None:
        if isinstance(message, BootFailed) and message.worker >= 0:
            run = self._runs[message.pool]
            if run.arena.worker_facts(message.worker).booted:
                raise PoolError(
                    f"process {message.worker} of handler {run.handler.name!r} failed outside the handler; "
                    f"please report it:\n{message.traceback.rstrip()}"
                )
        self.raise_if_boot_failed(message)
        if isinstance(message, Launched):
            self._pids[message.pool, message.worker] = message.pid
        elif isinstance(message, Died):
            self._pids.pop((message.pool, message.worker), None)
            self._died(message)

    def _teardown_failed(self, message: TeardownFailed) -> None:
        last = "\n".join(message.traceback.rstrip().splitlines()[-TEARDOWN_LINES:])
        pid = self._pids.get((message.pool, message.worker), 0)
        self._log(
            f"{self._runs[message.pool].handler.name}: teardown() raised in process {message.worker} (pid {pid}), "
            f"after its last batch was done:\n{last}"
        )

    def _died(self, message: Died) -> None:
        run = self._runs[message.pool]
        how = describe_status(message.status)
        if message.status == EXIT_BOOT_FAILED and not run.arena.worker_facts(message.worker).booted:
            raise PoolError(f"process {message.pid} of handler {run.handler.name!r} ended before it was up ({how})")
        self._log(
            f"{run.handler.name}: process {message.worker} (pid {message.pid}) {how}; its batches are handled again"
        )
        self._spend_budget(message, run, how)
        if run.started:
            run.died(message.worker, how)
        else:  # no batch was ever queued for it
            run.arena.return_taken(message.worker)
            self.launch(message.pool, message.worker)

    def _spend_budget(self, message: Died, run: HandlerRun, how: str) -> None:
        counts = run.counts
        death = Death(time.monotonic(), counts.rows - counts.killed, *run.found_by_death(message.worker))
        reason = self._budgets[message.pool].spend(death)
        if reason is not None:
            raise PoolError(f"handler {run.handler.name!r}: {reason} (the last {how}); restarting does not help")


def describe_status(status: int) -> str:
    """How a process ended, for a person: status is an exit code, or minus a signal number."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    likely = ", likely by the kernel for want of memory or by hand" if -status == signal.SIGKILL else ""
    return f"was killed by {name}{likely}"
