# cython: language_level=3
"""Journal: how far a batch has come that has killed a holder; kept in its slot (ext/journal.h)."""

from collections import namedtuple

from arena_layout cimport pf_progress, pf_slot
from libc.stdint cimport uint32_t, uint64_t

from pythia_fast._ext.arena_memory cimport slot_of
from pythia_fast._ext.ring cimport Arena

cdef extern from "journal.h" nogil:
    const pf_progress *pf_progress_of(const pf_slot *slot)
    void pf_progress_write(pf_slot *slot, pf_progress progress)
    void pf_progress_begin(pf_slot *slot, uint32_t end, uint32_t deaths_before, uint32_t in_hand)

#: What of a batch is done, and which rows were in hand: see pf_progress in ext/arena_layout.h.
Progress = namedtuple(
    "Progress",
    "rows_done suspect_end deaths deaths_before output_bytes output_records error_half error_bytes rejected retried "
    "failed killed",
)


cdef class Journal:
    """The journal of the batch in a slot.

    Written by the pool process that holds the slot; read by whoever holds it, and by the completion thread once the
    holder is dead. Raises IndexError for a slot that the arena does not have.
    """

    cdef Arena arena
    cdef pf_slot *slot

    def __init__(self, Arena arena not None, uint32_t slot):
        self.slot = slot_of(arena, slot)
        self.arena = arena

    def read(self):
        """The Progress that counts."""
        cdef const pf_progress *now = pf_progress_of(self.slot)
        return Progress(
            now.rows_done, now.suspect_end, now.deaths, now.deaths_before, now.output_bytes, now.output_records,
            now.error_half, now.error_bytes, now.rejected, now.retried, now.failed, now.killed,
        )

    @property
    def most_rows(self):
        """Rows of one call of this round at most, because a search for a row that kills goes on in it; 0: any."""
        return self.slot.round_rows

    def begin(self, uint32_t end, uint32_t deaths_before, uint32_t in_hand=0):
        """The rows up to ``end`` that are not done go into the handler's hands, having been in those of
        ``deaths_before`` dead holders among more rows. ``in_hand``: really so many of them at most; 0: all."""
        pf_progress_begin(self.slot, end, deaths_before, in_hand)

    def commit(self, uint32_t rows_done, uint64_t output_bytes, uint32_t output_records, uint32_t error_half,
               uint32_t error_bytes, uint32_t rejected, uint32_t retried, uint32_t failed, uint32_t killed):
        """The rows before ``rows_done`` are done, with these totals, and no rows are in hand. Their records have been
        written, and all notes so far into ``error_half``, which was not the one that counts."""
        cdef pf_progress progress
        if killed > pf_progress_of(self.slot).killed:
            self.slot.later_rows = 0  # the row that was searched for is found
        progress.rows_done = rows_done
        progress.suspect_end = progress.deaths = progress.deaths_before = 0
        progress.output_bytes, progress.output_records = output_bytes, output_records
        progress.error_half, progress.error_bytes, progress.in_hand = error_half & 1, error_bytes, 0
        progress.rejected, progress.retried, progress.failed, progress.killed = rejected, retried, failed, killed
        pf_progress_write(self.slot, progress)
