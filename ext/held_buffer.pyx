# cython: language_level=3
"""HeldBuffer: the memory of an object, for as long as it is looked at.

Cython's typed memoryviews do the same, with code of their own in each module, which takes longer to compile than all
the rest of most.
"""

from cpython.buffer cimport PyBUF_ND, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t

cdef uint8_t NOTHING = 0


cdef class HeldBuffer:
    """The bytes of ``source``, in one piece, until this is gone.

    Raises ValueError where its items are not of ``item_bytes``; what ``source`` raises where it has no such memory, or,
    for ``writable``, memory that must not be written.
    """

    def __cinit__(self, source, Py_ssize_t item_bytes=1, bint writable=False):
        PyObject_GetBuffer(source, &self._view, PyBUF_ND | (PyBUF_WRITABLE if writable else 0))
        if self._view.itemsize != item_bytes:
            raise ValueError(f"items of {self._view.itemsize} bytes, where {item_bytes} are needed")
        self.size = <size_t>self._view.len
        self.items = self.size // <size_t>item_bytes
        self.bytes = <uint8_t *>self._view.buf if self.size else &NOTHING

    def __dealloc__(self):
        PyBuffer_Release(&self._view)
