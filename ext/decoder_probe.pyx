# cython: language_level=3
"""DecoderProbe: a decoder over one batch of private memory, for tests and benchmarks.

Tests see every outcome of one payload at a time; benchmarks time the C loop alone, without making
payload pointers from Python objects.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from pythia_fast._ext.decoder cimport PF_DECODED, PF_FULL, PF_REFUSED, NativeDecoder, pf_decoder, pf_refusal
from pythia_fast._ext.plan cimport Layout, pf_columns, pf_columns_reset

cdef extern from "null_row.h" nogil:
    int pf_decode_null(const pf_decoder *decoder, pf_columns *batch, pf_refusal *why)

DECODED = PF_DECODED
REFUSED = PF_REFUSED
FULL = PF_FULL


cdef class DecoderProbe:
    """One batch, and the decoder that fills it.

    ``layout``: where its columns lie, with base 0. ``decoder``: any compiled decoder of the same plan.
    """

    cdef readonly Layout layout
    cdef readonly NativeDecoder decoder
    cdef pf_columns columns
    cdef uint8_t *memory
    cdef uint8_t *payloads  # of run(), one after the other
    cdef uint64_t *ends     # where each ends
    cdef Py_ssize_t n_payloads

    def __cinit__(self, Layout layout not None, NativeDecoder decoder not None):
        if decoder.decoder == NULL:
            raise ValueError("the decoder was not initialised")
        self.layout = layout
        self.decoder = decoder
        self.memory = <uint8_t *>calloc(1, layout.base + layout.bytes + 64)
        if self.memory == NULL:
            raise MemoryError()
        self.columns.base = self.memory
        self.columns.columns = layout.columns
        self.columns.n_columns = layout.n_columns
        self.columns.capacity = layout.capacity
        pf_columns_reset(&self.columns)

    def __dealloc__(self):
        free(self.memory)
        free(self.payloads)
        free(self.ends)

    @property
    def rows(self):
        """Complete rows in the batch."""
        return self.columns.rows

    def reset(self):
        """Start an empty batch."""
        pf_columns_reset(&self.columns)

    def decode(self, payload):
        """Decode one bytes-like object, or None for a null value.

        Returns (outcome, reason, found, column, at); all but the outcome are 0 unless it is REFUSED.
        """
        cdef pf_decoder *decoder = self.decoder.decoder
        cdef pf_refusal why
        cdef Py_buffer buffer
        cdef int outcome
        if payload is None:
            outcome = pf_decode_null(decoder, &self.columns, &why)
        else:
            PyObject_GetBuffer(payload, &buffer, PyBUF_SIMPLE)
            outcome = decoder.decode(decoder, &self.columns, <const uint8_t *>buffer.buf, <size_t>buffer.len, &why)
            PyBuffer_Release(&buffer)
        if outcome != PF_REFUSED:
            return outcome, 0, 0, 0, 0
        return outcome, why.reason, why.found, why.column, why.at

    def snapshot(self):
        """A copy of the batch's memory; ``layout.describe()`` tells what lies where."""
        return PyBytes_FromStringAndSize(<const char *>self.memory, <Py_ssize_t>(self.layout.base + self.layout.bytes))

    def load(self, list payloads not None):
        """Copy bytes objects into one buffer, one after the other, for run()."""
        cdef bytes payload
        cdef uint64_t at = 0
        cdef Py_ssize_t i = 0
        cdef uint64_t total = sum(map(len, payloads))
        free(self.payloads)
        free(self.ends)
        self.n_payloads = 0
        self.payloads = <uint8_t *>malloc(total + 1)
        self.ends = <uint64_t *>malloc((len(payloads) + 1) * sizeof(uint64_t))
        if self.payloads == NULL or self.ends == NULL:
            raise MemoryError()
        for payload in payloads:
            memcpy(self.payloads + at, PyBytes_AS_STRING(payload), <size_t>PyBytes_GET_SIZE(payload))
            at += <uint64_t>PyBytes_GET_SIZE(payload)
            self.ends[i] = at
            i += 1
        self.n_payloads = i

    def run(self):
        """Decode the loaded payloads without the GIL, starting an empty batch each time one is full.

        Returns the rows decoded.
        """
        cdef pf_decoder *decoder = self.decoder.decoder
        cdef pf_refusal why
        cdef uint64_t at = 0, rows = 0
        cdef Py_ssize_t i
        cdef int outcome
        with nogil:
            pf_columns_reset(&self.columns)
            for i in range(self.n_payloads):
                outcome = decoder.decode(decoder, &self.columns, self.payloads + at, self.ends[i] - at, &why)
                if outcome == PF_FULL:
                    pf_columns_reset(&self.columns)
                    outcome = decoder.decode(decoder, &self.columns, self.payloads + at, self.ends[i] - at, &why)
                rows += outcome == PF_DECODED
                at = self.ends[i]
        return rows
