# cython: language_level=3
"""An open Kafka consumer: the GIL side of kafka_source.h.

The intake thread polls ``source`` without the GIL; what this class offers is called with it, between
two polls (``assign``, ``unassign``, ``take_notes``) or from any thread (``commit``, ``committed``,
``watermarks``, ``positions``, ``pause``). Calls that wait for the network release the GIL.
"""

import os

from kafka_source cimport (
    PF_KAFKA_UNBOUNDED,
    pf_kafka_now_ns,
    pf_kafka_partition,
    pf_kafka_place,
    pf_kafka_place_gain,
    pf_kafka_place_lose,
    pf_kafka_source,
    pf_kafka_source_attach,
    pf_kafka_source_commit,
    pf_kafka_source_commit_later,
    pf_kafka_source_configure,
    pf_kafka_source_count,
    pf_kafka_source_forget,
    pf_kafka_source_init,
    pf_kafka_source_keep_alive,
    pf_kafka_source_pause,
    pf_kafka_source_release,
    pf_kafka_spent_bytes,
    pf_kafka_topic,
)
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from rdkafka_api cimport (
    RD_KAFKA_CONSUMER,
    RD_KAFKA_ERR_NONE,
    pf_rdkafka,
    rd_kafka_conf_t,
    rd_kafka_error_t,
    rd_kafka_t,
    rd_kafka_topic_partition_list_t,
)

from pythia_fast._ext.held_buffer cimport HeldBuffer
from pythia_fast._ext.kafka_client cimport (
    broker_answers,
    broker_seen,
    committed,
    fatal_error,
    group_metadata,
    partition_count,
    partition_list,
    watermarks,
)
from pythia_fast._ext.librdkafka cimport configuration, notes_of, rdkafka
from pythia_fast._ext.source cimport NativeSource, pf_source

from pythia_fast.errors import SourceError


cdef extern from "heap.h" nogil:
    void pf_keep_freed_heap()

cdef extern from "kafka_headers.h" nogil:
    int pf_kafka_surely_has_no_headers(const uint8_t *value, size_t size)

# kafka_headers.h says what it knows of librdkafka 2, whose versions read 0xMMmmrrpp.
cdef enum:
    NEXT_MAJOR_VERSION = 0x03000000
    FORGOTTEN_LEAVE_MS = 1000  # for a reader that nobody has closed


def surely_has_no_headers(record, size_t at, size_t size):
    """For tests: what is told of the value of ``size`` bytes at ``at`` of a record, without asking librdkafka."""
    cdef HeldBuffer held = HeldBuffer(record)
    if size > 0 and (at + size > held.size or at == 0):
        raise ValueError("the value does not lie within the record")
    return pf_kafka_surely_has_no_headers(held.bytes + at, size) != 0


cdef int is_hurried(void *asked) noexcept with gil:
    return bool((<object>asked)())


cdef class KafkaReaderNative(NativeSource):
    """One librdkafka consumer made of ``options``; ``bounded`` ends at the ends given to ``assign``.

    ``hurried``: asked again and again while a commit's answer, the leave or the end of the client is waited for; once
    it says so, that is not waited for any longer. In the main thread the handlers of signals run meanwhile.
    """

    cdef pf_kafka_source _state
    cdef const pf_rdkafka *_api
    cdef bint _open
    cdef int _pid
    cdef object _hurried

    def __cinit__(self, dict options, bint bounded=False, hurried=None):
        self._api = rdkafka()
        pf_keep_freed_heap()
        cdef rd_kafka_conf_t *conf = configuration(options)
        cdef int error = pf_kafka_source_init(&self._state, self._api)
        if error != 0:
            self._api.conf_destroy(conf)
            raise OSError(error, os.strerror(error))
        self._open = True
        self._pid = os.getpid()
        self._state.bounded = bounded
        if hurried is not None:
            self._hurried = hurried
            self._state.is_hurried = is_hurried
            self._state.asked = <void *>hurried
        # A plugin may intercept messages before we see them: then nothing is known about where their values lie.
        self._state.values_in_place = self._api.version() < NEXT_MAJOR_VERSION and "plugin.library.paths" not in options
        pf_kafka_source_configure(&self._state, conf)
        cdef char reason[512]
        cdef rd_kafka_t *client = self._api.new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason))
        if client == NULL:
            self._api.conf_destroy(conf)
            raise SourceError(f"Kafka consumer: {reason.decode(errors='replace')}")
        pf_kafka_source_attach(&self._state, client)
        self.source = <pf_source *>&self._state

    def __dealloc__(self):
        # In a forked child librdkafka's threads do not exist: there is nothing that could be closed. Here a group that
        # was not left has to be: librdkafka waits without end for the answer to a rebalance that nobody was told of.
        if self._open and self._pid == os.getpid():
            self._state.is_hurried = NULL  # who would be asked may be gone
            pf_kafka_source_release(&self._state, FORGOTTEN_LEAVE_MS, -1)

    def close(self, double leave_s, double end_s):
        """Leave the group, and close the connections; each may take so many seconds. Whether all is closed.

        The source must not be polled any more. Where no broker answers in time, the group finds out by itself when the
        session has timed out, and librdkafka closes the connections once its requests have.
        """
        if not self._open:
            return True
        self._open = False
        cdef int64_t leave_ms = <int64_t>(leave_s * 1000)
        cdef int64_t end_ms = <int64_t>(end_s * 1000)
        cdef bint is_over
        with nogil:
            is_over = pf_kafka_source_release(&self._state, leave_ms, end_ms)
        if not is_over:
            Py_INCREF(self)  # the client's callbacks use it for as long as librdkafka takes
        return is_over

    cdef int _check_open(self) except -1:
        if not self._open:
            raise SourceError("the Kafka reader is closed")
        return 0

    cdef rd_kafka_topic_partition_list_t *_list(self, partitions) except NULL:
        self._check_open()
        return partition_list(self._api, partitions)

    def subscribe(self, topics):
        """Join the group for these topics."""
        cdef rd_kafka_topic_partition_list_t *wanted = self._list([(topic, -1) for topic in topics])
        cdef int error = self._api.subscribe(self._state.client, wanted)
        self._api.topic_partition_list_destroy(wanted)
        if error != RD_KAFKA_ERR_NONE:
            raise SourceError(f"cannot subscribe to {', '.join(topics)}: {self._api.err2str(error).decode()}")

    def rejoin(self, topics):
        """Leave the group, once all partitions are given back as in any rebalance, and join it again for these topics.

        To subscribe once more is not enough: librdkafka does nothing about a subscription that it has already, and a
        broker may answer a member that joins again with the assignment that it has. A leave makes it rebalance.

        False: a cooperative rebalance is underway, and nothing was done. librdkafka puts a leave off until its end,
        and forgets it when it is told to subscribe before. It may not say so in the rebalance's very last step: where
        nothing is given back, ask again later.
        """
        self._check_open()
        cdef int error
        cdef rd_kafka_topic_partition_list_t *left = NULL
        with nogil:
            error = self._api.unsubscribe(self._state.client)
            if error == RD_KAFKA_ERR_NONE:
                error = self._api.subscription(self._state.client, &left)
        if error != RD_KAFKA_ERR_NONE:
            raise SourceError(f"cannot leave the group: {self._api.err2str(error).decode()}")
        cdef bint has_left = left.cnt == 0
        self._api.topic_partition_list_destroy(left)
        self.subscribe(topics)  # librdkafka keeps it until the partitions are given back
        return has_left

    def take_notes(self):
        """What librdkafka has told since the last call: (kind, error code or log level, text, partitions)."""
        self._check_open()
        return notes_of(&self._state.notes, self._api)

    @property
    def cooperative(self):
        """Whether the group rebalances incrementally."""
        self._check_open()
        cdef const char *protocol = self._api.rebalance_protocol(self._state.client)
        return protocol != NULL and <bytes>protocol == b"COOPERATIVE"

    @property
    def assignment_lost(self):
        """Whether the partitions being revoked belong to somebody else already."""
        self._check_open()
        return self._api.assignment_lost(self._state.client) != 0

    def assign(self, partitions):
        """Start to fetch: a list of (topic, partition, index, end), end None meaning without end."""
        self._check_open()
        cdef pf_kafka_partition *place
        cdef bytes name
        for topic, partition, index, end in partitions:
            name = topic.encode()
            place = pf_kafka_place(&self._state.partitions, name, partition, 1)
            if place == NULL:
                raise MemoryError
            pf_kafka_place_gain(&self._state.partitions, place, index, PF_KAFKA_UNBOUNDED if end is None else end)
        self._tell_assignment([entry[:2] for entry in partitions], True)
        self._go_on_unpaused()

    def renumber(self, str topic, int32_t partition, int64_t index, end):
        """A partition that was assigned has another index from here on, and another end."""
        self._check_open()
        cdef bytes name = topic.encode()
        cdef pf_kafka_partition *place = pf_kafka_place(&self._state.partitions, name, partition, 0)
        if place == NULL:
            raise ValueError(f"{topic}[{partition}] was never assigned")
        pf_kafka_place_gain(&self._state.partitions, place, index, PF_KAFKA_UNBOUNDED if end is None else end)
        self._go_on_unpaused()

    cdef _go_on_unpaused(self):
        # A new assignment begins unpaused. A pause that meets librdkafka between the two steps of its start would make
        # it forget where to start (librdkafka issue 2190); the intake asks again if it still has no room.
        self._state.want_paused = 0
        if self._state.is_paused or self._state.partitions.n_paused > 0:
            with nogil:
                pf_kafka_source_pause(&self._state, 0)

    def unassign(self, partitions):
        """Stop to fetch these and drop what was fetched of them: a list of (topic, partition)."""
        self._check_open()
        cdef pf_kafka_partition *place
        cdef bytes name
        # librdkafka remembers the pause of a partition that is given back, and keeps it paused when it is assigned
        # again (librdkafka issue 1849). Those that stay are paused again by the next poll.
        if self._state.is_paused or self._state.partitions.n_paused > 0:
            with nogil:
                pf_kafka_source_pause(&self._state, 0)
        for topic, partition in partitions:
            name = topic.encode()
            place = pf_kafka_place(&self._state.partitions, name, partition, 0)
            if place != NULL:
                pf_kafka_place_lose(&self._state.partitions, place)
        pf_kafka_source_forget(&self._state)
        self._tell_assignment(partitions, False)

    cdef int _tell_assignment(self, partitions, bint gained) except -1:
        cdef bint incremental = self.cooperative
        cdef rd_kafka_topic_partition_list_t *changed = self._list(partitions)
        cdef rd_kafka_error_t *failed = NULL
        cdef int error = RD_KAFKA_ERR_NONE
        with nogil:
            if not incremental:
                error = self._api.assign(self._state.client, changed if gained else NULL)
            elif gained:
                failed = self._api.incremental_assign(self._state.client, changed)
            else:
                failed = self._api.incremental_unassign(self._state.client, changed)
        self._api.topic_partition_list_destroy(changed)
        reason = None
        if failed != NULL:
            reason = self._api.error_string(failed).decode()
            self._api.error_destroy(failed)
        elif error != RD_KAFKA_ERR_NONE:
            reason = self._api.err2str(error).decode()
        if reason is not None:
            raise SourceError(f"Kafka refused to {'assign' if gained else 'unassign'} partitions: {reason}")
        return 0

    def commit(self, offsets, timeout):
        """Commit (topic, partition, offset)s and return the error code, 0 when all is well.

        ``timeout``: seconds to wait for the broker's answer and that to the commit before, both; None: send only, a
        failure comes as a note. IN_PROGRESS then says that it was not sent, because the one before is not answered.
        """
        cdef rd_kafka_topic_partition_list_t *wanted = self._list(offsets)
        cdef int timeout_ms = -1 if timeout is None else <int>(timeout * 1000)
        cdef int error
        with nogil:
            if timeout_ms < 0:
                error = pf_kafka_source_commit_later(&self._state, wanted)
            else:
                error = pf_kafka_source_commit(&self._state, wanted, timeout_ms)
        self._api.topic_partition_list_destroy(wanted)
        return error

    # -- questions to the broker -------------------------------------------------------------------

    def group_metadata(self):
        """This member as its group knows it now (its generation, its id), for ``KafkaPublisherNative.send_offsets``."""
        self._check_open()
        return group_metadata(self._api, self._state.client)

    def committed(self, partitions, int timeout_ms):
        """The group's committed offset of each (topic, partition), None where there is none; None on failure."""
        self._check_open()
        return committed(self._api, self._state.client, partitions, timeout_ms)

    def watermarks(self, str topic, int32_t partition, int timeout_ms):
        """(first offset, end) of a partition, asked of the broker; with timeout 0 as last heard. None: unknown."""
        self._check_open()
        return watermarks(self._api, self._state.client, topic, partition, timeout_ms)

    def partition_count(self, str topic, int timeout_ms):
        """(number of partitions, error code) of a topic, asked of the broker."""
        self._check_open()
        return partition_count(self._api, self._state.client, topic, timeout_ms)

    def broker_answers(self, int timeout_ms):
        """Whether any broker answers a question within the time."""
        self._check_open()
        return broker_answers(self._api, self._state.client, timeout_ms)

    @property
    def broker_seen(self):
        """Whether any broker has ever answered."""
        self._check_open()
        return broker_seen(self._api, self._state.client)

    @property
    def fatal_error(self):
        """The error after which librdkafka does no more, or None."""
        self._check_open()
        return fatal_error(self._api, self._state.client)[1]

    # -- how far it has come ------------------------------------------------------------------------

    def positions(self):
        """Next offset to append, per (topic, partition) that is assigned and has been read from."""
        self._check_open()
        cdef uint32_t t
        cdef int32_t p
        cdef pf_kafka_topic *topic
        found = {}
        for t in range(self._state.partitions.n_topics):
            topic = &self._state.partitions.topics[t]
            for p in range(topic.size):
                if topic.partitions[p].index >= 0 and topic.partitions[p].position >= 0:
                    found[topic.name.decode(), p] = topic.partitions[p].position
        return found

    def standing(self):
        """Each partition that is assigned: (topic, partition, next offset to append, where its end was met last, offset
        of the message that waits for room, seconds since, whether nothing is fetched). -1: there is none."""
        cdef uint32_t t
        cdef int32_t p
        cdef pf_kafka_topic *topic
        cdef pf_kafka_partition *place
        cdef int64_t now = pf_kafka_now_ns()
        self._check_open()
        found = []
        for t in range(self._state.partitions.n_topics):
            topic = &self._state.partitions.topics[t]
            name = topic.name.decode()
            for p in range(topic.size):
                place = &topic.partitions[p]
                if place.index < 0:
                    continue
                held = place.held_since_ns != 0 and place.held_offset >= place.position
                found.append((
                    name, p, place.position, place.ended_at, place.held_offset if held else -1,
                    max(0, now - place.held_since_ns) * 1e-9 if held else -1.0,
                    bool(place.paused or self._state.is_paused or self._state.want_paused),
                ))
        return found

    @property
    def kept(self):
        """(messages taken from librdkafka and not appended, payload bytes of those that wait for their partition)."""
        return self._state.count - self._state.next, self._state.held_bytes

    @property
    def spent_bytes(self):
        """Bytes of appended messages that wait to be freed where they were allocated (kafka_spent.h)."""
        return pf_kafka_spent_bytes(&self._state.spent)

    # -- what poll is to do -------------------------------------------------------------------------

    def pause(self, bint paused):
        """Fetch no more, or again; takes effect at the next poll."""
        self._check_open()
        self._state.want_paused = paused

    def keep_alive(self):
        """Poll, but fetch and append nothing from here on: True when ``serve`` must run. Only when nobody polls."""
        self._check_open()
        cdef int due
        with nogil:
            due = pf_kafka_source_keep_alive(&self._state)
        return due != 0

    @property
    def headers_wanted(self):
        """Bytes of one message's headers that there was no memory for, which ended the source; 0: it did not happen."""
        self._check_open()
        return self._state.headers.wanted

    def check_after(self, seconds):
        """Let poll ask for ``serve`` once this time has passed; None: never."""
        self._check_open()
        self._state.check_at_ns = 0 if seconds is None else pf_kafka_now_ns() + <int64_t>(seconds * 1e9)

    def end_when_empty(self, seconds):
        """Bounded: an empty assignment is the end once this time has passed; None: never."""
        self._check_open()
        self._state.end_not_before_ns = INT64_MAX if seconds is None else pf_kafka_now_ns() + <int64_t>(seconds * 1e9)

    def await_topic(self, bint awaited):
        """Bounded: it is not the end, whatever was read, for a topic is to come."""
        self._check_open()
        self._state.awaits_topic = awaited

    def fail(self):
        """From now on poll returns PF_SOURCE_FAILED."""
        self._check_open()
        self._state.failed = 1

    def count(self, uint64_t messages, timeout):
        """Read and throw away: (messages, payload bytes). What the bare queue gives, for benchmarks."""
        self._check_open()
        cdef uint64_t nbytes = 0, seen
        cdef int64_t timeout_us = <int64_t>(timeout * 1e6)
        with nogil:
            seen = pf_kafka_source_count(&self._state, messages, timeout_us, &nbytes)
        return seen, nbytes
