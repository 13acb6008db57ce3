"""How many slots a handler's arena gets: enough that nobody waits, and no more than the container's memory bears."""

from __future__ import annotations

from typing import NamedTuple

#: (batches a pool process has in hand: one it works on, and enough queued that it never waits for the intake;
#: slots beyond what the processes hold: open batches, and batches whose outputs are being delivered). The first is
#: what runs best; the others are for little memory.
CHOICES = ((3, 4), (2, 4), (2, 2), (1, 2))
#: Slots for batches some of whose rows wait to be handled again; when they are all taken, the source is read no more.
WAITING_SLOTS = (32, 16, 8, 4)
#: Rows that a slot has room for at least where rows that wait are gathered (ext/gather.h), however small batches are:
#: the slots for them then hold some thousand rows, and the loops over all slots stay as short as they are.
GATHERED_ROWS = 256
#: Slots for batches that are done and wait for the next transaction, while one is committed.
HELD_SLOTS = (16, 8, 4, 2)
#: Of the memory there is, this share may be taken by arenas once all their slots have been full.
SHARE_OF_MEMORY = 0.5


class SlotPlan(NamedTuple):
    """Sizes of an arena."""

    credit: int
    slots: int
    bytes: int  #: of memory that its slots can come to take


def slot_rows(batch_size: int, *, gathers: bool) -> int:
    """Messages that a slot has room for. ``gathers``: rows that wait are gathered in slots, and not in transactions."""
    return max(batch_size, GATHERED_ROWS) if gathers else batch_size


def slot_bytes(rows: int, max_batch_bytes: int, columns: int) -> int:
    """Memory that one slot can come to take: payloads, the texts among their values, records, what is fixed a row."""
    return 3 * max_batch_bytes + rows * (128 + 8 * columns)


def plan_slots(workers: int, one_slot: int, *, waits: bool, memory_bytes: int, holds: bool = False) -> SlotPlan:
    """The most generous plan that the memory bears; the least one where none does.

    Parameters:
        workers: pool processes.
        one_slot: bytes, see ``slot_bytes``.
        waits: rows may wait to be handled again.
        memory_bytes: what all slots may take.
        holds: outputs are written in transactions.
    """
    plan = SlotPlan(0, 0, 0)
    for (credit, spare), waiting, held in zip(CHOICES, WAITING_SLOTS, HELD_SLOTS, strict=True):
        slots = workers * (credit + 1) + spare + (waiting if waits else 0) + (held if holds else 0)
        plan = SlotPlan(credit, slots, slots * one_slot)
        if plan.bytes <= memory_bytes:
            break
    return plan
