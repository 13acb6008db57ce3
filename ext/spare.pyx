# cython: language_level=3
"""Spare processes: up, and waiting for a place in the pool. A futex word each in the arena (ext/arena_layout.h).

    launched ──▶ setup() ──▶ up ──seat──▶ it holds a place, and its word is free for the next spare
                              └──dismiss──▶ it leaves
"""

from arena_layout cimport PF_SPARE_LEAVES, PF_SPARE_WAITS, pf_spare
from atomics cimport pf_load_sc, pf_store_sc, pf_wait, pf_wake
from libc.stdint cimport int64_t, uint8_t, uint32_t

from pythia_fast._ext.ring cimport Arena


cdef pf_spare *_spare(Arena arena, uint32_t spare) except NULL:
    if spare >= arena.arena.n_spares:
        raise IndexError(f"spare {spare} of {arena.arena.n_spares}")
    return <pf_spare *>(<uint8_t *>arena.arena + arena.arena.spares_at) + spare


def wait_for_place(Arena arena not None, uint32_t spare, double timeout):
    """In the spare: the place it is given; -1 when it is to leave, None when ``timeout`` seconds passed."""
    cdef pf_spare *word = _spare(arena, spare)
    cdef uint32_t place
    pf_store_sc(&word.up, 1)
    with nogil:
        if pf_load_sc(&word.place) == PF_SPARE_WAITS:
            pf_wait(&word.place, PF_SPARE_WAITS, <int64_t>(timeout * 1e9))
    place = pf_load_sc(&word.place)
    if place == PF_SPARE_WAITS:
        return None
    pf_store_sc(&word.up, 0)  # from here on the word may be given to another one
    return -1 if place == PF_SPARE_LEAVES else place - 1


def is_up(Arena arena not None, uint32_t spare):
    """Whether it waits, or has not noticed yet that it was given a place."""
    return pf_load_sc(&_spare(arena, spare).up) != 0


def prepare(Arena arena not None, uint32_t spare):
    """The word's last process has taken a place, or is dead: it is for a new one."""
    cdef pf_spare *word = _spare(arena, spare)
    pf_store_sc(&word.up, 0)
    pf_store_sc(&word.place, PF_SPARE_WAITS)


def seat(Arena arena not None, uint32_t spare, uint32_t worker):
    """Give it a place."""
    cdef pf_spare *word = _spare(arena, spare)
    pf_store_sc(&word.place, worker + 1)
    pf_wake(&word.place)


def dismiss(Arena arena not None, uint32_t spare):
    """Have it leave."""
    cdef pf_spare *word = _spare(arena, spare)
    pf_store_sc(&word.place, PF_SPARE_LEAVES)
    pf_wake(&word.place)
