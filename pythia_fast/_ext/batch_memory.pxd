# A batch's memory as other compiled modules (Arrow export, row encoder) see it.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pythia_fast._ext.plan cimport Layout, pf_column

cdef class Region:
    cdef readonly str name
    cdef uint8_t *data
    cdef Py_ssize_t size
    cdef readonly Py_ssize_t exports
    cdef object owner
    cdef bint writable
    cdef bint closed

cdef class OwnedMemory:
    cdef void *allocation
    cdef uint8_t *base

cdef class BatchMemory:
    cdef uint8_t *base
    cdef readonly Layout layout
    cdef readonly uint32_t rows
    cdef readonly uint64_t messages_at
    cdef readonly uint64_t status_at
    cdef readonly uint64_t raw_at
    cdef readonly uint64_t raw_bytes
    cdef readonly object owner
    cdef BatchMemory raw_of  # whose raw region the messages point into; None: this one's
    cdef list regions
    cdef bint closed

    cdef Region _region(self, str name, uint64_t at, uint64_t size, bint writable=*)
    cdef pf_column *_column(self, uint32_t index) except NULL
    cdef str _name(self, uint32_t index)
