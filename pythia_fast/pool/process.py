"""What a pool process does: take a slot, call the handler on its batch, encode what it returned, complete the slot."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from pythia_fast.pool.rows import RowKeeper
from pythia_fast.runtime.notes import write_notes

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.handlers import HandlerCall
    from pythia_fast.registration import Handler

#: Longest sleep between two looks at the queue; a slot or the word to stop ends it at once.
TAKE_WAIT_S = 1.0


def serve(handler: Handler, arena: Arena, worker: int) -> str:
    """Run one place of a pool until it is told to stop and its queue is empty.

    The traceback of what ``teardown()`` raised, empty if it raised nothing. What ``setup()`` raises is raised here.
    """
    # The runtime decides when a process leaves: a signal meant for the whole group must not cut batches short.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.stderr is not None:
        faulthandler.enable()
    call = handler.adapter.build()
    keeper = RowKeeper(handler, arena, call)
    gc.collect()
    gc.freeze()  # what there is now stays: later collections need not look at it
    call.setup()
    arena.booted(worker, os.getpid())
    try:
        while True:
            slot = arena.take(worker, TAKE_WAIT_S)
            if slot is not None:
                _handle(keeper, arena, worker, slot)
            elif arena.stopped(worker):
                break
    finally:
        trouble = _teardown(call)
    return trouble


def _teardown(call: HandlerCall) -> str:
    """All batches are done: what is raised now costs none of them, and is only told."""
    try:
        call.teardown()
    except BaseException:
        return traceback.format_exc()
    return ""


def _handle(keeper: RowKeeper, arena: Arena, worker: int, slot: int) -> None:
    outcome = keeper.handle(slot)
    error_bytes = 0
    if outcome.notes:
        offsets = arena.offsets
        error_bytes = write_notes(outcome.notes, arena.view(slot, offsets["errors"], offsets["errors_bytes"]))
    if outcome.notes.kept:
        arena.detach_slot(slot)
    arena.complete(
        worker,
        slot,
        outcome.output_bytes,
        outcome.output_records,
        error_bytes,
        outcome.rejected,
        outcome.retried,
        outcome.failed,
    )
