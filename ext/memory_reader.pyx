# cython: language_level=3
"""MemoryLog: messages in memory as a pf_source. The log itself is C, in memory_log.h."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from pythia_fast._ext.source cimport NativeSource, pf_incoming, pf_source


cdef extern from "memory_log.h" nogil:
    ctypedef struct pf_memory_log:
        pf_source source
        pf_incoming *fixed
        size_t n_fixed
        int64_t *committed
        int64_t *end
        uint32_t n_partitions
        size_t live_bytes
        size_t room_bytes
        uint8_t keep_open
        uint8_t announce

    enum:
        PF_MEMORY_SENT
        PF_MEMORY_ENDED
        PF_MEMORY_FULL

    int pf_memory_init(pf_memory_log *log, size_t n_fixed, uint32_t n_partitions)
    void pf_memory_free(pf_memory_log *log)
    int pf_memory_open(pf_memory_log *log)
    void pf_memory_close(pf_memory_log *log)
    void pf_memory_commit(pf_memory_log *log, uint32_t partition, int64_t position)
    void pf_memory_end(pf_memory_log *log)
    int pf_memory_send(pf_memory_log *log, const pf_incoming *message, int64_t timeout_us)


cdef int fill(
    pf_incoming *message, payload, key, bytes headers, uint32_t partition, int64_t timestamp_ms,
    uint32_t deliveries,
) except -1:
    """Point ``message`` at the bytes of the objects; the caller keeps them alive."""
    cdef bytes body, name
    message.payload = NULL
    message.size = 0
    if payload is not None:
        body = payload
        message.payload = <const uint8_t *><const char *>body
        message.size = <size_t>len(body)
    message.key = NULL
    message.key_size = -1
    if key is not None:
        name = key
        message.key = <const uint8_t *><const char *>name
        message.key_size = <int32_t>len(name)
    message.headers = <const uint8_t *><const char *>headers
    message.headers_size = <uint32_t>len(headers)
    message.partition = partition
    message.timestamp_ms = timestamp_ms
    message.deliveries = deliveries
    message.cut = False
    return 0


cdef class MemoryLog(NativeSource):
    cdef pf_memory_log log
    cdef list pinned  # the objects that log.fixed points into

    def __cinit__(self, entries, uint32_t partitions, bint keep_open, size_t room_bytes):
        cdef size_t i
        cdef uint32_t partition
        cdef pf_incoming *message
        if partitions == 0:
            raise ValueError("a log has at least one partition")
        self.pinned = list(entries)
        if pf_memory_init(&self.log, <size_t>len(self.pinned), partitions) != 0:
            raise MemoryError
        self.log.keep_open = keep_open
        self.log.room_bytes = room_bytes
        for i in range(<size_t>len(self.pinned)):
            entry = self.pinned[i]
            message = &self.log.fixed[i]
            if isinstance(entry, tuple):
                payload, key, headers, partition, timestamp_ms, deliveries = entry
                if partition >= partitions:
                    raise ValueError(f"partition {partition} of {partitions}")
                fill(message, payload, key, headers, partition, timestamp_ms, deliveries)
            else:
                partition = <uint32_t>(i % partitions)
                fill(message, entry, None, b"", partition, -1, 0)
            message.offset = self.log.end[partition]
            self.log.end[partition] += 1
            message.next_offset = self.log.end[partition]
        self.log.n_fixed = <size_t>len(self.pinned)
        self.source = &self.log.source

    def __dealloc__(self):
        if self.log.n_partitions:
            pf_memory_free(&self.log)

    def send(
        self, bytes payload, bytes key, bytes headers not None, uint32_t partition, int64_t timestamp_ms,
        uint32_t deliveries, double timeout
    ):
        cdef pf_incoming message
        cdef int result
        cdef int64_t timeout_us = <int64_t>(min(max(timeout, 0.0), 1e9) * 1e6)
        if partition >= self.log.n_partitions:
            raise ValueError(f"partition {partition} of {self.log.n_partitions}")
        fill(&message, payload, key, headers, partition, timestamp_ms, deliveries)
        with nogil:
            result = pf_memory_send(&self.log, &message, timeout_us)
        if result == PF_MEMORY_FULL:
            raise BufferError
        if result == PF_MEMORY_ENDED:
            raise EOFError
        if result != PF_MEMORY_SENT:
            raise MemoryError

    def end(self):
        pf_memory_end(&self.log)

    def open(self):
        if not pf_memory_open(&self.log):
            raise RuntimeError("the log has a reader already")

    def close(self):
        pf_memory_close(&self.log)

    def announced(self):
        self.log.announce = 0

    def commit(self, uint32_t partition, int64_t position):
        if partition >= self.log.n_partitions:
            raise ValueError(f"partition {partition} of {self.log.n_partitions}")
        with nogil:
            pf_memory_commit(&self.log, partition, position)

    def committed(self):
        return [self.log.committed[i] for i in range(self.log.n_partitions)]

    def live_bytes(self):
        return self.log.live_bytes
