# cython: language_level=3
"""The oldest row in hand of an arena (ext/oldest.h)."""

from collections import namedtuple

from arena_layout cimport (
    PF_SLOT_DONE,
    PF_SLOT_FILLING,
    PF_SLOT_HELD,
    PF_SLOT_OUTPUT_FULL,
    PF_SLOT_PARKED,
    PF_SLOT_READY,
    PF_SLOT_WAITING,
    pf_arena,
)
from atomics cimport pf_now_ns
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pythia_fast._ext.ring cimport Arena

cdef extern from "oldest.h" nogil:
    ctypedef struct pf_oldest_row:
        uint32_t slot, state, worker, partition
        int64_t first_offset
        uint64_t opened_ns, due_ns
        uint32_t rows, round
    int pf_oldest(pf_arena *arena, pf_oldest_row *oldest)

#: States of a slot that holds rows.
FILLING, READY, HELD, DONE = PF_SLOT_FILLING, PF_SLOT_READY, PF_SLOT_HELD, PF_SLOT_DONE
OUTPUT_FULL, PARKED, WAITING = PF_SLOT_OUTPUT_FULL, PF_SLOT_PARKED, PF_SLOT_WAITING

#: The first row of the oldest batch that is not released, ``age_s`` after it was taken in, and where the batch stands.
OldestRow = namedtuple("OldestRow", "slot state worker partition offset age_s due_ns rows round")


def oldest(Arena arena not None):
    """The OldestRow of the arena, or None. Any thread."""
    cdef pf_oldest_row row
    cdef int found
    cdef double age_s
    with nogil:
        found = pf_oldest(arena.arena, &row)
    if not found:
        return None
    age_s = <double><int64_t>(pf_now_ns() - row.opened_ns) * 1e-9
    return OldestRow(
        row.slot, row.state, row.worker, row.partition, row.first_offset, max(age_s, 0.0), row.due_ns, row.rows,
        row.round,
    )
