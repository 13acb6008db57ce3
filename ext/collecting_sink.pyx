# cython: language_level=3
"""Sinks and a poll for tests and benchmarks of readers: what the intake thread does, driven from Python."""

from collections import namedtuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pythia_fast._ext.source cimport (
    PF_APPENDED,
    PF_SOURCE_CALL,
    PF_SOURCE_END,
    PF_SOURCE_FAILED,
    PF_SOURCE_IDLE,
    PF_SOURCE_MORE,
    PF_SOURCE_SPOOL,
    PF_SOURCE_STALLED,
    PF_STALLED,
    NativeSource,
    pf_incoming,
    pf_sink,
    pf_source,
)

Incoming = namedtuple(
    "Incoming", "payload key headers partition offset next_offset timestamp_ms deliveries cut", defaults=[0, False])

IDLE = PF_SOURCE_IDLE
MORE = PF_SOURCE_MORE
STALLED = PF_SOURCE_STALLED
END = PF_SOURCE_END
FAILED = PF_SOURCE_FAILED
CALL = PF_SOURCE_CALL
SPOOL = PF_SOURCE_SPOOL


cdef struct collecting:
    pf_sink sink  # first: append() gets the struct back from it
    void *owner
    uint64_t count
    uint64_t bytes
    uint64_t stall_after


cdef int collect(pf_sink *self, const pf_incoming *message) noexcept nogil:
    cdef collecting *state = <collecting *>self
    if state.count >= state.stall_after:
        return PF_STALLED
    state.count += 1
    state.bytes += message.size
    with gil:
        (<CollectingSink>state.owner).keep(message)
    return PF_APPENDED


cdef int tally(pf_sink *self, const pf_incoming *message) noexcept nogil:
    cdef collecting *state = <collecting *>self
    if state.count >= state.stall_after:
        return PF_STALLED
    state.count += 1
    state.bytes += message.size
    return PF_APPENDED


cdef class CollectingSink:
    cdef collecting state
    cdef readonly list messages

    def __cinit__(self, *, stall_after=None):
        self.state.sink.append = collect
        self.state.owner = <void *>self
        self.state.stall_after = 2**64 - 1 if stall_after is None else stall_after
        self.messages = []

    def stall_after(self, count=None):
        self.state.stall_after = 2**64 - 1 if count is None else count

    @property
    def count(self):
        return self.state.count

    @property
    def payload_bytes(self):
        return self.state.bytes

    @property
    def payloads(self):
        return [message[0] for message in self.messages]

    cdef void keep(self, const pf_incoming *message) noexcept:
        payload = PyBytes_FromStringAndSize(<const char *>message.payload, <Py_ssize_t>message.size) \
            if message.payload != NULL else None
        key = PyBytes_FromStringAndSize(<const char *>message.key, message.key_size) if message.key_size >= 0 else None
        headers = PyBytes_FromStringAndSize(<const char *>message.headers, message.headers_size) \
            if message.headers_size else b""
        self.messages.append(Incoming(
            payload, key, headers, message.partition, message.offset, message.next_offset, message.timestamp_ms,
            message.deliveries, bool(message.cut),
        ))


cdef class CountingSink(CollectingSink):
    def __cinit__(self, *, stall_after=None):
        self.state.sink.append = tally


def poll(
    NativeSource native not None, CollectingSink sink not None, uint32_t max_messages=1 << 20, int64_t timeout_us=0
):
    cdef pf_source *source = native.source
    cdef int result
    if source == NULL:
        raise ValueError("the source is not open")
    with nogil:
        result = source.poll(source, &sink.state.sink, max_messages, timeout_us)
    return result


def wake(NativeSource native not None):
    cdef pf_source *source = native.source
    source.wake(source)
