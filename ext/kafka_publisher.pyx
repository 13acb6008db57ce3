# cython: language_level=3
"""An open Kafka producer: the GIL side of kafka_outbox.h. One thread at a time."""

import os

from libc.errno cimport EINVAL
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport strdup

from kafka_notes cimport pf_kafka_notes
from rdkafka_api cimport (
    RD_KAFKA_PRODUCER,
    pf_rdkafka,
    rd_kafka_conf_t,
    rd_kafka_consumer_group_metadata_t,
    rd_kafka_error_t,
    rd_kafka_queue_t,
    rd_kafka_t,
    rd_kafka_topic_partition_list_t,
    rd_kafka_topic_t,
)

from pythia_fast._ext.held_buffer cimport HeldBuffer
from pythia_fast._ext.kafka_client cimport broker_answers, broker_seen, fatal_error, partition_count, partition_list
from pythia_fast._ext.librdkafka cimport configuration, notes_of, rdkafka

from pythia_fast.errors import SinkError


cdef extern from "kafka_outbox.h" nogil:
    enum:
        PF_OUTBOX_BURST
        PF_OUTBOX_TOPICS
    ctypedef struct pf_outbox_failure:
        uint64_t at
        int err
    ctypedef struct pf_outbox_ticket:
        uint64_t id
        uint32_t n_failures
        pf_outbox_failure *failures
    ctypedef struct pf_outbox_tickets:
        pass
    ctypedef struct pf_outbox_groups:
        int for_good
        uint64_t bytes
    ctypedef struct pf_offset_run:
        int32_t partition
        uint32_t topic
        uint32_t dirty
        int64_t source_first
        int64_t target_first
        int64_t source_last
    ctypedef struct pf_kafka_topic_place:
        char *name
        pf_offset_run *open
        uint32_t n_open
    ctypedef struct pf_kafka_places:
        uint32_t by_name
        char *prefix
        pf_kafka_topic_place *topics
        uint32_t n_topics
        pf_offset_run *closed
        uint32_t n_closed
    ctypedef struct pf_kafka_outbox:
        rd_kafka_t *client
        rd_kafka_queue_t *answers
        int held
        int needs_key
        pf_kafka_notes notes
        pf_outbox_tickets tickets
        rd_kafka_topic_t *topics[PF_OUTBOX_TOPICS]
        uint32_t transactional
        int lost_to
        uint32_t in_flight
        uint64_t delivered
        int passing_error
        pf_outbox_groups groups
        uint64_t regrouped
        pf_kafka_places places
    int pf_kafka_outbox_init(pf_kafka_outbox *self, const pf_rdkafka *api)
    void pf_kafka_outbox_configure(pf_kafka_outbox *self, rd_kafka_conf_t *conf)
    void pf_kafka_outbox_attach(pf_kafka_outbox *self, rd_kafka_t *client, uint32_t limit)
    int pf_tickets_add(
        pf_outbox_tickets *self, const uint8_t *records, uint64_t size, uint32_t count, uint64_t id, uint32_t topic)
    void pf_kafka_outbox_poll(pf_kafka_outbox *self, int timeout_ms)
    void pf_kafka_outbox_abandon(pf_kafka_outbox *self)
    pf_outbox_ticket *pf_tickets_done(pf_outbox_tickets *self)
    void pf_tickets_forget(pf_outbox_tickets *self)
    uint32_t pf_ticket_index(const pf_outbox_ticket *ticket, uint64_t at)
    void pf_kafka_outbox_detach(pf_kafka_outbox *self)
    void pf_kafka_outbox_release(pf_kafka_outbox *self)


cdef extern from "kafka_topic_limits.h" nogil:
    ctypedef struct pf_topic_limits:
        int64_t batch_bytes
        int needs_key
    int pf_topic_limits_ask(
        const pf_rdkafka *api, rd_kafka_t *client, const char *topic, int timeout_ms, rd_kafka_queue_t *answers)
    int pf_topic_limits_hear(
        const pf_rdkafka *api, rd_kafka_queue_t *answers, int timeout_ms, int *err,
        pf_topic_limits *limits)


cdef tuple _run(pf_kafka_places *places, pf_offset_run *run):
    name = places.topics[run.topic].name.decode("utf-8", "surrogateescape")
    return name, run.partition, run.source_first, run.target_first, run.source_last


cdef class KafkaPublisherNative:
    """One librdkafka producer made of ``options``, writing to one or two topics; with a ``prefix``, to the topics that
    its records name, whose names it is put before, in the order in which they are published.

    With a ``transactional.id`` among the options it is a transactional one: a record is then either part of the open
    transaction, or the reason why that can only be aborted (``lost_to``). The calls that wait for the network release
    the GIL; while one runs, no other method may be called but by that thread.
    """

    cdef pf_kafka_outbox _state
    cdef const pf_rdkafka *_api
    cdef dict _held  # ticket -> the memory that librdkafka may still point into
    cdef tuple _topics
    cdef bint _open
    cdef int _pid

    def __cinit__(self, dict options, *topics, str prefix=None):
        cdef bytes put_before
        if not (0 if prefix is not None else 1) <= len(topics) <= PF_OUTBOX_TOPICS:
            raise ValueError(f"a producer writes to 1 to {PF_OUTBOX_TOPICS} topics, not {len(topics)}")
        self._api = rdkafka()
        self._held = {}
        self._topics = topics
        cdef int error = pf_kafka_outbox_init(&self._state, self._api)
        if error != 0:
            raise OSError(error, os.strerror(error))
        self._open = True
        self._pid = os.getpid()
        self._state.transactional = "transactional.id" in options
        if prefix is not None:
            put_before = prefix.encode()
            self._state.places.prefix = strdup(put_before)
            if self._state.places.prefix == NULL:
                raise MemoryError
            self._state.places.by_name = True
        self._attach(options)

    cdef int _attach(self, dict options) except -1:
        """Make the client."""
        cdef rd_kafka_conf_t *conf = configuration(options)
        cdef char value[32]
        cdef size_t size = sizeof(value)
        self._api.conf_get(conf, b"queue.buffering.max.messages", value, &size)
        cdef uint32_t limit = int(value)
        pf_kafka_outbox_configure(&self._state, conf)
        cdef char reason[512]
        cdef rd_kafka_t *client = self._api.new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason))
        if client == NULL:
            self._api.conf_destroy(conf)
            raise SinkError(f"Kafka producer: {reason.decode(errors='replace')}")
        # librdkafka counts a message until its report has been served, a moment longer than we do.
        limit = limit if limit <= 4 * PF_OUTBOX_BURST else limit - PF_OUTBOX_BURST
        pf_kafka_outbox_attach(&self._state, client, limit)
        cdef bytes name
        for index, topic in enumerate(self._topics):
            name = topic.encode()
            self._state.topics[index] = self._api.topic_new(client, name, NULL)
        return 0

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

    def add(self, records, uint32_t count, uint64_t ticket, uint32_t topic=0):
        """Take over ``count`` framed records for one of the topics; the buffer is held until the ticket is done."""
        self._check_open()
        if topic >= PF_OUTBOX_TOPICS or (self._state.topics[topic] == NULL and not self._state.places.by_name):
            raise IndexError(f"there is no topic {topic}")
        if ticket in self._held:
            raise ValueError(f"ticket {ticket} is on its way already")
        cdef HeldBuffer held = HeldBuffer(records)
        cdef int error = pf_tickets_add(
            &self._state.tickets, held.bytes, <uint64_t>held.size, count, ticket, topic)
        if error == EINVAL:
            raise ValueError(f"the {held.size} bytes of ticket {ticket} are not {count} framed records")
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
            ticket = pf_tickets_done(&self._state.tickets)
            if ticket == NULL:
                return done
            failed = [
                (pf_ticket_index(ticket, ticket.failures[i].at), ticket.failures[i].err)
                for i in range(ticket.n_failures)
            ]
            done.append((ticket.id, failed))
            del self._held[ticket.id]
            pf_tickets_forget(&self._state.tickets)

    # -- what the topic takes ---------------------------------------------------------------------------

    def ask_limits(self, int timeout_ms):
        """Ask what the first topic takes. Nothing is handed over before ``go_on``."""
        self._check_open()
        cdef bytes name = self._topics[0].encode()
        if self._state.answers == NULL:
            self._state.answers = self._api.queue_new(self._state.client)
        if pf_topic_limits_ask(self._api, self._state.client, name, timeout_ms, self._state.answers) != 0:
            raise MemoryError
        self._state.held = True

    def hear_limits(self, int timeout_ms):
        """(error code, bytes of a batch or 0 where they are not known, whether records need a key) as the answer;
        None: it has not come yet.
        """
        self._check_open()
        cdef int answered, error = 0
        cdef pf_topic_limits limits
        with nogil:
            answered = pf_topic_limits_hear(self._api, self._state.answers, timeout_ms, &error, &limits)
        return (error, limits.batch_bytes, limits.needs_key != 0) if answered else None

    def go_on(self, dict options=None, *, bint needs_key=False):
        """Hand records over from now on; with ``options``, by another client made of them. ``needs_key``: those
        without one are INVALID_RECORD, and never handed over.
        """
        self._check_open()
        self._state.needs_key = needs_key
        if options is not None:
            with nogil:
                pf_kafka_outbox_detach(&self._state)
            self._attach(options)
        self._state.held = False

    # -- offsets ---------------------------------------------------------------------------------------

    def take_runs(self):
        """Which offsets became which, since the last call, oldest first: (topic, partition, first offset of the source,
        offset that it got, last offset of the source), as ext/kafka_places.h says.

        A run that is prolonged later is told again, with another end.
        """
        cdef pf_kafka_places *places = &self._state.places
        cdef pf_kafka_topic_place *place
        cdef pf_offset_run *run
        cdef uint32_t i, k
        taken = []
        for i in range(places.n_closed):
            taken.append(_run(places, &places.closed[i]))
        places.n_closed = 0
        for i in range(places.n_topics):
            place = &places.topics[i]
            for k in range(place.n_open):
                run = &place.open[k]
                if run.dirty:
                    run.dirty = 0
                    taken.append(_run(places, run))
        return taken

    # -- transactions ------------------------------------------------------------------------------

    def init_transactions(self, int timeout_ms):
        """Take the transactional id over from whoever had it: None, or (code, text, kind) as ``_outcome`` says."""
        self._check_open()
        cdef rd_kafka_error_t *error
        with nogil:
            error = self._api.init_transactions(self._state.client, timeout_ms)
        return self._outcome(error)

    def begin_transaction(self):
        """Open a transaction, here only: the broker hears of it with its first record."""
        self._check_open()
        self._state.lost_to = 0
        return self._outcome(self._api.begin_transaction(self._state.client))

    def send_offsets(self, offsets, bytes group, int timeout_ms):
        """Make a group's positions, (topic, partition, offset)s, part of the transaction.

        ``group``: what ``KafkaReaderNative.group_metadata`` gave.
        """
        self._check_open()
        cdef rd_kafka_consumer_group_metadata_t *metadata = NULL
        cdef const char *written = group
        cdef size_t size = len(group)
        cdef rd_kafka_error_t *error = self._api.consumer_group_metadata_read(&metadata, written, size)
        if error != NULL:
            return self._outcome(error)
        cdef rd_kafka_topic_partition_list_t *positions = partition_list(self._api, offsets)
        with nogil:
            error = self._api.send_offsets_to_transaction(self._state.client, positions, metadata, timeout_ms)
        self._api.topic_partition_list_destroy(positions)
        self._api.consumer_group_metadata_destroy(metadata)
        return self._outcome(error)

    def commit_transaction(self, int timeout_ms):
        """Commit what the transaction holds."""
        self._check_open()
        cdef rd_kafka_error_t *error
        with nogil:
            error = self._api.commit_transaction(self._state.client, timeout_ms)
        return self._outcome(error)

    def abort_transaction(self, int timeout_ms):
        """Undo it. What was not handed over is not, and ``poll`` gives every ticket back."""
        self._check_open()
        pf_kafka_outbox_abandon(&self._state)
        cdef rd_kafka_error_t *error
        with nogil:
            error = self._api.abort_transaction(self._state.client, timeout_ms)
        return self._outcome(error)

    cdef _outcome(self, rd_kafka_error_t *error):
        """None when all is well, else (error code, text, kind).

        Kinds: "fatal": this producer is at its end; "abort": the transaction is; "retry": the same call may be made
        again; "": none of these, so the call itself was wrong.
        """
        if error == NULL:
            return None
        kind = ""
        if self._api.error_is_fatal(error):
            kind = "fatal"
        elif self._api.error_txn_requires_abort(error):
            kind = "abort"
        elif self._api.error_is_retriable(error):
            kind = "retry"
        told = self._api.error_code(error), self._api.error_string(error).decode(errors="replace"), kind
        self._api.error_destroy(error)
        return told

    @property
    def lost_to(self):
        """The error code that makes it impossible to commit the open transaction; 0: there is none."""
        return self._state.lost_to

    def topic_error(self, str topic, int timeout_ms):
        """What the brokers answer to the question about a topic: 0 when it exists, else an error code."""
        self._check_open()
        return partition_count(self._api, self._state.client, topic, timeout_ms)[1]

    # -- what happened ------------------------------------------------------------------------------

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
        """(records that came back, once a batch of several was too large for the topic; bytes of a group now)."""
        return self._state.regrouped if self._state.groups.for_good else 0, self._state.groups.bytes

    @property
    def passing_error(self):
        """Why records were sent again most recently; 0 once a record has been delivered since."""
        return self._state.passing_error

    @property
    def fatal_error(self):
        """The error after which librdkafka does no more, or None."""
        self._check_open()
        return fatal_error(self._api, self._state.client)[1]

    @property
    def fatal_code(self):
        """Code of the error after which librdkafka does no more; 0: there is none."""
        self._check_open()
        return fatal_error(self._api, self._state.client)[0]

    @property
    def broker_seen(self):
        """Whether any broker has ever answered."""
        self._check_open()
        return broker_seen(self._api, self._state.client)

    def broker_answers(self, int timeout_ms):
        """Whether any broker answers a question within the time."""
        self._check_open()
        return broker_answers(self._api, self._state.client, timeout_ms)
