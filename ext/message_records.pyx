# cython: language_level=3
"""A batch's messages as framed records, as they came. The loop is C, in message_records.h."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from arena_layout cimport pf_message

from pythia_fast._ext.held_buffer cimport HeldBuffer


cdef extern from "message_records.h" nogil:
    enum:
        PF_WITH_PLACE
        PF_WITH_TIME
        PF_WITH_OFFSET
        PF_MESSAGES_DONE
        PF_MESSAGES_FULL
        PF_MESSAGES_BROKEN
    ctypedef struct pf_message_place:
        uint32_t index
        int32_t partition
        const uint8_t *topic
        uint32_t topic_size
    int pf_encode_messages(
        const pf_message *messages, const uint8_t *raw, uint64_t raw_bytes, const pf_message_place *places,
        uint32_t n_places, uint32_t what, uint64_t *row, uint64_t end, uint8_t *region, uint64_t region_bytes,
        uint64_t *used)

WITH_PLACE = PF_WITH_PLACE
WITH_TIME = PF_WITH_TIME
WITH_OFFSET = PF_WITH_OFFSET
DONE = PF_MESSAGES_DONE
FULL = PF_MESSAGES_FULL
BROKEN = PF_MESSAGES_BROKEN

MESSAGE_BYTES = sizeof(pf_message)


def encode_messages(messages, raw, list places, uint32_t what, region, uint64_t start, uint64_t end):
    """Frame messages ``start`` up to ``end`` into ``region``: ``(code, next message, bytes)``.

    ``messages``: the batch's table; ``raw``: its raw region. ``places``: (partition index, topic in bytes, partition
    number) of every partition that the batch has messages of. ``what``: WITH_PLACE and the like, added up.
    """
    cdef HeldBuffer table = HeldBuffer(messages)
    cdef HeldBuffer bytes_of = HeldBuffer(raw)
    cdef HeldBuffer target = HeldBuffer(region, writable=True)
    cdef uint64_t row = start, used = 0
    cdef Py_ssize_t i, n = len(places)
    cdef pf_message_place *native
    cdef bytes topic
    cdef int code
    if end < start or end * sizeof(pf_message) > <uint64_t>table.size:
        raise ValueError(f"{table.size} bytes are no table of {end} messages")
    if start == end:
        return DONE, end, 0
    if target.size == 0:
        return FULL, start, 0
    native = <pf_message_place *>calloc(<size_t>n + 1, sizeof(pf_message_place))
    if native == NULL:
        raise MemoryError
    try:
        for i in range(n):
            index, topic, number = places[i]
            native[i].index = index
            native[i].partition = number
            native[i].topic = <const uint8_t *>PyBytes_AS_STRING(topic)
            native[i].topic_size = <uint32_t>PyBytes_GET_SIZE(topic)
        with nogil:
            code = pf_encode_messages(
                <const pf_message *>table.bytes, bytes_of.bytes, <uint64_t>bytes_of.size, native, <uint32_t>n, what,
                &row, end, target.bytes, <uint64_t>target.size, &used)
    finally:
        free(native)
    return code, row, used
