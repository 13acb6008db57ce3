# The memory of an arena as other compiled modules see it.
from arena_layout cimport pf_arena, pf_slot
from libc.stdint cimport uint8_t, uint32_t

from pythia_fast._ext.plan cimport Layout

cdef extern from "ring.h":
    pf_slot *pf_slot_at(pf_arena *arena, uint32_t slot) nogil

cdef class ArenaMemory:
    cdef pf_arena *arena
    cdef readonly int fd
    cdef readonly Layout layout
    cdef uint8_t **_slot_address  # of this process; a slot moves when its old views were given a copy

cdef inline pf_slot *slot_of(ArenaMemory memory, uint32_t slot) except NULL:
    """A slot in the arena's own mapping. Raises IndexError for one that there is not."""
    if slot >= memory.arena.n_slots:
        raise IndexError(f"slot {slot} of {memory.arena.n_slots}")
    return pf_slot_at(memory.arena, slot)
