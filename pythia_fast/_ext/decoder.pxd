# Shared by every decoder: how a source thread, or a batch, reaches it.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t

from pythia_fast._ext.plan cimport Plan, pf_columns, pf_plan

cdef extern from "decoder.h" nogil:
    enum:
        PF_DECODED
        PF_REFUSED
        PF_FULL
        PF_UNKNOWN
    ctypedef struct pf_refusal:
        uint8_t reason
        uint8_t found
        uint16_t reserved
        int32_t column
        uint64_t at
    ctypedef struct pf_decoder:
        int (*decode)(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size,
                      pf_refusal *why) noexcept nogil
        const pf_plan *null_rows

cdef class NativeDecoder:
    cdef pf_decoder *decoder
    cdef Plan null_rows  # keeps the plan alive that `decoder` looks at
