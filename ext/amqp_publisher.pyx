# cython: language_level=3
"""AmqpPublisherNative: framed records to RabbitMQ, and which of them it has confirmed (ext/amqp_outbox.h)."""

import os

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from amqp_wire cimport (
    PF_AMQP_MORE,
    pf_amqp_stream,
    pf_amqp_stream_compact,
    pf_amqp_stream_flush,
    pf_amqp_stream_free,
    pf_amqp_stream_init,
    pf_amqp_stream_read,
    pf_amqp_stream_unsent,
)
from pythia_fast._ext.amqp_stream cimport AmqpStream
from pythia_fast._ext.held_buffer cimport HeldBuffer

cdef extern from "poll.h" nogil:
    enum:
        POLLIN
        POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *ends, unsigned long count, int timeout_ms)

cdef extern from "wake.h" nogil:
    ctypedef struct pf_wake_pipe:
        int read_fd
    int pf_wake_open(pf_wake_pipe *wake)
    void pf_wake_close(pf_wake_pipe *wake)
    void pf_wake_signal(const pf_wake_pipe *wake)
    int pf_wake_wait(const pf_wake_pipe *wake, int other_fd, int64_t timeout_us)

cdef extern from "amqp_outbox.h" nogil:
    ctypedef struct pf_amqp_failure:
        uint32_t index, why
    ctypedef struct pf_amqp_ticket:
        uint64_t id
        uint32_t count, settled, in_use, n_failures
        pf_amqp_failure *failures
    ctypedef struct pf_amqp_outbox:
        pf_amqp_stream stream
        uint8_t exchange[256]
        uint8_t routing_key[256]
        uint32_t exchange_size, routing_key_size, key_routes, frame_max, publishing, held
        uint64_t max_message_size, sent_tag, low_tag, confirmed, refusals
        pf_amqp_ticket *tickets
        uint32_t *order
        uint32_t n_tickets
    int pf_amqp_outbox_check(const uint8_t *records, size_t size, uint32_t count)
    int pf_amqp_outbox_add(pf_amqp_outbox *box, const uint8_t *records, size_t size, uint32_t count, uint64_t id)
    void pf_amqp_outbox_fill(pf_amqp_outbox *box)
    void pf_amqp_outbox_begin(pf_amqp_outbox *box, uint16_t channel)
    int pf_amqp_outbox_take(pf_amqp_outbox *box)

#: The most of a returned message's body that is kept to find it again: all that a record can be.
cdef enum:
    LONGEST_BODY = 0xFFFFFFFE


cdef class AmqpPublisherNative:
    cdef pf_amqp_outbox *box
    cdef pf_wake_pipe pipe
    cdef readonly AmqpStream stream
    cdef dict _records  # ticket -> the memory that its records are read from

    def __cinit__(self, bytes exchange not None, routing_key, uint64_t max_message_size):
        self.pipe.read_fd = -1
        self.box = <pf_amqp_outbox *>calloc(1, sizeof(pf_amqp_outbox))
        if self.box == NULL or pf_amqp_stream_init(&self.box.stream, LONGEST_BODY, 0):
            raise MemoryError
        cdef int error = pf_wake_open(&self.pipe)
        if error:
            self.pipe.read_fd = -1
            raise OSError(error, os.strerror(error))
        self.box.key_routes = routing_key is None
        key = routing_key or b""
        if len(exchange) > 255 or len(key) > 255:
            raise ValueError("an exchange and a routing key have at most 255 bytes")
        memcpy(self.box.exchange, <const char *>exchange, <size_t>len(exchange))
        memcpy(self.box.routing_key, <const char *><bytes>key, <size_t>len(key))
        self.box.exchange_size, self.box.routing_key_size = <uint32_t>len(exchange), <uint32_t>len(key)
        self.box.max_message_size = max_message_size
        self.box.frame_max = 4096
        self._records = {}
        self.stream = AmqpStream()
        self.stream.stream = &self.box.stream
        self.stream.owner = None

    def __dealloc__(self):
        cdef uint32_t slot
        if self.pipe.read_fd >= 0:
            pf_wake_close(&self.pipe)
        if self.box != NULL:
            for slot in range(self.box.n_tickets):
                free(self.box.tickets[slot].failures)
            free(self.box.tickets)
            free(self.box.order)
            pf_amqp_stream_free(&self.box.stream)
            free(self.box)

    def add(self, records, uint32_t count, uint64_t ticket):
        cdef HeldBuffer held = HeldBuffer(records)
        if not pf_amqp_outbox_check(held.bytes, held.size, count):
            raise ValueError(f"the buffer of ticket {ticket} does not hold {count} whole records")
        if pf_amqp_outbox_add(self.box, held.bytes, held.size, count, ticket):
            raise MemoryError
        self._records[ticket] = held

    def begin(self, uint16_t channel, uint32_t frame_max):
        pf_amqp_outbox_begin(self.box, channel)
        if frame_max:
            self.box.frame_max = frame_max

    def release(self):
        """Go on after the broker refused something."""
        self.box.held = 0

    def limit(self, uint64_t max_message_size):
        self.box.max_message_size = max_message_size

    def work(self):
        cdef int outcome
        cdef size_t got = 1
        with nogil:
            while True:
                outcome = PF_AMQP_MORE
                if self.box.stream.fd >= 0 and self.box.stream.other_size == 0:
                    outcome = pf_amqp_outbox_take(self.box)
                    if outcome == PF_AMQP_MORE:
                        pf_amqp_stream_compact(&self.box.stream)
                pf_amqp_outbox_fill(self.box)
                if self.box.stream.fd < 0 or self.box.stream.tls:
                    break
                pf_amqp_stream_flush(&self.box.stream)
                if outcome != PF_AMQP_MORE:
                    break
                got = pf_amqp_stream_read(&self.box.stream)
                if got == 0:
                    break
        return outcome != PF_AMQP_MORE or (self.box.stream.tls and pf_amqp_stream_unsent(&self.box.stream) > 0) \
            or (self.box.stream.fd >= 0 and self.stream.fault() is not None)

    def wait(self, double timeout):
        cdef pollfd ends[2]
        cdef int timeout_ms = <int>(min(max(timeout, 0.0), 3600.0) * 1000 + 0.999), count = 1
        ends[0].fd, ends[0].events = self.pipe.read_fd, POLLIN
        if self.box.stream.fd >= 0:
            count = 2
            ends[1].fd = self.box.stream.fd
            ends[1].events = POLLIN | (POLLOUT if pf_amqp_stream_unsent(&self.box.stream) else 0)
        with nogil:
            poll(ends, count, timeout_ms)
            pf_wake_wait(&self.pipe, -1, 0)

    def wake(self):
        pf_wake_signal(&self.pipe)

    def take_done(self):
        cdef uint32_t slot, i
        cdef pf_amqp_ticket *ticket
        done = []
        for slot in range(self.box.n_tickets):
            ticket = &self.box.tickets[slot]
            if not ticket.in_use or ticket.settled < ticket.count:
                continue
            done.append((ticket.id, [(ticket.failures[i].index, ticket.failures[i].why)
                                     for i in range(ticket.n_failures)]))
            ticket.in_use = 0
            del self._records[ticket.id]
        return done

    @property
    def tickets(self):
        return len(self._records)

    @property
    def unconfirmed(self):
        return self.box.sent_tag - self.box.low_tag

    @property
    def confirmed(self):
        return self.box.confirmed

    @property
    def held(self):
        return self.box.held != 0

    @property
    def refusals(self):
        return self.box.refusals
