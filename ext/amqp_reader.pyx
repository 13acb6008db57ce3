# cython: language_level=3
"""AmqpReaderNative: a RabbitMQ queue as a pf_source (ext/amqp_source.h)."""

import os

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from amqp_wire cimport pf_amqp_stream, pf_amqp_stream_free, pf_amqp_stream_init
from arena_layout cimport pf_arena
from pythia_fast._ext.amqp_stream cimport AmqpStream
from pythia_fast._ext.ring cimport Arena
from pythia_fast._ext.source cimport NativeSource, pf_source

cdef extern from "arena_layout.h" nogil:
    enum:
        PF_SPOOLED_MOST
        PF_SPOOLED_HEAD
    ctypedef struct pf_slot:
        uint32_t messages
    ctypedef struct pf_message:
        int64_t offset
        uint32_t partition

cdef extern from "ring.h" nogil:
    pf_slot *pf_slot_at(pf_arena *arena, uint32_t index)

cdef extern from "slot_decode.h" nogil:
    pf_message *pf_slot_messages(pf_arena *arena, pf_slot *slot)

cdef extern from "amqp_source.h" nogil:
    ctypedef struct pf_sink:
        pass
    ctypedef struct pf_source_calls "pf_source":
        int (*poll)(pf_source *self, pf_sink *sink, uint32_t max_messages, int64_t timeout_us) noexcept nogil
        void (*wake)(pf_source *self) noexcept nogil
    ctypedef struct pf_amqp_acks:
        uint64_t low
        uint64_t delivered
        uint64_t ackable
        uint64_t waiting
    ctypedef struct pf_amqp_source:
        pf_source base
        pf_amqp_stream stream
        uint32_t call, failed, ended, dropping, pending, auto_ack, prefetch
        int64_t call_at_ns
        uint64_t appended, ack_frames
    int64_t pf_amqp_now_ns()
    int pf_amqp_source_init(pf_amqp_source *self)
    void pf_amqp_source_free(pf_amqp_source *self)
    void pf_amqp_source_begin(pf_amqp_source *self, uint16_t channel, uint32_t partition)
    void pf_amqp_source_end_channel(pf_amqp_source *self)
    int pf_amqp_source_done(pf_amqp_source *self, uint32_t partition, const int64_t *tags, uint32_t count)
    uint64_t pf_amqp_source_unacknowledged(pf_amqp_source *self)


cdef class AmqpReaderNative(NativeSource):
    cdef pf_amqp_source state
    cdef readonly AmqpStream stream
    cdef bint made

    def __cinit__(self, prefetch, bint auto_ack):
        cdef int error = pf_amqp_source_init(&self.state)
        if error:
            raise OSError(error, os.strerror(error))
        self.made = True
        error = pf_amqp_stream_init(&self.state.stream, PF_SPOOLED_MOST, PF_SPOOLED_HEAD)
        if error:
            raise MemoryError
        self.state.prefetch = prefetch
        self.state.auto_ack = auto_ack
        self.stream = AmqpStream()
        self.stream.stream = &self.state.stream
        self.source = &self.state.base

    def __dealloc__(self):
        if self.made:
            pf_amqp_stream_free(&self.state.stream)
            pf_amqp_source_free(&self.state)

    def begin(self, uint16_t channel, uint32_t partition):
        pf_amqp_source_begin(&self.state, channel, partition)

    def end_channel(self):
        pf_amqp_source_end_channel(&self.state)

    def settled(self, Arena arena not None, uint32_t slot, uint32_t first, uint32_t messages):
        cdef pf_slot *batch = pf_slot_at(arena.arena, slot)
        cdef pf_message *table = pf_slot_messages(arena.arena, batch)
        cdef uint64_t end = <uint64_t>first + messages
        cdef uint32_t count = <uint32_t>min(end, <uint64_t>arena.arena.slot_capacity), at = first, n, partition
        cdef int64_t tags[256]
        cdef int tell = 0
        with nogil:
            while at < count:
                partition = table[at].partition
                n = 0
                while at < count and n < 256 and table[at].partition == partition:
                    tags[n] = table[at].offset
                    n += 1
                    at += 1
                tell |= pf_amqp_source_done(&self.state, partition, tags, n)
        if tell:
            self.wake()

    def done(self, uint32_t partition, tags):
        cdef uint32_t count = <uint32_t>len(tags), i
        cdef int64_t *copied = <int64_t *>malloc((count + 1) * sizeof(int64_t))
        if copied == NULL:
            raise MemoryError
        try:
            for i in range(count):
                copied[i] = tags[i]
            if pf_amqp_source_done(&self.state, partition, copied, count):
                self.wake()
        finally:
            free(copied)

    def wake(self):
        (<pf_source_calls *>&self.state.base).wake(&self.state.base)

    def turn(self, double timeout):
        """Poll once, appending nothing: the rest of the protocol goes on. True: serve() must run."""
        cdef pf_source_calls *calls = <pf_source_calls *>&self.state.base
        cdef int64_t timeout_us = <int64_t>(timeout * 1e6)
        cdef int outcome
        self.state.dropping = 1
        self.state.ended = self.state.failed = 0  # the intake has heard of it, and polls no more
        with nogil:
            outcome = calls.poll(&self.state.base, NULL, 1 << 16, timeout_us)
        return outcome == 5  # PF_SOURCE_CALL

    def call(self, bint due):
        """Whether poll is to ask for serve() whatever comes."""
        self.state.call = due

    def call_after(self, seconds):
        """Let poll ask for serve() once this time has passed; None: never."""
        self.state.call_at_ns = 0 if seconds is None else \
            max(1, pf_amqp_now_ns() + <int64_t>(max(0.0, seconds) * 1e9))

    def fail(self):
        self.state.failed = 1

    def end(self):
        self.state.ended = 1

    @property
    def unacknowledged(self):
        return pf_amqp_source_unacknowledged(&self.state)

    @property
    def appended(self):
        return self.state.appended

    @property
    def ack_frames(self):
        return self.state.ack_frames
