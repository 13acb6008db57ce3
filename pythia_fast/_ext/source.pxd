# Shared by every reader: how the intake thread reaches a source, and what it is given.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef extern from "source.h" nogil:
    enum:
        PF_APPENDED
        PF_STALLED
        PF_SOURCE_IDLE
        PF_SOURCE_MORE
        PF_SOURCE_STALLED
        PF_SOURCE_END
        PF_SOURCE_FAILED
        PF_SOURCE_CALL
        PF_SOURCE_SPOOL
    ctypedef struct pf_incoming:
        const uint8_t *payload
        size_t size
        const uint8_t *key
        int32_t key_size
        const uint8_t *headers
        uint32_t headers_size
        uint32_t partition
        int64_t offset
        int64_t next_offset
        int64_t timestamp_ms
        uint32_t deliveries
        uint8_t cut
    ctypedef struct pf_sink:
        int (*append)(pf_sink *self, const pf_incoming *message) noexcept nogil
    ctypedef struct pf_source:
        int (*poll)(pf_source *self, pf_sink *sink, uint32_t max_messages, int64_t timeout_us) noexcept nogil
        void (*wake)(pf_source *self) noexcept nogil

cdef class NativeSource:
    cdef pf_source *source
