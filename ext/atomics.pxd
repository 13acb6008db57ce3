# Words in shared memory, and waiting on one of them.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "atomics.h" nogil:
    uint32_t pf_load(const uint32_t *word)
    uint32_t pf_load_sc(const uint32_t *word)
    void pf_store(uint32_t *word, uint32_t value)
    void pf_store_sc(uint32_t *word, uint32_t value)
    void pf_store64(uint64_t *word, uint64_t value)
    uint64_t pf_load64(const uint64_t *word)
    uint64_t pf_now_ns()
    void pf_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns)
    void pf_wake(uint32_t *word)
