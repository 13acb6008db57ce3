# cython: language_level=3
"""Which lane each row of a batch is of (ext/lane.h)."""

from arena_layout cimport pf_message
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from pythia_fast._ext.batch_memory cimport BatchMemory
from pythia_fast._ext.held_buffer cimport HeldBuffer

cdef extern from "lane.h" nogil:
    enum:
        PF_BY_PARTITION
        PF_BY_KEY
    uint64_t pf_lane(uint32_t ordering, const uint8_t *key, int32_t key_size, uint32_t partition)


def lanes_of(BatchMemory memory not None, bint by_key, lanes):
    """Fill ``lanes`` with a number for each row: rows of one lane have the same one. Two lanes may share theirs.

    Raises ValueError for an array of another length than the batch, IndexError for a key outside of the batch's bytes.
    """
    cdef const pf_message *table = <const pf_message *>(memory.base + memory.messages_at)
    cdef const uint8_t *raw = memory.base + memory.raw_at
    cdef HeldBuffer held = HeldBuffer(lanes, sizeof(uint64_t), writable=True)
    cdef uint64_t *into = <uint64_t *>held.bytes
    cdef uint32_t i
    if held.items != memory.rows:
        raise ValueError(f"{held.items} lanes for {memory.rows} rows")
    for i in range(memory.rows):
        if by_key and table[i].key_size > 0 and table[i].key_at + <uint64_t>table[i].key_size > memory.raw_bytes:
            raise IndexError(f"the key of row {i} lies outside of the batch")
        into[i] = pf_lane(PF_BY_KEY if by_key else PF_BY_PARTITION, raw + table[i].key_at, table[i].key_size,
                          table[i].partition)
