# The arena as other compiled modules see it.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pythia_fast._ext.plan cimport Layout

cdef extern from "ring.h":
    ctypedef struct pf_arena:
        uint64_t magic
        uint64_t arena_bytes
        uint32_t n_workers, n_slots, slot_capacity, credit, n_spares
        uint64_t slot_bytes, workers_at, spares_at, names_at, slots_at
        uint64_t partitions_at, messages_at, good_at, refusals_at, status_at, retries_at, columns_at
        uint64_t raw_at, raw_bytes, errors_at, errors_bytes, output_at, output_bytes
        uint32_t done_signal, done_waiting, epoch, circuit

cdef class Arena:
    cdef pf_arena *arena
    cdef readonly int fd
    cdef readonly Layout layout
    cdef uint8_t **_slot_address  # of this process; a slot moves when its old views were given a copy
