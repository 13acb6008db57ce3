# cython: language_level=3
"""An open reader of Redis Streams: the GIL side of redis_source.h.

The intake thread polls ``source`` without the GIL and, between two polls, calls ``take_broken``, ``transfer`` and
``announce``. ``attach``, ``claim``, ``acks`` and what goes with them belong to the keeper's thread; ``commit``,
``finish`` and the counters to any.
"""

import errno
import os
import ssl

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from pythia_fast._ext.source cimport NativeSource, pf_source


cdef extern from "resp.h" nogil:
    ctypedef struct pf_resp_limits:
        size_t bulk_bytes
        size_t entry_bytes
        uint64_t fields
        uint64_t elements
    ctypedef struct pf_resp:
        pf_resp_limits limits
    enum:
        PF_RESP_GARBAGE
        PF_RESP_BULK_TOO_LARGE
        PF_RESP_ENTRY_TOO_LARGE
        PF_RESP_TOO_MANY
        PF_RESP_NO_MEMORY

cdef extern from "redis_source.h" nogil:
    enum:
        PF_REDIS_CLAIM
        PF_REDIS_ACK_BYTES
        PF_REDIS_NO_CLAIM
        PF_REDIS_CLAIM_OFFERED
        PF_REDIS_CLAIM_DONE
        PF_REDIS_CLAIMED
        PF_REDIS_CLOSED
        PF_REDIS_ERRNO
        PF_REDIS_SILENT
        PF_REDIS_REFUSED
        PF_REDIS_NOT_RESP
        PF_REDIS_MEMORY
        PF_REDIS_NUMBER
        PF_REDIS_BOOL
    ctypedef struct pf_redis_id:
        uint64_t ms
        uint64_t seq
    ctypedef struct pf_redis_ids_block:
        pass
    ctypedef struct pf_redis_ids:
        int64_t acked
        int64_t sent
    ctypedef struct pf_redis_stream:
        uint8_t *name
        size_t name_size
        uint8_t *ack
        size_t ack_size
        uint32_t partition
        uint32_t bounded
        uint64_t end_ms
        uint64_t end_seq
        uint32_t done
        int64_t committed
        pf_redis_ids ids
    ctypedef struct pf_redis_claim:
        uint32_t state
        uint32_t stream
        uint32_t count
        pf_redis_id ids[1000]
        uint32_t deliveries[1000]
        uint8_t became[1000]
        uint8_t *command
        size_t command_size
    ctypedef struct pf_redis_column:
        uint8_t *name
        size_t size
        uint32_t kind
    ctypedef struct pf_redis_fields:
        uint8_t *payload
        size_t payload_size
        uint8_t *key
        size_t key_size
        uint32_t as_columns
        pf_redis_column *columns
        uint32_t n_columns
    ctypedef struct pf_redis_buffer:
        uint8_t *bytes
        size_t at
        size_t end
    ctypedef struct pf_redis_source:
        pf_redis_stream *streams
        uint32_t n_streams
        pf_redis_fields fields
        pf_resp resp
        uint8_t *read_head
        uint8_t *read_tail
        size_t read_head_size
        size_t read_tail_size
        uint32_t most_entries
        size_t read_ahead_bytes
        int64_t silent_after_ns
        uint32_t bounded
        uint32_t attaching
        int next_fd
        uint32_t next_tls
        uint32_t reads_held
        uint32_t end_held
        uint32_t finishing
        uint32_t failed
        pf_redis_claim claim
        uint32_t announced
        int fd
        uint32_t tls
        uint32_t wants_io
        uint32_t more_inside
        uint32_t n_waiting
        pf_redis_buffer out
        uint32_t has_entry
        uint32_t broken
        int64_t broken_number
        uint64_t broken_size
        char text[512]
        uint32_t count
        uint64_t entries
        uint64_t bytes
        uint64_t requests
        uint64_t replies
        uint64_t gone
    int pf_redis_source_init(pf_redis_source *self, uint32_t n_streams, pf_resp_limits limits)
    void pf_redis_source_release(pf_redis_source *self)
    size_t pf_redis_source_room(pf_redis_source *self)
    uint8_t *pf_redis_source_end(pf_redis_source *self)
    void pf_redis_source_received(pf_redis_source *self, size_t nbytes)
    void pf_redis_source_wake(pf_redis_source *self)
    void pf_redis_source_break(pf_redis_source *self, uint32_t why, int64_t number)
    size_t pf_redis_source_ack(pf_redis_stream *stream, uint8_t *to, uint32_t *count)

cdef extern from "redis_ids.h" nogil:
    int64_t pf_redis_ids_end(pf_redis_ids *self)
    pf_redis_id pf_redis_ids_at(const pf_redis_ids *self, const pf_redis_ids_block **block, int64_t position)
    void pf_redis_ids_drop(pf_redis_ids *self, int64_t position)

#: What take_broken() says of a connection.
CLOSED = PF_REDIS_CLOSED
ERRNO = PF_REDIS_ERRNO
SILENT = PF_REDIS_SILENT
REFUSED = PF_REDIS_REFUSED
NOT_RESP = PF_REDIS_NOT_RESP
MEMORY = PF_REDIS_MEMORY

#: And of NOT_RESP.
GARBAGE = PF_RESP_GARBAGE
BULK_TOO_LARGE = PF_RESP_BULK_TOO_LARGE
ENTRY_TOO_LARGE = PF_RESP_ENTRY_TOO_LARGE
TOO_MANY = PF_RESP_TOO_MANY
NO_MEMORY = PF_RESP_NO_MEMORY

MOST_IDS = PF_REDIS_CLAIM


cdef uint8_t *copy_of(bytes text, size_t *size) except NULL:
    """A copy that outlives the object."""
    size[0] = <size_t>len(text)
    cdef uint8_t *made = <uint8_t *>malloc(size[0] if size[0] else 1)
    if made == NULL:
        raise MemoryError
    memcpy(made, PyBytes_AsString(text), size[0])
    return made


cdef class RedisReaderNative(NativeSource):
    """The entries of ``streams``, (name, the constant part of its XACK) each, whose partitions are numbered from 0.

    ``read``: an XREADGROUP cut in two where the string of COUNT stands; ``block_s`` is in it.
    """

    cdef pf_redis_source _state
    cdef bint _open

    def __cinit__(
        self, streams, read, *, uint32_t most_entries, size_t read_ahead_bytes, double silent_after_s, bint bounded,
        size_t max_entry_bytes, uint64_t max_fields, bytes payload_field, bytes key_field, columns,
    ):
        cdef pf_resp_limits limits
        limits.bulk_bytes = limits.entry_bytes = max_entry_bytes
        limits.fields = max_fields
        limits.elements = 1 << 24
        cdef int error = pf_redis_source_init(&self._state, <uint32_t>len(streams), limits)
        self._open = True
        if error != 0:
            raise OSError(error, os.strerror(error))
        cdef pf_redis_stream *stream
        for index, (name, ack) in enumerate(streams):
            stream = &self._state.streams[index]
            stream.name = copy_of(name, &stream.name_size)
            stream.ack = copy_of(ack, &stream.ack_size)
            stream.partition = <uint32_t>index
        self._state.read_head = copy_of(read[0], &self._state.read_head_size)
        self._state.read_tail = copy_of(read[1], &self._state.read_tail_size)
        self._state.most_entries = most_entries
        self._state.read_ahead_bytes = read_ahead_bytes
        self._state.silent_after_ns = <int64_t>(silent_after_s * 1e9)
        self._state.bounded = bounded
        self._state.reads_held = self._state.end_held = 1
        self._map_fields(payload_field, key_field, columns)
        self.source = <pf_source *>&self._state

    cdef int _map_fields(self, bytes payload_field, bytes key_field, columns) except -1:
        cdef pf_redis_fields *fields = &self._state.fields
        cdef pf_redis_column *column
        if payload_field is not None:
            fields.payload = copy_of(payload_field, &fields.payload_size)
        if key_field is not None:
            fields.key = copy_of(key_field, &fields.key_size)
        if columns is None:
            return 0
        fields.as_columns = 1
        fields.columns = <pf_redis_column *>malloc((len(columns) + 1) * sizeof(pf_redis_column))
        if fields.columns == NULL:
            raise MemoryError
        for name, is_bool in columns:
            column = &fields.columns[fields.n_columns]
            column.name = copy_of(name, &column.size)
            column.kind = PF_REDIS_BOOL if is_bool else PF_REDIS_NUMBER
            fields.n_columns += 1
        return 0

    def __dealloc__(self):
        if self._open:
            pf_redis_source_release(&self._state)

    cdef pf_redis_stream *_stream(self, uint32_t index) except NULL:
        if index >= self._state.n_streams:
            raise IndexError(f"stream {index} of {self._state.n_streams}")
        return &self._state.streams[index]

    # -- the intake thread, between two polls -----------------------------------------------------------------------

    def announce(self):
        """The partitions are known to the runtime: entries may flow."""
        self._state.announced = 1

    @property
    def announced(self):
        return self._state.announced != 0

    def take_broken(self):
        """Why the connection was given up since the last call: (kind, number, size, text), or None."""
        if not self._state.broken:
            return None
        told = (
            self._state.broken, self._state.broken_number, self._state.broken_size,
            self._state.text.decode("utf-8", "replace"),
        )
        self._state.broken = 0
        return told

    @property
    def wants_io(self):
        """Whether transfer() is to be called."""
        return self._state.wants_io != 0

    def transfer(self, sock):
        """Write what waits, and read what there is, on a socket with TLS that does not block."""
        cdef size_t room, got
        self._state.wants_io = 0
        if self._state.fd < 0:
            return
        try:
            self._write(sock)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._broke(error)
            return
        self._state.more_inside = 1
        if self._state.has_entry:  # what it points to must stay where it is
            return
        room = pf_redis_source_room(&self._state)
        if room == 0:
            pf_redis_source_break(&self._state, PF_REDIS_MEMORY, 0)
            return
        try:
            while room > 0:
                view = PyMemoryView_FromMemory(
                    <char *>pf_redis_source_end(&self._state), <Py_ssize_t>room, PyBUF_WRITE)
                got = sock.recv_into(view)
                if got == 0:
                    pf_redis_source_break(&self._state, PF_REDIS_CLOSED, 0)
                    return
                pf_redis_source_received(&self._state, got)
                room -= got
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._state.more_inside = 0
        except OSError as error:
            self._broke(error)

    cdef int _write(self, sock) except -1:
        cdef pf_redis_buffer *waiting = &self._state.out
        while waiting.at < waiting.end:
            waiting.at += <size_t>sock.send(PyMemoryView_FromMemory(
                <char *>waiting.bytes + waiting.at, <Py_ssize_t>(waiting.end - waiting.at), PyBUF_READ))
        return 0

    cdef _broke(self, error):
        if isinstance(error, ssl.SSLEOFError):
            pf_redis_source_break(&self._state, PF_REDIS_CLOSED, 0)
        else:
            pf_redis_source_break(&self._state, PF_REDIS_ERRNO, error.errno or errno.EIO)

    def fail(self):
        """Let poll() return FAILED, now if it waits. Any thread."""
        self._state.failed = 1
        pf_redis_source_wake(&self._state)

    # -- the keeper's thread ----------------------------------------------------------------------------------------

    def attach(self, int fd, bint tls):
        """Read from this socket, which nobody else reads or writes until ``take_broken`` tells of it."""
        self._state.next_fd = fd
        self._state.next_tls = tls
        self._state.attaching = 1
        pf_redis_source_wake(&self._state)

    def bound(self, uint32_t index, uint64_t ms, uint64_t seq):
        """A bounded source reads a stream as far as this id. Before the first ``attach``."""
        cdef pf_redis_stream *stream = self._stream(index)
        stream.bounded = 1
        stream.end_ms = ms
        stream.end_seq = seq
        stream.done = ms == 0 and seq == 0

    def hold_reads(self, bint held):
        """Whether only claims are sent."""
        self._state.reads_held = held
        pf_redis_source_wake(&self._state)

    def hold_end(self, bint held):
        """Whether a bounded source goes on though it has read all, because there may be something to claim."""
        self._state.end_held = held
        pf_redis_source_wake(&self._state)

    def claim(self, uint32_t index, bytes command, ids):
        """Send an XCLAIM in place of the next read: ``ids`` are (ms, seq, earlier deliveries), in its order."""
        if self._state.claim.state != PF_REDIS_NO_CLAIM:
            raise RuntimeError("a claim is on its way already")
        if not 0 < len(ids) <= PF_REDIS_CLAIM:
            raise ValueError(f"{len(ids)} ids to claim; at most {PF_REDIS_CLAIM} go into one command")
        self._stream(index)
        cdef pf_redis_claim *claim = &self._state.claim
        free(claim.command)
        claim.command = NULL
        claim.command = copy_of(command, &claim.command_size)
        claim.stream = index
        claim.count = <uint32_t>len(ids)
        for i, (ms, seq, deliveries) in enumerate(ids):
            claim.ids[i].ms = ms
            claim.ids[i].seq = seq
            claim.deliveries[i] = min(deliveries, 0xFFFFFFFF)
            claim.became[i] = 0
        claim.state = PF_REDIS_CLAIM_OFFERED
        pf_redis_source_wake(&self._state)

    def take_claim(self):
        """What became of the claim: None while it is on its way, else (missing ids, how many came).

        A claim that went down with its connection came to nothing, without a word: ([], 0).
        """
        cdef pf_redis_claim *claim = &self._state.claim
        if claim.state == PF_REDIS_NO_CLAIM:
            return [], 0
        if claim.state != PF_REDIS_CLAIM_DONE:
            return None
        missing = [
            (claim.ids[i].ms, claim.ids[i].seq) for i in range(claim.count) if claim.became[i] != PF_REDIS_CLAIMED
        ]
        came = claim.count - len(missing)
        claim.state = PF_REDIS_NO_CLAIM
        return missing, came

    def withdraw_claim(self):
        """Forget a claim that no connection has taken. Only while there is none."""
        self._state.claim.state = PF_REDIS_NO_CLAIM

    def unacknowledged(self, uint32_t index):
        """The ids, (ms, seq), of what was handed on and is not acknowledged, oldest first."""
        cdef pf_redis_stream *stream = self._stream(index)
        cdef int64_t end = pf_redis_ids_end(&stream.ids), at
        cdef const pf_redis_ids_block *block = NULL
        cdef pf_redis_id one
        found = []
        for at in range(stream.ids.acked, end):
            one = pf_redis_ids_at(&stream.ids, &block, at)
            found.append((one.ms, one.seq))
        return found

    def in_flight(self, uint32_t index):
        """How many were handed on and are not acknowledged."""
        cdef pf_redis_stream *stream = self._stream(index)
        return pf_redis_ids_end(&stream.ids) - stream.ids.acked

    def acks(self, uint32_t index):
        """The next XACK of a stream: (command, how many ids), or None."""
        cdef pf_redis_stream *stream = self._stream(index)
        cdef uint32_t count = 0
        cdef uint8_t *room = <uint8_t *>malloc(PF_REDIS_ACK_BYTES + stream.ack_size)
        if room == NULL:
            raise MemoryError
        cdef size_t size
        with nogil:
            size = pf_redis_source_ack(stream, room, &count)
        command = PyBytes_FromStringAndSize(<char *>room, <Py_ssize_t>size) if count else None
        free(room)
        return (command, count) if count else None

    def acknowledged(self, uint32_t index, uint32_t count):
        """The server has answered the oldest XACK that was sent."""
        cdef pf_redis_stream *stream = self._stream(index)
        if stream.ids.acked + count > stream.ids.sent:
            raise ValueError(f"{count} ids were not sent")
        pf_redis_ids_drop(&stream.ids, stream.ids.acked + count)

    def send_again(self):
        """What was sent and not answered is sent again."""
        for index in range(self._state.n_streams):
            self._state.streams[index].ids.sent = self._state.streams[index].ids.acked

    # -- any thread -----------------------------------------------------------------------------------------------

    def commit(self, uint32_t index, int64_t position):
        """Everything of a stream below this position is done."""
        cdef pf_redis_stream *stream = self._stream(index)
        if position > pf_redis_ids_end(&stream.ids):
            raise ValueError(f"position {position} of stream {index} was never handed out")
        if position > stream.committed:
            stream.committed = position

    def all_acknowledged(self):
        """Whether nothing that was committed waits for the server's word."""
        return all(
            self._state.streams[i].ids.acked >= self._state.streams[i].committed for i in range(self._state.n_streams)
        )

    def finish(self):
        """Ask for no more, and end once what was asked for has come."""
        self._state.finishing = 1
        pf_redis_source_wake(&self._state)

    @property
    def is_idle(self):
        """Whether no request waits for its answer. Once it is polled no more."""
        return self._state.n_waiting == 0

    def positions(self):
        """The position of the next entry, by stream."""
        return [pf_redis_ids_end(&self._state.streams[i].ids) for i in range(self._state.n_streams)]

    @property
    def counters(self):
        """(entries handed on, bytes received, requests, replies, entries that were deleted before they came)."""
        return (
            self._state.entries, self._state.bytes, self._state.requests, self._state.replies, self._state.gone,
        )

    @property
    def entries_asked(self):
        """COUNT of the next XREADGROUP."""
        return self._state.count
