# The arena as other compiled modules see it.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "ring.h":
    ctypedef struct pf_arena:
        uint64_t arena_bytes
        uint32_t n_workers
        uint32_t n_slots
        uint32_t slot_capacity
        uint32_t credit
        uint64_t slot_bytes
        uint64_t slots_at
        uint64_t raw_bytes

cdef class Arena:
    cdef pf_arena *arena
    cdef readonly int fd
    cdef readonly object layout
    cdef uint8_t **_slot_address
    cdef int _owner_pid
