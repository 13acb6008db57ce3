"""Waiting for a pool's parent that is a new interpreter and imports the app, and what is told while that takes long."""

from __future__ import annotations

import time
from collections.abc import Callable

from pythia_fast.errors import PoolError
from pythia_fast.pool.import_watch import SLOW_IMPORT_S
from pythia_fast.pool.messages import Importing, Message, Ready
from pythia_fast.pool.nursery import Nursery
from pythia_fast.pool.supervisor import Supervisor
from pythia_fast.runtime.shutdown import StopRequest
from pythia_fast.runtime.stalls import Pace

BOOT_TIMEOUT_S = 300.0
LOOK_S = 0.2


def await_nursery(nursery: Nursery, place: str, stop: StopRequest, *, begun: bool, tell: Callable[[str], None]) -> int:
    """Wait until it is up; how many threads it has. Where ``stop`` ends the wait, there will be no pool.

    ``place``: what it imports. ``begun``: the run has, and this nursery follows another one. Raises PoolError.
    """
    pace = Pace(SLOW_IMPORT_S)
    began, stack = time.monotonic(), ""
    while True:
        if _given_up(stop, begun):
            return 1
        for message in _receive(nursery, stop, begun):
            if isinstance(message, Ready):
                return message.threads
            if isinstance(message, Importing):
                stack = message.stack
        now = time.monotonic()
        if now - began >= BOOT_TIMEOUT_S:
            raise PoolError(
                f"the pool's parent process {nursery.pid} did not come up within {BOOT_TIMEOUT_S:.0f} seconds: it "
                f"imports {place}{_at(stack)}"
            )
        if pace.due(now, now - began):
            ends = "a second one ends the run at once" if begun else "it ends the run at once"
            tell(
                f"the pool's parent process {nursery.pid} has been importing {place} for {now - began:.0f} s, and no "
                f"batch is handled before it has; it is given up after {BOOT_TIMEOUT_S:.0f} s. Stop it with Ctrl-C or "
                f"SIGTERM: {ends}{_at(stack) or f' (py-spy dump --pid {nursery.pid} says what it does)'}"
            )


def _given_up(stop: StopRequest, begun: bool) -> bool:
    """A run that drains needs its pool to the end; one that has not begun needs none any more."""
    return stop.killed or (stop.asked and not begun)


def _receive(nursery: Nursery, stop: StopRequest, begun: bool) -> list[Message]:
    """What it has to say. Raises PoolError where the import failed, unless that is of no interest any more: a signal
    to the whole group may have ended it, too."""
    try:
        found = nursery.receive(LOOK_S)
        for message in found:
            Supervisor.raise_if_boot_failed(message)
    except PoolError:
        if not _given_up(stop, begun):
            raise
        return []
    return found


def _at(stack: str) -> str:
    return f". It is there:\n{stack}" if stack else ""
