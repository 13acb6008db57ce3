# cython: language_level=3
"""Rows that wait to be handled again, apart from those of their batch that are done, and together with those of others
(ext/gather.h)."""

from collections import namedtuple

from arena_layout cimport PF_SLOT_FILLING, PF_SLOT_FREE, PF_SLOT_WAITING, pf_arena, pf_slot
from atomics cimport pf_load, pf_load_sc, pf_now_ns
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pythia_fast._ext.arena_memory cimport pf_slot_at, slot_of
from pythia_fast._ext.ring cimport Arena

cdef extern from "gather.h" nogil:
    enum:
        PF_LEFT_WHOLE
        PF_NO_SLOT
    uint32_t pf_slot_length(const pf_arena *arena, const pf_slot *slot)
    uint32_t pf_thin(pf_arena *arena, uint32_t slot, uint32_t *first_done, uint32_t *done)
    uint32_t pf_merge(pf_arena *arena, uint32_t slot, int ordered, const uint8_t *done)


#: What waits: rows, the slots they take, the slots free beside them, and CLOCK_MONOTONIC when the first goes on.
Waiting = namedtuple("Waiting", "rows slots free first_due_ns")


def waiting(Arena arena not None):
    cdef uint32_t i, state, rows = 0, slots = 0, free_slots = 0
    cdef uint64_t first_due_ns = 0
    cdef pf_slot *s
    for i in range(arena.arena.n_slots):
        s = pf_slot_at(arena.arena, i)
        state = pf_load(&s.state)
        free_slots += state == PF_SLOT_FREE
        if state != PF_SLOT_WAITING:
            continue
        if slots == 0 or s.due_ns < first_due_ns:
            first_due_ns = s.due_ns
        slots += 1
        rows += pf_slot_length(arena.arena, s)
    return Waiting(rows, slots, free_slots, first_due_ns)


def all_wait_past(Arena arena not None, double seconds):
    cdef uint32_t i, state
    cdef uint64_t latest = pf_now_ns() + <uint64_t>(max(seconds, 0.0) * 1e9)
    cdef pf_slot *s
    cdef bint some = False
    for i in range(arena.arena.n_slots):
        s = pf_slot_at(arena.arena, i)
        state = pf_load(&s.state)
        if state == PF_SLOT_FREE or (state == PF_SLOT_FILLING and pf_load(&s.n_partitions) == 0):
            continue
        if state != PF_SLOT_WAITING or not s.hurried or s.due_ns <= latest:
            return False
        some = True
    return some


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
