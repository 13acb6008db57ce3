# cython: language_level=3
"""Rows that wait to be handled again, apart from those of their batch that are done, and together with those of others
(ext/gather.h)."""

from arena_layout cimport pf_arena
from atomics cimport pf_load_sc
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from pythia_fast._ext.arena_memory cimport slot_of
from pythia_fast._ext.ring cimport Arena

cdef extern from "gather.h" nogil:
    enum:
        PF_LEFT_WHOLE
        PF_NO_SLOT
    uint32_t pf_thin(pf_arena *arena, uint32_t slot, uint32_t *first_done, uint32_t *done)
    uint32_t pf_merge(pf_arena *arena, uint32_t slot, int ordered, const uint8_t *done)


def changes(Arena arena not None):
    return pf_load_sc(&arena.arena.gathers)


def thin(Arena arena not None, uint32_t slot):
    cdef uint32_t first_done = 0, done = 0
    slot_of(arena, slot)
    if pf_thin(arena.arena, slot, &first_done, &done) == PF_LEFT_WHOLE:
        return None
    return first_done, done


def merge(Arena arena not None, uint32_t slot, bint ordered, done):
    cdef uint8_t *is_done
    cdef uint32_t at, merged
    slot_of(arena, slot)
    is_done = <uint8_t *>calloc(arena.arena.n_slots, 1)
    if is_done == NULL:
        raise MemoryError
    try:
        for at in done:
            slot_of(arena, at)
            is_done[at] = 1
        merged = pf_merge(arena.arena, slot, ordered, is_done)
    finally:
        free(is_done)
    return None if merged == PF_NO_SLOT else merged
