"""Views that the handler still holds when its batch is done: they are left a copy of the slot, as it was."""

from __future__ import annotations

import errno
import gc
from typing import TYPE_CHECKING

from pythia_fast.pool.crash_text import quit_process

if TYPE_CHECKING:
    from pythia_fast._ext.batch_memory import BatchMemory
    from pythia_fast._ext.ring import Arena


def detach_kept(arena: Arena, slot: int, memory: BatchMemory) -> list[str]:
    """Leave views that are still looked at a copy of their own, which goes with the last of them; their names.

    Where the process has no room for one, it ends, and the batch is handled again by another one.
    """
    memory.close()
    if not memory.kept():
        return []
    gc.collect()  # a reference cycle, such as an exception that its own frame holds, keeps nothing
    kept = memory.kept()
    if kept:
        try:
            memory.hand_over(arena.detach_slot(slot))
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            quit_process("memory", _no_room(kept))
    return kept


def _no_room(kept: list[str]) -> MemoryError:
    names = ", ".join(map(repr, kept))
    return MemoryError(
        f"no room for one more copy of a batch whose views the handler keeps ({names}): all that it has views of stays "
        "in its memory. Have it keep a copy of what it needs (.copy(), .tolist())"
    )
