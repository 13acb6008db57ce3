# cython: language_level=3
"""Loops over columns of strings or bytes: comparing, gathering, and making Python objects.

A column is ``offsets`` (int32[n + 1], never falling) and ``data`` (uint8). What cannot hold is refused
before a loop begins, so that the loops run without checks and without the GIL.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memcmp, memcpy


cdef inline const uint8_t *_start(const uint8_t[::1] data) noexcept nogil:
    return &data[0] if data.shape[0] else NULL


cdef int _check(const int32_t[::1] offsets, const uint8_t[::1] data) except -1:
    cdef Py_ssize_t i
    cdef bint fits = offsets.shape[0] >= 1 and offsets[0] >= 0 and offsets[offsets.shape[0] - 1] <= data.shape[0]
    if fits:
        with nogil:
            for i in range(offsets.shape[0] - 1):
                fits &= offsets[i] <= offsets[i + 1]
    if not fits:
        raise ValueError("offsets do not fit the data")
    return 0


def equal_to(const int32_t[::1] offsets not None, const uint8_t[::1] data not None, bytes wanted not None,
             uint8_t[::1] found not None):
    """found[i] |= value i equals ``wanted``."""
    cdef const uint8_t *start
    cdef const uint8_t *text = wanted
    cdef Py_ssize_t i
    cdef Py_ssize_t size = len(wanted)
    _check(offsets, data)
    if found.shape[0] != offsets.shape[0] - 1:
        raise ValueError("found has the wrong length")
    start = _start(data)
    with nogil:
        for i in range(found.shape[0]):
            if offsets[i + 1] - offsets[i] == size and (size == 0 or memcmp(start + offsets[i], text, size) == 0):
                found[i] = 1


def equal_pairs(const int32_t[::1] offsets not None, const uint8_t[::1] data not None,
                const int32_t[::1] other_offsets not None, const uint8_t[::1] other_data not None,
                uint8_t[::1] found not None):
    """found[i] = value i equals the other column's value i."""
    cdef const uint8_t *start
    cdef const uint8_t *other_start
    cdef Py_ssize_t i
    cdef int32_t size
    _check(offsets, data)
    _check(other_offsets, other_data)
    if found.shape[0] != offsets.shape[0] - 1 or offsets.shape[0] != other_offsets.shape[0]:
        raise ValueError("the columns differ in length")
    start, other_start = _start(data), _start(other_data)
    with nogil:
        for i in range(found.shape[0]):
            size = offsets[i + 1] - offsets[i]
            found[i] = size == other_offsets[i + 1] - other_offsets[i] and (
                size == 0 or memcmp(start + offsets[i], other_start + other_offsets[i], <size_t>size) == 0)


def gathered_offsets(const int32_t[::1] offsets not None, const int64_t[::1] indices not None,
                     int32_t[::1] gathered not None):
    """Offsets of the values at ``indices`` laid end to end; returns their size in bytes.

    Raises IndexError for an index outside the column, ValueError beyond 2 GiB.
    """
    cdef int64_t n = offsets.shape[0] - 1
    cdef int64_t size = 0
    cdef Py_ssize_t i
    if gathered.shape[0] != indices.shape[0] + 1:
        raise ValueError("gathered has the wrong length")
    gathered[0] = 0
    for i in range(indices.shape[0]):
        if not 0 <= indices[i] < n:
            raise IndexError(f"index {indices[i]} is out of range for {n} values")
        size += offsets[indices[i] + 1] - offsets[indices[i]]
        if size > INT32_MAX:
            raise ValueError("the gathered values are larger than 2 GiB")
        gathered[i + 1] = <int32_t>size
    return size


def gather(const int32_t[::1] offsets not None, const uint8_t[::1] data not None,
           const int64_t[::1] indices not None, const int32_t[::1] gathered not None,
           uint8_t[::1] target not None):
    """Copy the values at ``indices`` to where ``gathered_offsets`` put them."""
    cdef Py_ssize_t i
    _check(offsets, data)
    _check(gathered, target)
    if gathered.shape[0] != indices.shape[0] + 1:
        raise ValueError("gathered has the wrong length")
    for i in range(indices.shape[0]):
        if not 0 <= indices[i] < offsets.shape[0] - 1 or (
                offsets[indices[i] + 1] - offsets[indices[i]] != gathered[i + 1] - gathered[i]):
            raise ValueError("gathered does not belong to these indices")
    with nogil:
        for i in range(indices.shape[0]):
            if gathered[i + 1] > gathered[i]:
                memcpy(&target[gathered[i]], &data[offsets[indices[i]]], <size_t>(gathered[i + 1] - gathered[i]))


def to_list(const int32_t[::1] offsets not None, const uint8_t[::1] data not None, const uint8_t[::1] valid, bint text):
    """One str (``text``) or bytes a value; None where ``valid`` (bytes of 0 and 1, or None) says so."""
    cdef const char *start
    cdef char nothing = 0
    cdef Py_ssize_t i
    cdef Py_ssize_t n = offsets.shape[0] - 1
    _check(offsets, data)
    if valid is not None and valid.shape[0] != n:
        raise ValueError("valid has the wrong length")
    start = <const char *>_start(data) if data.shape[0] else &nothing
    values = [None] * n
    for i in range(n):
        if valid is not None and not valid[i]:
            continue
        if text:
            values[i] = PyUnicode_DecodeUTF8(start + offsets[i], offsets[i + 1] - offsets[i], NULL)
        else:
            values[i] = PyBytes_FromStringAndSize(start + offsets[i], offsets[i + 1] - offsets[i])
    return values
