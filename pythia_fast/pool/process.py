"""What a pool process does: take a slot, call the handler on its batch, encode what it returned, complete the slot."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from pythia_fast._ext.spare import wait_for_place
from pythia_fast.pool.crash_text import quit_process
from pythia_fast.pool.forked import leave_if_forked, outlive_signals
from pythia_fast.pool.limits import Limits, check_after_setup
from pythia_fast.pool.notes import write_notes
from pythia_fast.pool.rows import RowKeeper
from pythia_fast.pool.users_frames import format_error

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.handlers import HandlerCall
    from pythia_fast.registration import Handler

#: Longest sleep between two looks at the queue; a slot or the word to stop ends it at once.
TAKE_WAIT_S = 1.0


def serve(handler: Handler, arena: Arena, seat: int, recycles: Callable[[str], None]) -> str:
    """Run one place of a pool until it is told to stop and its queue is empty, or its limits are reached.

    ``seat``: the place, or, from ``arena.n_workers`` on, that of a spare, which waits for a place once it is up.
    ``recycles`` is told which limit was reached, once the last batch is done: from then on the place is another's, and
    only ``teardown()`` is left. Returns the traceback of what ``teardown()`` raised, empty if it raised nothing. What
    ``setup()`` raises is raised here.
    """
    pid = os.getpid()
    outlive_signals()
    call = handler.adapter.build()
    gc.freeze()  # what there is now stays: later collections need not look at it
    _once(call.setup, pid)
    check_after_setup(handler.max_memory_mb)
    try:
        worker = seat if seat < arena.n_workers else _wait_for_place(arena, seat - arena.n_workers)
        if worker is not None:
            _serve_place(handler, arena, call, worker, recycles)
    finally:
        trouble = _teardown(call, pid)
    return trouble


def _serve_place(
    handler: Handler, arena: Arena, call: HandlerCall, worker: int, recycles: Callable[[str], None]
) -> None:
    """Handle batches until this process is to leave.

    An exception beside the call, where it would be a row's matter, ends this process as a crash does: what was being
    done for the batch is done by half. The user's code brings it about from outside: a signal handler that raises,
    ``_thread.interrupt_main``. For want of memory, the next process has more room.
    """
    pid = os.getpid()
    try:
        arena.booted(worker, pid)
        reached = _work(handler, arena, call, worker)
        if reached:
            recycles(reached)
    except BaseException as error:
        leave_if_forked(pid, error)
        quit_process("memory" if issubclass(type(error), MemoryError) else "exception", error)


def _wait_for_place(arena: Arena, spare: int) -> int | None:
    """The place that this spare is given; None: it is to leave."""
    place = None
    parent = os.getppid()
    while place is None and os.getppid() == parent:
        place = wait_for_place(arena, spare, TAKE_WAIT_S)
    return None if place is None or place < 0 else place


def _work(handler: Handler, arena: Arena, call: HandlerCall, worker: int) -> str:
    """Handle batches; the limit that ended that, empty if it was told to stop, or its parent is gone.

    The kernel kills it with its parent, but not where the handler has dropped privileges: that undoes PR_SET_PDEATHSIG.
    """
    parent = os.getppid()
    keeper = RowKeeper(handler, arena, call, worker)
    limits = Limits(handler.max_batches_per_process, handler.max_memory_mb)
    # With a breaker it is handled all the same: it may be the probe, whose call tells of the service.
    leaves_void = handler.transactions is not None and handler.breaker is None
    busy_poll_s = handler.busy_poll
    while os.getppid() == parent:
        slot = arena.take(worker, TAKE_WAIT_S, busy_poll_s)
        busy_poll_s = handler.busy_poll if slot is not None else 0.0  # once after each batch
        if slot is not None and leaves_void and arena.is_void(slot):
            arena.complete(worker, slot, 0, 0, 0, 0, 0, 0, 0)
        elif slot is not None:
            _handle(keeper, arena, worker, slot)
            if reached := limits.reached():
                return reached
        elif arena.stopped(worker):
            break
    return ""


def _once(method: Callable[[], None], pid: int) -> None:
    """Call the handler's ``setup`` or ``teardown``."""
    try:
        method()
    except BaseException as error:
        leave_if_forked(pid, error)
        raise
    leave_if_forked(pid)


def _teardown(call: HandlerCall, pid: int) -> str:
    """All batches are done: what is raised now costs none of them, and is only told."""
    try:
        _once(call.teardown, pid)
    except BaseException as error:
        return format_error(error)
    return ""


def _handle(keeper: RowKeeper, arena: Arena, worker: int, slot: int) -> None:
    outcome = keeper.handle(slot)
    error_bytes = 0
    if outcome.notes:
        offsets = arena.offsets
        size = offsets["errors_bytes"]
        error_bytes = write_notes(outcome.notes, arena.view(slot, offsets["errors"] + outcome.error_half * size, size))
    arena.complete(
        worker,
        slot,
        outcome.output.bytes,
        outcome.output.records,
        outcome.error_half,
        error_bytes,
        outcome.rejected,
        outcome.retried,
        outcome.failed,
        outcome.due_ns,
    )
