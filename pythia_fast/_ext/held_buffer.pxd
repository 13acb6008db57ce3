# cython: language_level=3
from libc.stdint cimport uint8_t


cdef class HeldBuffer:
    cdef Py_buffer _view
    cdef uint8_t *bytes  # never NULL; to be written only where that was asked for
    cdef size_t size  # in bytes
    cdef size_t items
