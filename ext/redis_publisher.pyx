# cython: language_level=3
"""Records as XADD commands and the answers to them: the GIL side of redis_outbox.h. One thread at a time."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy


cdef extern from "resp.h" nogil:
    enum:
        PF_RESP_VALUE
        PF_RESP_MORE
        PF_RESP_TEXT
        PF_RESP_ERROR
    ctypedef struct pf_resp_text:
        const uint8_t *bytes
        size_t size
    ctypedef struct pf_resp_event:
        pf_resp_text text
    ctypedef struct pf_resp:
        pass
    void pf_resp_expect(pf_resp *self, uint32_t shape)

cdef extern from "redis_outbox.h" nogil:
    enum:
        PF_REDIS_ADDED
        PF_REDIS_NULL
        PF_REDIS_TOO_LARGE
        PF_REDIS_MALFORMED
    ctypedef struct pf_redis_bytes:
        uint8_t *bytes
        size_t size
    ctypedef struct pf_redis_outbox:
        uint8_t *head
        uint8_t *payload_name
        uint8_t *key_name
        size_t head_size
        size_t payload_name_size
        size_t key_name_size
        uint32_t head_parts
        uint64_t most_bytes
        pf_redis_bytes commands
        pf_redis_bytes answers
        size_t answered
        pf_resp resp
    void pf_redis_outbox_init(pf_redis_outbox *self)
    void pf_redis_outbox_free(pf_redis_outbox *self)
    int pf_redis_outbox_add(
        pf_redis_outbox *self, const uint8_t *records, uint64_t size, uint64_t at, uint64_t *next)
    uint8_t *pf_redis_outbox_room(pf_redis_outbox *self, size_t nbytes)
    int pf_redis_outbox_answer(pf_redis_outbox *self, pf_resp_event *event)

cdef enum:
    ANSWER_BYTES = 65536


cdef uint8_t *copy_of(bytes text, size_t *size) except NULL:
    size[0] = <size_t>len(text)
    cdef uint8_t *made = <uint8_t *>malloc(size[0] if size[0] else 1)
    if made == NULL:
        raise MemoryError
    memcpy(made, PyBytes_AsString(text), size[0])
    return made


cdef class RedisPublisherNative:
    """``head``: the strings of every XADD up to the id, ``parts`` of them; the names are strings of RESP, too."""

    cdef pf_redis_outbox _state

    def __cinit__(self, bytes head, uint32_t parts, bytes payload_name, bytes key_name):
        pf_redis_outbox_init(&self._state)
        self._state.head = copy_of(head, &self._state.head_size)
        self._state.head_parts = parts
        self._state.payload_name = copy_of(payload_name, &self._state.payload_name_size)
        self._state.key_name = copy_of(key_name, &self._state.key_name_size)

    def __dealloc__(self):
        pf_redis_outbox_free(&self._state)

    def build(self, records, uint64_t at, uint32_t most_records, size_t most_bytes):
        """Commands of the records from byte ``at`` on: (commands, how many records, the byte after the last, those that
        have no command: (number among them, whether it is too large; else its payload is null)).

        Raises ValueError for what are no framed records.
        """
        cdef Py_buffer view
        cdef uint64_t next_at = at, size
        cdef uint32_t count = 0
        cdef int outcome
        refused = []
        PyObject_GetBuffer(records, &view, PyBUF_SIMPLE)
        try:
            size = <uint64_t>view.len
            self._state.commands.size = 0
            while at < size and count < most_records and self._state.commands.size < most_bytes:
                outcome = pf_redis_outbox_add(&self._state, <const uint8_t *>view.buf, size, at, &next_at)
                if outcome == PF_REDIS_NULL or outcome == PF_REDIS_TOO_LARGE:
                    refused.append((count, outcome == PF_REDIS_TOO_LARGE))
                elif outcome == PF_REDIS_MALFORMED:
                    raise ValueError(f"no framed record begins at byte {at} of {size}")
                elif outcome != PF_REDIS_ADDED:
                    raise MemoryError
                at = next_at
                count += 1
        finally:
            PyBuffer_Release(&view)
        commands = PyBytes_FromStringAndSize(
            <char *>self._state.commands.bytes, <Py_ssize_t>self._state.commands.size)
        return commands, count, at, refused

    def limit(self, uint64_t most_bytes):
        """The largest string that the server takes."""
        self._state.most_bytes = most_bytes

    def receive(self, sock):
        """Wait for answers: (how many came, [(number among them, error)]). Raises EOFError when no more come.

        Raises ValueError for what is no answer of a Redis server.
        """
        cdef pf_resp_event event
        cdef int kind
        cdef uint32_t count = 0
        cdef uint8_t *room = pf_redis_outbox_room(&self._state, ANSWER_BYTES)
        if room == NULL:
            raise MemoryError
        cdef size_t got = sock.recv_into(PyMemoryView_FromMemory(<char *>room, ANSWER_BYTES, PyBUF_WRITE))
        if got == 0:
            raise EOFError
        self._state.answers.size += got
        errors = []
        while True:
            kind = pf_redis_outbox_answer(&self._state, &event)
            if kind == PF_RESP_MORE:
                return count, errors
            if kind == PF_RESP_ERROR:
                errors.append((count, PyBytes_FromStringAndSize(
                    <const char *>event.text.bytes, <Py_ssize_t>event.text.size).decode("utf-8", "replace")))
            elif kind != PF_RESP_TEXT:
                raise ValueError("an answer to XADD is an id")
            count += 1
            pf_resp_expect(&self._state.resp, PF_RESP_VALUE)

    def forget_answers(self):
        """What comes next is from a new connection."""
        self._state.answers.size = self._state.answered = 0
        pf_resp_expect(&self._state.resp, PF_RESP_VALUE)
