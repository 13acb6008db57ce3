# cython: language_level=3
"""Output columns and payloads to framed records in a given memory region (kernel: ext/row_encoder.h).

This module checks shapes and lengths, so that the kernel may trust its pointers; what a handler may
return, and how it becomes columns, is decided in pythia_fast/results/outputs.py.
"""

from cpython.buffer cimport PyBUF_STRIDED_RO, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "number_text.h":
    ctypedef struct pf_pow10:
        uint64_t high
        uint64_t low
    enum:
        PF_POW10_MIN
        PF_POW10_MAX
    pf_pow10 pf_pow10_table[]
    int32_t pf_pow10_exponent(int32_t k) nogil

cdef extern from "row_encoder.h":
    enum:
        PF_OUT_BOOL
        PF_OUT_BOOL_BITS
        PF_OUT_INT8
        PF_OUT_INT16
        PF_OUT_INT32
        PF_OUT_INT64
        PF_OUT_UINT8
        PF_OUT_UINT16
        PF_OUT_UINT32
        PF_OUT_UINT64
        PF_OUT_FLOAT32
        PF_OUT_FLOAT64
        PF_OUT_DATETIME
        PF_OUT_STRING
        PF_OUT_BYTES
        PF_OUT_ENCODED
        PF_OUT_LIST
        PF_OUT_STRUCT
    enum:
        PF_SPANS_OFFSETS32
        PF_SPANS_OFFSETS64
        PF_SPANS_POINTERS
    enum:
        PF_ENCODE_DONE
        PF_ENCODE_FULL
        PF_ENCODE_UTF8
        PF_ENCODE_DATETIME
        PF_ENCODE_SIZE

    ctypedef struct pf_span:
        const uint8_t *bytes
        int64_t size

    ctypedef struct pf_out_column:
        uint8_t kind
        uint8_t spans
        uint32_t end
        const uint8_t *data
        int64_t stride
        const void *offsets
        const uint8_t *valid_bytes
        int64_t valid_stride
        const uint8_t *valid_bits
        int64_t valid_bit_offset
        const uint8_t *prefix
        uint32_t prefix_size

    ctypedef struct pf_out:
        uint8_t *begin
        uint8_t *at
        uint8_t *end

    ctypedef struct pf_encoded:
        int64_t row
        int32_t column
        uint64_t bytes
        uint64_t records

    int pf_encode_rows(
        const pf_out_column *columns, uint32_t n_columns, const pf_out_column *key, int msgpack,
        int64_t start, int64_t rows, uint8_t *region, uint64_t region_bytes, pf_encoded *encoded) nogil
    int pf_put_record(pf_out *out, const uint8_t *payload, uint64_t size) nogil


BOOL, BOOL_BITS = PF_OUT_BOOL, PF_OUT_BOOL_BITS
INT8, INT16, INT32, INT64 = PF_OUT_INT8, PF_OUT_INT16, PF_OUT_INT32, PF_OUT_INT64
UINT8, UINT16, UINT32, UINT64 = PF_OUT_UINT8, PF_OUT_UINT16, PF_OUT_UINT32, PF_OUT_UINT64
FLOAT32, FLOAT64 = PF_OUT_FLOAT32, PF_OUT_FLOAT64
DATETIME, STRING, BYTES, ENCODED = PF_OUT_DATETIME, PF_OUT_STRING, PF_OUT_BYTES, PF_OUT_ENCODED

DONE, FULL = PF_ENCODE_DONE, PF_ENCODE_FULL
BAD_UTF8, BAD_DATETIME, TOO_LARGE = PF_ENCODE_UTF8, PF_ENCODE_DATETIME, PF_ENCODE_SIZE

cdef dict _WIDTHS = {
    PF_OUT_BOOL: 1, PF_OUT_INT8: 1, PF_OUT_INT16: 2, PF_OUT_INT32: 4, PF_OUT_INT64: 8, PF_OUT_UINT8: 1,
    PF_OUT_UINT16: 2, PF_OUT_UINT32: 4, PF_OUT_UINT64: 8, PF_OUT_FLOAT32: 4, PF_OUT_FLOAT64: 8, PF_OUT_DATETIME: 8,
}


cdef int _fill_powers() except -1:
    """The powers of ten that pf_write_double needs: 10^k rounded up to 128 bits."""
    for k in range(PF_POW10_MIN, PF_POW10_MAX + 1):
        shift = 127 - pf_pow10_exponent(k)
        if k < 0:
            power = -(-(1 << shift) // 10 ** -k)
        elif shift < 0:
            power = -(-(10 ** k) >> -shift)
        else:
            power = 10 ** k << shift
        pf_pow10_table[<Py_ssize_t>(k - PF_POW10_MIN)].high = power >> 64
        pf_pow10_table[<Py_ssize_t>(k - PF_POW10_MIN)].low = power & 0xFFFFFFFFFFFFFFFF
    return 0


_fill_powers()


cdef class _Borrowed:
    """One exported buffer, held as long as this object lives."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, source):
        PyObject_GetBuffer(source, &self.view, PyBUF_STRIDED_RO)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class RowEncoder:
    """Columns of one result, ready to be written as one object a row.

    Parameters:
        rows: values in every column.
        msgpack: MessagePack maps instead of JSON objects.
        n_columns: columns that will be added, those inside of others too, the key column not counted.

    The ``add_*`` and ``begin_*`` methods take ``prefix``: the column's name as it stands before each value (in JSON
    with its colon); nothing for the values of a list. ``prefix=None`` makes it the key column. ``valid``: one byte a
    value, 0 = null. Raises ValueError when a length does not fit the rows, or the values of the list around it.

    What is added between ``begin_list`` or ``begin_struct`` and its ``end`` is inside of it: one column in a list, as
    long as the lists together; the fields of a Struct, each with as many values as there are Structs.
    """

    cdef readonly int64_t rows
    cdef bint msgpack
    cdef uint32_t n_columns
    cdef uint32_t added
    cdef bint has_key
    cdef pf_out_column *columns  # the key column stands behind the others
    cdef int64_t length  # values that a column which is added now has
    cdef list open  # (index, length around it) of the lists and Structs that have begun
    cdef list kept

    def __cinit__(self, rows, msgpack, n_columns):
        self.rows = rows
        self.length = rows
        self.msgpack = msgpack
        self.n_columns = n_columns
        self.open = []
        self.kept = []
        self.columns = <pf_out_column *>calloc(n_columns + 1, sizeof(pf_out_column))
        if self.columns == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.columns)

    cdef pf_out_column *_next(self, prefix, int kind) except NULL:
        cdef pf_out_column *column
        if prefix is None:
            column = &self.columns[self.n_columns]
            self.has_key = True
        else:
            if self.added >= self.n_columns:
                raise ValueError("more columns than announced")
            column = &self.columns[self.added]
            self.added += 1
            self.kept.append(prefix)
            column.prefix = <const uint8_t *>PyBytes_AS_STRING(prefix)
            column.prefix_size = <uint32_t>PyBytes_GET_SIZE(prefix)
            column.end = self.added
        column.kind = <uint8_t>kind
        return column

    cdef _Borrowed _borrow(self, source, Py_ssize_t itemsize, Py_ssize_t items):
        """Export the buffer of a 1-D array of at least ``items`` items of ``itemsize`` bytes."""
        cdef _Borrowed borrowed = _Borrowed(source)
        if borrowed.view.ndim != 1 or borrowed.view.itemsize != itemsize:
            raise ValueError(f"expected a 1-D buffer of {itemsize}-byte items")
        if borrowed.view.shape[0] < items:
            raise ValueError(f"buffer has {borrowed.view.shape[0]} items, {items} are needed")
        self.kept.append(borrowed)
        return borrowed

    cdef int _set_valid(self, pf_out_column *column, valid) except -1:
        cdef _Borrowed borrowed
        if valid is not None:
            borrowed = self._borrow(valid, 1, self.length)
            column.valid_bytes = <const uint8_t *>borrowed.view.buf
            column.valid_stride = borrowed.view.strides[0]
        return 0

    def add_values(self, prefix, int kind, values, valid=None):
        """A fixed-width column: a 1-D buffer of native values, strided as it likes."""
        cdef _Borrowed borrowed = self._borrow(values, _WIDTHS[kind], self.length)
        cdef pf_out_column *column = self._next(prefix, kind)
        column.data = <const uint8_t *>borrowed.view.buf
        column.stride = borrowed.view.strides[0]
        self._set_valid(column, valid)

    def add_bits(self, prefix, int kind, bits, int64_t bit_offset):
        """A bool column held as a bitmap, least significant bit first."""
        cdef _Borrowed borrowed = self._borrow(bits, 1, (bit_offset + self.length + 7) // 8)
        cdef pf_out_column *column = self._next(prefix, kind)
        column.data = <const uint8_t *>borrowed.view.buf
        column.stride = bit_offset

    def set_valid_bits(self, bits, int64_t bit_offset, bint key=False):
        """Validity bitmap of the column added last (of the key column with ``key``)."""
        cdef _Borrowed borrowed = self._borrow(bits, 1, (bit_offset + self.length + 7) // 8)
        cdef pf_out_column *column = &self.columns[self.n_columns if key else self.added - 1]
        column.valid_bits = <const uint8_t *>borrowed.view.buf
        column.valid_bit_offset = bit_offset

    def add_spans(self, prefix, int kind, offsets, data, valid=None):
        """A string or bytes column as Arrow lays it out: int32 or int64 ``offsets[rows + 1]`` into ``data``."""
        cdef _Borrowed bytes_view = self._borrow(data, 1, 0)
        cdef Py_ssize_t width = memoryview(offsets).itemsize
        cdef _Borrowed offsets_view
        cdef pf_out_column *column
        if width not in (4, 8):
            raise ValueError("offsets must be int32 or int64")
        offsets_view = self._borrow(offsets, width, self.length + 1)
        if offsets_view.view.strides[0] != width or bytes_view.view.strides[0] != 1:
            raise ValueError("offsets and data must be contiguous")
        if not _spans_within(offsets_view.view.buf, width == 8, self.length, bytes_view.view.len):
            raise ValueError("offsets must not fall, nor point outside the data")
        column = self._next(prefix, kind)
        column.spans = PF_SPANS_OFFSETS64 if width == 8 else PF_SPANS_OFFSETS32
        column.data = <const uint8_t *>bytes_view.view.buf
        column.offsets = offsets_view.view.buf
        self._set_valid(column, valid)

    def begin_list(self, prefix, offsets, valid=None):
        """A column of lists: int32 ``offsets[rows + 1]`` into the one column that is added before its ``end``."""
        cdef _Borrowed offsets_view = self._borrow(offsets, 4, self.length + 1)
        cdef const int32_t *places = <const int32_t *>offsets_view.view.buf
        cdef pf_out_column *column
        if offsets_view.view.strides[0] != 4:
            raise ValueError("offsets must be contiguous")
        if not _spans_within(places, False, self.length, places[self.length]):
            raise ValueError("offsets must not fall")
        column = self._next(prefix, PF_OUT_LIST)
        column.offsets = places
        self._set_valid(column, valid)
        self._begin(places[self.length])

    def begin_struct(self, prefix, valid=None):
        """A column of Structs, whose fields are added before its ``end``."""
        cdef pf_out_column *column = self._next(prefix, PF_OUT_STRUCT)
        self._set_valid(column, valid)
        self._begin(self.length)

    cdef _begin(self, int64_t length):
        self.open.append((self.added - 1, self.length))
        self.length = length

    def end(self):
        """What is added from now on is outside of the list or Struct that began last.

        Raises ValueError where none is open, or a list has another number of columns than one.
        """
        cdef uint32_t index
        if not self.open:
            raise ValueError("no list and no Struct is open")
        index, self.length = self.open.pop()
        if self.columns[index].kind == PF_OUT_LIST and (
                self.added == index + 1 or self.columns[index + 1].end != self.added):
            raise ValueError("a list has one column of values")
        self.columns[index].end = self.added

    def add_objects(self, prefix, int kind, tuple values):
        """A column of str (``kind`` STRING), of bytes (BYTES, ENCODED), or of either (key column); None is null.

        Raises TypeError for any other object, UnicodeEncodeError for a str with lone surrogates.
        """
        cdef Py_ssize_t i, size, n = len(values)
        cdef const char *text
        cdef object value
        cdef bint takes_str = prefix is None or kind == PF_OUT_STRING
        cdef bint takes_bytes = prefix is None or kind != PF_OUT_STRING
        cdef _Spans spans = _Spans(n)
        cdef pf_out_column *column
        if n != self.length:
            raise ValueError(f"{n} values for {self.length} rows")
        for i in range(n):
            value = values[i]
            if value is None:
                spans.items[i].size = -1
            elif takes_str and PyUnicode_Check(value):
                text = PyUnicode_AsUTF8AndSize(value, &size)
                spans.items[i].bytes = <const uint8_t *>text
                spans.items[i].size = size
            elif takes_bytes and PyBytes_Check(value):
                spans.items[i].bytes = <const uint8_t *>PyBytes_AS_STRING(value)
                spans.items[i].size = PyBytes_GET_SIZE(value)
            else:
                raise TypeError(f"row {i} is {type(value).__name__}")
        self.kept.append(values)
        self.kept.append(spans)
        column = self._next(prefix, kind)
        column.spans = PF_SPANS_POINTERS
        column.offsets = spans.items

    def encode(self, region, int64_t start, int64_t end):
        """Write the rows from ``start`` up to ``end`` until all are written, the region is full, or a row fails.

        Returns ``(code, row, column, bytes, records)``: DONE, FULL, BAD_UTF8, BAD_DATETIME or TOO_LARGE;
        the first row not written; the column that failed (-1: none); bytes and records written.
        """
        cdef Py_buffer target
        cdef pf_encoded encoded
        cdef pf_out_column *key = &self.columns[self.n_columns] if self.has_key else NULL
        cdef int code
        if self.open or self.added != self.n_columns or not 0 <= start <= end <= self.rows:
            raise ValueError("columns are missing, or start and end lie outside the rows")
        encoded.column = -1
        PyObject_GetBuffer(region, &target, PyBUF_WRITABLE)
        try:
            with nogil:
                code = pf_encode_rows(
                    self.columns, self.n_columns, key, self.msgpack, start, end,
                    <uint8_t *>target.buf, <uint64_t>target.len, &encoded)
        finally:
            PyBuffer_Release(&target)
        return code, encoded.row, encoded.column, encoded.bytes, encoded.records


cdef class _Spans:
    cdef pf_span *items

    def __cinit__(self, Py_ssize_t n):
        self.items = <pf_span *>calloc(n + 1, sizeof(pf_span))
        if self.items == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.items)


cdef bint _spans_within(const void *offsets, bint wide, int64_t rows, int64_t size) noexcept:
    """0 <= offsets[0] <= offsets[1] <= ... <= offsets[rows] <= size."""
    cdef int64_t i, value, last = 0
    for i in range(rows + 1):
        value = (<const int64_t *>offsets)[i] if wide else (<const int32_t *>offsets)[i]
        if value < last:
            return False
        last = value
    return last <= size


def encode_payloads(list payloads, region, int64_t start, int64_t end):
    """Frame ready payloads (bytes) from ``start`` up to ``end``. Returns ``(code, next index, bytes, records)``."""
    cdef Py_buffer target
    cdef pf_out out
    cdef Py_ssize_t i, n = len(payloads)
    cdef int code = PF_ENCODE_DONE
    cdef bytes payload
    if not 0 <= start <= end <= n:
        raise ValueError("start and end lie outside the payloads")
    PyObject_GetBuffer(region, &target, PyBUF_WRITABLE)
    try:
        out.begin = out.at = <uint8_t *>target.buf
        out.end = out.begin + target.len
        i = start
        while i < end:
            payload = payloads[i]
            code = pf_put_record(&out, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
            if code != PF_ENCODE_DONE:
                break
            i += 1
        return code, i, out.at - out.begin, i - start
    finally:
        PyBuffer_Release(&target)
