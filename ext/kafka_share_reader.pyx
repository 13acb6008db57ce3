# cython: language_level=3
"""KafkaShareReaderNative: a share group as a pf_source (ext/kafka_share.h)."""

import os

from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from arena_layout cimport pf_arena
from kafka_notes cimport pf_kafka_notes
from rdkafka_api cimport (
    RD_KAFKA_ERR_NONE,
    pf_rdkafka,
    rd_kafka_conf_t,
    rd_kafka_t,
    rd_kafka_topic_partition_list_t,
)

from pythia_fast._ext.kafka_client cimport (
    broker_answers,
    fatal_error,
    partition_count,
    partition_list,
)
from pythia_fast._ext.librdkafka cimport configuration, notes_of, rdkafka, rdkafka_library
from pythia_fast._ext.ring cimport Arena
from pythia_fast._ext.source cimport NativeSource, pf_source

from pythia_fast.errors import ExtensionError, SourceError

cdef extern from "arena_layout.h" nogil:
    ctypedef struct pf_slot:
        uint32_t messages
    ctypedef struct pf_message:
        int64_t offset
        uint32_t partition

cdef extern from "ring.h" nogil:
    pf_slot *pf_slot_at(pf_arena *arena, uint32_t index)

cdef extern from "slot_decode.h" nogil:
    pf_message *pf_slot_messages(pf_arena *arena, pf_slot *slot)

cdef extern from "heap.h" nogil:
    void pf_keep_freed_heap()

cdef extern from "kafka_share_rows.h" nogil:
    ctypedef struct pf_share_row:
        int64_t offset
        uint32_t partition
        uint32_t used
    ctypedef struct pf_share_rows:
        pf_share_row *rows
        uint32_t count
    pf_share_row *pf_share_find(const pf_share_rows *self, uint32_t partition, int64_t offset)
    int pf_share_add(pf_share_rows *self, const pf_share_row *row)
    void pf_share_remove(pf_share_rows *self, pf_share_row *row)

cdef extern from "kafka_share.h" nogil:
    enum:
        PF_SHARE_MOST_HANDS
    ctypedef struct pf_rdkafka_share:
        pass
    const char *pf_rdkafka_share_fill(pf_rdkafka_share *table, void *library)
    ctypedef struct pf_source_calls "pf_source":
        void (*wake)(pf_source *self) noexcept nogil
    ctypedef struct pf_share_hand:
        rd_kafka_t *client
    ctypedef struct pf_header_room:
        size_t wanted
    ctypedef struct pf_share_source:
        pf_source base
        uint32_t call, failed, ended, n_hands
        int64_t call_at_ns, lock_ns, came_ns
        pf_kafka_notes notes
        pf_header_room headers
        pf_share_hand hands[16]
        int32_t deliveries
        uint64_t appended, last, expired, known, refused
    int64_t pf_share_now_ns()
    int pf_share_source_init(pf_share_source *self, const pf_rdkafka *api, const pf_rdkafka_share *share)
    int pf_share_source_add(pf_share_source *self, rd_kafka_conf_t *conf, char *reason, size_t reason_size)
    int pf_share_source_subscribe(pf_share_source *self, const rd_kafka_topic_partition_list_t *topics)
    uint32_t pf_share_source_assigned(const pf_share_source *self)
    int pf_share_source_name(pf_share_source *self, const char *topic, int32_t partition, uint32_t index)
    void pf_share_source_forget(pf_share_source *self, uint32_t partition)
    const char *pf_share_source_unnamed(pf_share_source *self, int32_t *partition)
    int pf_share_source_done(pf_share_source *self, uint32_t partition, const int64_t *offsets, uint32_t count)
    int pf_share_source_turn(pf_share_source *self, int64_t timeout_us)
    uint32_t pf_share_source_unconfirmed(pf_share_source *self)
    uint64_t pf_share_source_in_hand(const pf_share_source *self)
    int pf_share_source_release(pf_share_source *self, int64_t timeout_ms)

#: The first librdkafka with share consumers.
INSTALL = "pip install 'confluent-kafka>=2.16'"

cdef enum:
    FORGOTTEN_LEAVE_MS = 1000  # for a reader that nobody has closed

cdef pf_rdkafka_share _table
cdef bint _filled = False


cdef const pf_rdkafka_share *_share_functions() except NULL:
    global _filled
    cdef const char *missing
    if not _filled:
        missing = pf_rdkafka_share_fill(&_table, rdkafka_library())
        if missing != NULL:
            raise ExtensionError(
                f"KafkaShareConsumer needs librdkafka 2.16, which has share groups ({missing.decode()}); this is "
                f"{rdkafka().version_str().decode()}: {INSTALL}"
            )
        _filled = True
    return &_table


def check_library():
    _share_functions()


cdef class KnownRows:
    cdef pf_share_rows _rows

    def __dealloc__(self):
        free(self._rows.rows)

    def __len__(self):
        return self._rows.count

    def __contains__(self, key):
        return pf_share_find(&self._rows, key[0], key[1]) != NULL

    def add(self, uint32_t partition, int64_t offset):
        cdef pf_share_row row
        memset(&row, 0, sizeof(row))
        row.partition, row.offset, row.used = partition, offset, 1
        if pf_share_add(&self._rows, &row) < 0:
            raise MemoryError

    def remove(self, uint32_t partition, int64_t offset):
        pf_share_remove(&self._rows, pf_share_find(&self._rows, partition, offset))


cdef class KafkaShareReaderNative(NativeSource):
    cdef pf_share_source _state
    cdef const pf_rdkafka *_api
    cdef bint _made
    cdef int _pid

    def __cinit__(self, dict options, int hands):
        self._api = rdkafka()
        cdef const pf_rdkafka_share *share = _share_functions()
        pf_keep_freed_heap()
        if not 0 < hands <= PF_SHARE_MOST_HANDS:
            raise ValueError(f"1 to {PF_SHARE_MOST_HANDS} hands")
        cdef int error = pf_share_source_init(&self._state, self._api, share)
        if error != 0:
            raise OSError(error, os.strerror(error))
        self._made = True
        self._pid = os.getpid()
        self.source = &self._state.base
        cdef char reason[512]
        for _ in range(hands):
            if not pf_share_source_add(&self._state, configuration(options), reason, sizeof(reason)):
                raise SourceError(f"Kafka share consumer: {reason.decode(errors='replace')}")

    def __dealloc__(self):
        # In a forked child librdkafka's threads do not exist: there is nothing that could be closed.
        if self._made and self._pid == os.getpid():
            pf_share_source_release(&self._state, FORGOTTEN_LEAVE_MS)

    def close(self, double leave_s):
        if not self._made:
            return True
        self._made = False
        cdef int64_t leave_ms = <int64_t>(leave_s * 1000)
        cdef bint is_over
        with nogil:
            is_over = pf_share_source_release(&self._state, leave_ms)
        if not is_over:
            Py_INCREF(self)  # the clients' callbacks use it for as long as librdkafka takes
        return is_over

    cdef int _check_open(self) except -1:
        if not self._made:
            raise SourceError("the reader of the share group is closed")
        return 0

    def subscribe(self, topics):
        self._check_open()
        cdef rd_kafka_topic_partition_list_t *wanted = partition_list(self._api, [(topic, -1) for topic in topics])
        cdef int error
        with nogil:
            error = pf_share_source_subscribe(&self._state, wanted)
        self._api.topic_partition_list_destroy(wanted)
        if error != RD_KAFKA_ERR_NONE:
            raise SourceError(f"cannot subscribe to {', '.join(topics)}: {self._api.err2str(error).decode()}")

    def take_notes(self):
        self._check_open()
        return notes_of(&self._state.notes, self._api)

    def unnamed(self):
        self._check_open()
        cdef int32_t partition = 0
        cdef const char *topic = pf_share_source_unnamed(&self._state, &partition)
        return None if topic == NULL else (topic.decode(), partition)

    def name(self, str topic, int32_t partition, uint32_t index):
        self._check_open()
        cdef bytes text = topic.encode()
        if pf_share_source_name(&self._state, text, partition, index) < 0:
            raise MemoryError

    def forget(self, uint32_t index):
        self._check_open()
        pf_share_source_forget(&self._state, index)

    def settled(self, Arena arena not None, uint32_t slot, uint32_t first, uint32_t messages):
        if not self._made:
            return
        cdef pf_slot *batch = pf_slot_at(arena.arena, slot)
        cdef pf_message *table = pf_slot_messages(arena.arena, batch)
        cdef uint64_t end = <uint64_t>first + messages
        cdef uint32_t count = <uint32_t>min(end, <uint64_t>arena.arena.slot_capacity), at = first, n, partition
        cdef int64_t offsets[256]
        cdef int tell = 0
        with nogil:
            while at < count:
                partition = table[at].partition
                n = 0
                while at < count and n < 256 and table[at].partition == partition:
                    offsets[n] = table[at].offset
                    n += 1
                    at += 1
                tell |= pf_share_source_done(&self._state, partition, offsets, n)
        if tell:
            self.wake()

    def done(self, uint32_t partition, int64_t offset):
        if pf_share_source_done(&self._state, partition, &offset, 1):
            self.wake()

    def wake(self):
        (<pf_source_calls *>&self._state.base).wake(&self._state.base)

    def turn(self, double timeout):
        self._check_open()
        cdef int64_t timeout_us = <int64_t>(timeout * 1e6)
        cdef int due
        with nogil:
            due = pf_share_source_turn(&self._state, timeout_us)
        return due != 0

    def call(self, bint due):
        self._state.call = due

    def call_after(self, seconds):
        self._state.call_at_ns = 0 if seconds is None else \
            max(1, pf_share_now_ns() + <int64_t>(max(0.0, seconds) * 1e9))

    def fail(self):
        self._state.failed = 1

    def end(self):
        self._state.ended = 1

    def limits(self, double lock_s, int32_t deliveries):
        self._state.lock_ns = <int64_t>(lock_s * 1e9)
        self._state.deliveries = deliveries

    # -- questions to the brokers ---------------------------------------------------------------

    def partition_count(self, str topic, int timeout_ms):
        self._check_open()
        return partition_count(self._api, self._state.hands[0].client, topic, timeout_ms)

    def broker_answers(self, int timeout_ms):
        self._check_open()
        return broker_answers(self._api, self._state.hands[0].client, timeout_ms)

    @property
    def fatal_error(self):
        self._check_open()
        cdef uint32_t i
        for i in range(self._state.n_hands):
            found = fatal_error(self._api, self._state.hands[i].client)[1]
            if found is not None:
                return found
        return None

    # -- how it stands --------------------------------------------------------------------------

    @property
    def headers_wanted(self):
        return self._state.headers.wanted

    @property
    def unconfirmed(self):
        self._check_open()
        return pf_share_source_unconfirmed(&self._state)

    @property
    def assigned(self):
        self._check_open()
        cdef uint32_t count
        with nogil:
            count = pf_share_source_assigned(&self._state)
        return count

    @property
    def in_hand(self):
        return pf_share_source_in_hand(&self._state)

    @property
    def quiet_s(self):
        return (pf_share_now_ns() - self._state.came_ns) * 1e-9

    @property
    def counters(self):
        cdef pf_share_source *state = &self._state
        return state.appended, state.last, state.expired, state.known, state.refused
