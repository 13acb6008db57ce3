# cython: language_level=3
"""An open Kafka producer: the GIL side of kafka_outbox.h. One thread at a time."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINVAL
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kafka_notes cimport pf_kafka_notes
from rdkafka_api cimport (
    RD_KAFKA_ERR_NONE,
    RD_KAFKA_PRODUCER,
    pf_rdkafka,
    rd_kafka_conf_t,
    rd_kafka_metadata_t,
    rd_kafka_t,
    rd_kafka_topic_t,
)

from pythia_fast._ext.librdkafka cimport configuration, notes_of, rdkafka

from pythia_fast.errors import SinkError


cdef extern from "kafka_outbox.h" nogil:
    enum:
        PF_OUTBOX_BURST
    ctypedef struct pf_outbox_failure:
        uint64_t at
        int err
    ctypedef struct pf_outbox_ticket:
        uint64_t id
        uint32_t n_failures
        pf_outbox_failure *failures
    ctypedef struct pf_outbox_groups:
        uint64_t bytes
    ctypedef struct pf_kafka_outbox:
        rd_kafka_t *client
        pf_kafka_notes notes
        uint32_t in_flight
        uint64_t delivered
        int passing_error
        pf_outbox_groups groups
        uint64_t regrouped
    int pf_kafka_outbox_init(pf_kafka_outbox *self, const pf_rdkafka *api)
    void pf_kafka_outbox_configure(pf_kafka_outbox *self, rd_kafka_conf_t *conf)
    void pf_kafka_outbox_attach(pf_kafka_outbox *self, rd_kafka_t *client, rd_kafka_topic_t *topic, uint32_t limit)
    int pf_kafka_outbox_add(
        pf_kafka_outbox *self, const uint8_t *records, uint64_t size, uint32_t count, uint64_t id)
    void pf_kafka_outbox_poll(pf_kafka_outbox *self, int timeout_ms)
    pf_outbox_ticket *pf_kafka_outbox_done(pf_kafka_outbox *self)
    void pf_kafka_outbox_forget(pf_kafka_outbox *self)
    uint32_t pf_kafka_outbox_index(const pf_outbox_ticket *ticket, uint64_t at)
    void pf_kafka_outbox_release(pf_kafka_outbox *self)


cdef class _Held:
    """A buffer that librdkafka may still point into."""

    cdef Py_buffer view

    def __cinit__(self, records):
        PyObject_GetBuffer(records, &self.view, PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef class KafkaPublisherNative:
    """One librdkafka producer made of ``options``, writing to ``topic``."""

    cdef pf_kafka_outbox _state
    cdef const pf_rdkafka *_api
    cdef dict _held
    cdef bint _open
    cdef int _pid

    def __cinit__(self, dict options, str topic):
        self._api = rdkafka()
        self._held = {}
        cdef rd_kafka_conf_t *conf = configuration(options)
        cdef char value[32]
        cdef size_t size = sizeof(value)
        self._api.conf_get(conf, b"queue.buffering.max.messages", value, &size)
        cdef uint32_t limit = int(value)
        cdef int error = pf_kafka_outbox_init(&self._state, self._api)
        if error != 0:
            self._api.conf_destroy(conf)
            raise OSError(error, os.strerror(error))
        self._open = True
        self._pid = os.getpid()
        pf_kafka_outbox_configure(&self._state, conf)
        cdef char reason[512]
        cdef rd_kafka_t *client = self._api.new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason))
        if client == NULL:
            self._api.conf_destroy(conf)
            raise SinkError(f"Kafka producer: {reason.decode(errors='replace')}")
        cdef bytes name = topic.encode()
        # librdkafka counts a message until its report has been served, a moment longer than we do.
        limit = limit if limit <= 4 * PF_OUTBOX_BURST else limit - PF_OUTBOX_BURST
        pf_kafka_outbox_attach(&self._state, client, self._api.topic_new(client, name, NULL), limit)

    def __dealloc__(self):
        # In a forked child librdkafka's threads do not exist: there is nothing that could be closed.
        if self._open and self._pid == os.getpid():
            pf_kafka_outbox_release(&self._state)

    def close(self):
        """Drop what is not delivered, and let go of every buffer."""
        if not self._open:
            return
        self._open = False
        with nogil:
            pf_kafka_outbox_release(&self._state)
        self._held.clear()

    cdef int _check_open(self) except -1:
        if not self._open:
            raise SinkError("the Kafka publisher is closed")
        return 0

    def add(self, records, uint32_t count, uint64_t ticket):
        """Take over ``count`` framed records; the buffer is held until the ticket is done."""
        self._check_open()
        if ticket in self._held:
            raise ValueError(f"ticket {ticket} is on its way already")
        cdef _Held held = _Held(records)
        cdef int error = pf_kafka_outbox_add(
            &self._state, <const uint8_t *>held.view.buf, <uint64_t>held.view.len, count, ticket)
        if error == EINVAL:
            raise ValueError(f"the {held.view.len} bytes of ticket {ticket} are not {count} framed records")
        if error != 0:
            raise MemoryError
        self._held[ticket] = held

    def poll(self, int timeout_ms):
        """Send, and wait for reports: [(ticket, [(record index, error code)])] of the tickets that are done."""
        self._check_open()
        cdef pf_outbox_ticket *ticket
        cdef uint32_t i
        with nogil:
            pf_kafka_outbox_poll(&self._state, timeout_ms)
        done = []
        while True:
            ticket = pf_kafka_outbox_done(&self._state)
            if ticket == NULL:
                return done
            failed = [
                (pf_kafka_outbox_index(ticket, ticket.failures[i].at), ticket.failures[i].err)
                for i in range(ticket.n_failures)
            ]
            done.append((ticket.id, failed))
            del self._held[ticket.id]
            pf_kafka_outbox_forget(&self._state)

    def take_notes(self):
        """What librdkafka has told since the last call: (kind, error code or log level, text, None)."""
        self._check_open()
        return notes_of(&self._state.notes, self._api)

    @property
    def tickets(self):
        """Tickets on their way."""
        return len(self._held)

    @property
    def in_flight(self):
        """Records that are with librdkafka."""
        return self._state.in_flight

    @property
    def delivered(self):
        """Records that have become durable, in all."""
        return self._state.delivered

    @property
    def regrouped(self):
        """(records that came back in a batch too large for the topic, bytes that one may now have at most)."""
        return self._state.regrouped, self._state.groups.bytes

    @property
    def passing_error(self):
        """Why records were sent again most recently; 0 once a record has been delivered since."""
        return self._state.passing_error

    @property
    def fatal_error(self):
        """The error after which librdkafka does no more, or None."""
        self._check_open()
        cdef char reason[512]
        cdef int error = self._api.fatal_error(self._state.client, reason, sizeof(reason))
        return reason.decode(errors="replace") if error != RD_KAFKA_ERR_NONE else None

    @property
    def broker_seen(self):
        """Whether any broker has ever answered."""
        self._check_open()
        cdef char *cluster = self._api.clusterid(self._state.client, 0)
        if cluster == NULL:
            return False
        self._api.mem_free(self._state.client, cluster)
        return True

    def broker_answers(self, int timeout_ms):
        """Whether any broker answers a question within the time."""
        self._check_open()
        cdef const rd_kafka_metadata_t *found = NULL
        cdef int error
        with nogil:
            error = self._api.metadata(self._state.client, 0, NULL, &found, timeout_ms)
        if error == RD_KAFKA_ERR_NONE:
            self._api.metadata_destroy(found)
        return error == RD_KAFKA_ERR_NONE
