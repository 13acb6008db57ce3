# cython: language_level=3
"""The reader of chunks (stream_frames.h) and of AMQP 1.0 messages (amqp1_message.h), driven from Python: for tests."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef extern from "crc32.h" nogil:
    ctypedef struct pf_crc32:
        pass
    void pf_crc32_init(pf_crc32 *tables)
    uint32_t pf_crc32_of(const pf_crc32 *tables, const uint8_t *data, size_t size)

cdef extern from "stream_frames.h" nogil:
    enum:
        PF_STREAM_SOUND
    ctypedef struct pf_stream_chunk:
        uint8_t subscription, type
        uint16_t entries
        uint32_t records, crc
        int64_t timestamp_ms
        uint64_t first
        const uint8_t *data
        uint32_t data_size
    ctypedef struct pf_stream_entry:
        const uint8_t *bytes
        uint32_t size
        uint32_t is_batch, compression, records, unpacked_size
        size_t next
    int pf_stream_read_chunk(const uint8_t *frame, size_t size, pf_stream_chunk *chunk)
    int pf_stream_read_entry(const uint8_t *data, size_t size, size_t at, pf_stream_entry *entry)

cdef extern from "amqp1_message.h" nogil:
    ctypedef struct pf_amqp_text:
        uint8_t *bytes
        size_t size
    ctypedef struct pf_amqp1_message:
        const uint8_t *key_name
        size_t key_name_size
        const uint8_t *payload
        size_t size
        const uint8_t *key
        int32_t key_size
        int64_t timestamp_ms
        pf_amqp_text headers
    int pf_amqp1_read(pf_amqp1_message *message, const uint8_t *data, size_t size)
    void pf_amqp1_free(pf_amqp1_message *message)


def crc32(bytes data not None):
    cdef pf_crc32 tables
    pf_crc32_init(&tables)
    return pf_crc32_of(&tables, <const uint8_t *><const char *>data, <size_t>len(data))


def read_chunk(bytes frame not None):
    """A Deliver frame without its size: (fault, None), or (0, its header and its entries)."""
    cdef pf_stream_chunk chunk
    cdef pf_stream_entry entry
    cdef size_t at = 0
    cdef int fault = pf_stream_read_chunk(<const uint8_t *><const char *>frame, <size_t>len(frame), &chunk)
    if fault != PF_STREAM_SOUND:
        return fault, None
    entries = []
    while pf_stream_read_entry(chunk.data, chunk.data_size, at, &entry):
        content = PyBytes_FromStringAndSize(<const char *>entry.bytes, <Py_ssize_t>entry.size)
        entries.append((entry.is_batch, entry.compression, entry.records, entry.unpacked_size, content))
        at = entry.next
    header = {
        "subscription": chunk.subscription, "type": chunk.type, "entries": chunk.entries, "records": chunk.records,
        "crc": chunk.crc, "timestamp_ms": chunk.timestamp_ms, "first": chunk.first, "data_size": chunk.data_size,
    }
    return fault, (header, entries, at)


def read_message(bytes data not None, bytes key_name=None):
    """(payload, key, headers, timestamp in ms), or None for what is no message."""
    cdef pf_amqp1_message message
    memset(&message, 0, sizeof(message))
    if key_name is not None:
        message.key_name = <const uint8_t *><const char *>key_name
        message.key_name_size = <size_t>len(key_name)
    try:
        if not pf_amqp1_read(&message, <const uint8_t *><const char *>data, <size_t>len(data)):
            return None
        payload = None
        if message.payload != NULL:
            payload = PyBytes_FromStringAndSize(<const char *>message.payload, <Py_ssize_t>message.size)
        key = None
        if message.key_size >= 0:
            key = PyBytes_FromStringAndSize(<const char *>message.key, message.key_size)
        headers = PyBytes_FromStringAndSize(<const char *>message.headers.bytes, <Py_ssize_t>message.headers.size)
        return payload, key, headers, message.timestamp_ms
    finally:
        pf_amqp1_free(&message)
