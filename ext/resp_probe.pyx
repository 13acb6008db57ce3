# cython: language_level=3
"""The reader of Redis replies (resp.h), driven from Python: for tests."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "resp.h" nogil:
    ctypedef struct pf_resp_limits:
        size_t bulk_bytes
        size_t entry_bytes
        uint64_t fields
        uint64_t elements
    ctypedef struct pf_resp_text:
        const uint8_t *bytes
        size_t size
    ctypedef struct pf_resp_field:
        pf_resp_text name
        pf_resp_text value
    enum:
        PF_RESP_STREAMS
        PF_RESP_ENTRIES
        PF_RESP_VALUE
        PF_RESP_MORE
        PF_RESP_STREAM
        PF_RESP_ENTRY
        PF_RESP_END
        PF_RESP_NIL
        PF_RESP_NUMBER
        PF_RESP_TEXT
        PF_RESP_ERROR
        PF_RESP_BAD
    ctypedef struct pf_resp_event:
        size_t used
        pf_resp_text text
        int64_t number
        uint8_t has_id
        uint8_t is_gone
        uint64_t ms
        uint64_t seq
        const pf_resp_field *fields
        uint64_t n_fields
    ctypedef struct pf_resp:
        uint32_t bad
        uint64_t bad_number
        const char *expected
    void pf_resp_init(pf_resp *self, pf_resp_limits limits)
    void pf_resp_free(pf_resp *self)
    void pf_resp_expect(pf_resp *self, uint32_t shape)
    int pf_resp_next(pf_resp *self, const uint8_t *data, size_t size, pf_resp_event *event)

STREAMS = PF_RESP_STREAMS
ENTRIES = PF_RESP_ENTRIES
VALUE = PF_RESP_VALUE

NAMES = {
    PF_RESP_STREAM: "stream", PF_RESP_END: "end", PF_RESP_NIL: "nil", PF_RESP_TEXT: "text", PF_RESP_ERROR: "error",
}


cdef bytes copied(pf_resp_text text):
    return PyBytes_FromStringAndSize(<const char *>text.bytes, <Py_ssize_t>text.size)


cdef class Replies:
    """Replies of one shape, one after the other, out of a buffer that ``feed`` appends to."""

    cdef pf_resp _resp
    cdef uint32_t _shape
    cdef bytes _left

    def __cinit__(self, uint32_t shape, *, bulk_bytes=1 << 20, entry_bytes=1 << 20, fields=1024, elements=1 << 20):
        cdef pf_resp_limits limits
        limits.bulk_bytes = bulk_bytes
        limits.entry_bytes = entry_bytes
        limits.fields = fields
        limits.elements = elements
        pf_resp_init(&self._resp, limits)
        pf_resp_expect(&self._resp, shape)
        self._shape = shape
        self._left = b""

    def __dealloc__(self):
        pf_resp_free(&self._resp)

    @property
    def left(self):
        """Bytes that belong to no event yet."""
        return self._left

    def feed(self, bytes more not None):
        """The events that are complete now: tuples that begin with their name."""
        cdef bytes held = self._left + more
        cdef const uint8_t *data = <const uint8_t *><const char *>held
        cdef size_t at = 0, size = <size_t>len(held)
        cdef pf_resp_event event
        cdef uint64_t i
        cdef int kind
        found = []
        while True:
            kind = pf_resp_next(&self._resp, data + at, size - at, &event)
            at += event.used
            if kind == PF_RESP_MORE:
                break
            if kind == PF_RESP_BAD:
                expected = self._resp.expected.decode() if self._resp.expected != NULL else ""
                found.append(("bad", self._resp.bad, self._resp.bad_number, expected))
                break
            if kind == PF_RESP_ENTRY:
                id_ = (event.ms, event.seq) if event.has_id else None
                fields = None if event.is_gone else [
                    (copied(event.fields[i].name), copied(event.fields[i].value)) for i in range(event.n_fields)
                ]
                found.append(("entry", id_, fields))
                continue
            if kind == PF_RESP_NUMBER:
                found.append(("number", event.number))
            elif kind == PF_RESP_END or kind == PF_RESP_NIL:
                found.append((NAMES[kind],))
            else:
                found.append((NAMES[kind], copied(event.text)))
            if kind != PF_RESP_STREAM:
                pf_resp_expect(&self._resp, self._shape)
        self._left = held[at:]
        return found
