# cython: language_level=3
"""StreamReaderNative: streams of RabbitMQ as a pf_source (ext/stream_source.h)."""

import errno
import os
import ssl
import zlib

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from pythia_fast._ext.source cimport NativeSource, pf_source

cdef extern from "stream_source.h" nogil:
    enum:
        PF_STREAM_NOT_STREAM
        PF_STREAM_CUT_CHUNK
        PF_STREAM_OTHER_CHUNK
        PF_STREAM_BAD_CRC
        PF_STREAM_BAD_ENTRY
        PF_STREAM_CLOSED
        PF_STREAM_ERRNO
        PF_STREAM_SILENT
        PF_STREAM_TOO_LARGE
        PF_STREAM_MEMORY
        PF_STREAM_BEGUN_ANEW
        PF_STREAM_MOST_PARTS
    ctypedef struct pf_amqp_text:
        uint8_t *bytes
        size_t size
    ctypedef struct pf_amqp1_message:
        const uint8_t *key_name
        size_t key_name_size
    ctypedef struct pf_stream_entry:
        const uint8_t *bytes
        uint32_t size, records, unpacked_size
    ctypedef struct pf_stream_part:
        int64_t wanted
        int64_t end
        uint32_t bounded, done, exact, credit, target
    ctypedef struct pf_stream_source:
        pf_stream_part *parts
        uint32_t n_parts
        uint32_t raw
        uint64_t read_ahead_bytes, most_chunk_bytes
        uint32_t attaching
        int next_fd
        uint32_t next_tls
        int64_t next_heartbeat_ns
        uint32_t failed, ends_known, announced
        int fd
        uint32_t tls, wants_io, more_inside
        uint8_t *in_ "in"
        size_t in_end
        pf_amqp_text out
        size_t out_at
        uint32_t wants_unpacking
        pf_amqp1_message message
        uint32_t broken
        int64_t broken_number
        size_t other_size
        uint8_t other[4096]
        uint64_t messages, bytes, chunks
    int pf_stream_source_init(pf_stream_source *self)
    void pf_stream_source_free(pf_stream_source *self)
    void pf_stream_source_break(pf_stream_source *self, uint32_t why, int64_t number)
    size_t pf_stream_source_room(pf_stream_source *self)
    void pf_stream_source_received(pf_stream_source *self, size_t nbytes)
    void pf_stream_source_wake(pf_stream_source *self)
    void pf_stream_source_keep_alive(pf_stream_source *self)
    const uint8_t *pf_stream_source_packed(pf_stream_source *self, pf_stream_entry *entry)
    void pf_stream_source_unpacked(pf_stream_source *self, uint8_t *data, size_t size)

#: What take_broken() says of a connection.
NOT_STREAM = PF_STREAM_NOT_STREAM
CUT_CHUNK = PF_STREAM_CUT_CHUNK
OTHER_CHUNK = PF_STREAM_OTHER_CHUNK
BAD_CRC = PF_STREAM_BAD_CRC
BAD_ENTRY = PF_STREAM_BAD_ENTRY
CLOSED = PF_STREAM_CLOSED
ERRNO = PF_STREAM_ERRNO
SILENT = PF_STREAM_SILENT
TOO_LARGE = PF_STREAM_TOO_LARGE
MEMORY = PF_STREAM_MEMORY
BEGUN_ANEW = PF_STREAM_BEGUN_ANEW

MOST_STREAMS = PF_STREAM_MOST_PARTS


cdef uint8_t *copy_of(bytes text) except NULL:
    """A copy that outlives the object."""
    cdef size_t size = <size_t>len(text)
    cdef uint8_t *made = <uint8_t *>malloc(size if size else 1)
    if made == NULL:
        raise MemoryError
    memcpy(made, PyBytes_AsString(text), size)
    return made


cdef class StreamReaderNative(NativeSource):
    """The messages of streams whose partitions and subscriptions are numbered from 0."""

    cdef pf_stream_source _state
    cdef bint _made

    def __cinit__(
        self, *, bint raw, bytes key_property, uint64_t read_ahead_bytes, uint64_t max_chunk_bytes,
    ):
        cdef int error = pf_stream_source_init(&self._state)
        self._made = True
        if error:
            raise OSError(error, os.strerror(error))
        self._state.raw = raw
        self._state.read_ahead_bytes = read_ahead_bytes
        self._state.most_chunk_bytes = max_chunk_bytes
        if key_property is not None:
            self._state.message.key_name = copy_of(key_property)
            self._state.message.key_name_size = <size_t>len(key_property)
        self.source = <pf_source *>&self._state

    def __dealloc__(self):
        if self._made:
            pf_stream_source_free(&self._state)

    cdef pf_stream_part *_part(self, uint32_t index) except NULL:
        if index >= self._state.n_parts:
            raise IndexError(f"stream {index} of {self._state.n_parts}")
        return &self._state.parts[index]

    # -- the intake thread, between two polls -----------------------------------------------------------------------

    def announce(self):
        """The partitions are known to the runtime: messages may flow."""
        self._state.announced = 1

    @property
    def announced(self):
        return self._state.announced != 0

    def take_broken(self):
        """Why the connection was given up since the last call: (kind, number), or None."""
        if not self._state.broken:
            return None
        told = self._state.broken, self._state.broken_number
        self._state.broken = 0
        return told

    def take_other(self):
        """A frame that is neither a chunk nor a heartbeat, without its size; None: there is none."""
        if not self._state.other_size:
            return None
        frame = PyBytes_FromStringAndSize(<char *>self._state.other, <Py_ssize_t>self._state.other_size)
        self._state.other_size = 0
        return frame

    def drop(self):
        """Give the connection up."""
        if self._state.fd >= 0:
            pf_stream_source_break(&self._state, PF_STREAM_CLOSED, 0)

    @property
    def wants_unpacking(self):
        """Whether unpack() is to be called."""
        return self._state.wants_unpacking != 0

    def unpack(self):
        """Unpack the sub-batch at hand, which is compressed with gzip."""
        cdef pf_stream_entry entry
        cdef const uint8_t *packed = pf_stream_source_packed(&self._state, &entry)
        cdef uint8_t *bytes_ = NULL
        cdef bytes found = None
        cdef size_t size = 0
        if entry.unpacked_size <= self._state.most_chunk_bytes:
            view = PyMemoryView_FromMemory(<char *>packed, <Py_ssize_t>entry.size, PyBUF_READ)
            try:
                inflater = zlib.decompressobj(31)  # gzip
                found = inflater.decompress(view, entry.unpacked_size + 1)
                if not inflater.eof or len(found) != entry.unpacked_size:
                    found = None
            except zlib.error:
                found = None
        if found is not None:
            size = <size_t>len(found)
            bytes_ = copy_of(found)
        pf_stream_source_unpacked(&self._state, bytes_, size)

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
        room = pf_stream_source_room(&self._state)
        try:
            while room > 0:
                view = PyMemoryView_FromMemory(
                    <char *>(self._state.in_ + self._state.in_end), <Py_ssize_t>room, PyBUF_WRITE)
                got = sock.recv_into(view)
                if got == 0:
                    pf_stream_source_break(&self._state, PF_STREAM_CLOSED, 0)
                    return
                pf_stream_source_received(&self._state, got)
                room -= got
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._state.more_inside = 0
        except OSError as error:
            self._broke(error)

    cdef int _write(self, sock) except -1:
        while self._state.out_at < self._state.out.size:
            self._state.out_at += <size_t>sock.send(PyMemoryView_FromMemory(
                <char *>self._state.out.bytes + self._state.out_at,
                <Py_ssize_t>(self._state.out.size - self._state.out_at), PyBUF_READ))
        return 0

    cdef _broke(self, error):
        if isinstance(error, ssl.SSLEOFError):
            pf_stream_source_break(&self._state, PF_STREAM_CLOSED, 0)
        else:
            pf_stream_source_break(&self._state, PF_STREAM_ERRNO, error.errno or errno.EIO)

    def keep_alive(self):
        """Nothing is polled any more: heartbeats go out. True: serve() must run."""
        with nogil:
            pf_stream_source_keep_alive(&self._state)
        return self._state.wants_io or self._state.broken

    # -- the keeper's thread, while there is no connection ------------------------------------------------------------

    def attach(self, int fd, bint tls, double heartbeat_s):
        """Read from this socket, which nobody else reads or writes until ``take_broken`` tells of it."""
        self._state.next_fd = fd
        self._state.next_tls = tls
        self._state.next_heartbeat_ns = <int64_t>(heartbeat_s * 1e9)
        self._state.attaching = 1
        pf_stream_source_wake(&self._state)

    def have(self, uint32_t streams):
        """So many streams are read. Once, before the first ``want``."""
        if not 0 < streams <= PF_STREAM_MOST_PARTS:
            raise ValueError(f"{streams} streams; one connection reads 1 to {PF_STREAM_MOST_PARTS}")
        self._state.n_parts = streams

    def want(self, uint32_t index, int64_t offset, *, bint exact):
        """Hand nothing on below this offset. ``exact``: the messages below it were there once."""
        self._part(index).wanted = offset
        self._part(index).exact = exact

    def bound(self, uint32_t index, int64_t end):
        """A bounded source reads a stream as far as this offset; -1: there is nothing to read."""
        cdef pf_stream_part *part = self._part(index)
        part.end = end
        part.bounded = 1
        part.done = end < 0 or part.wanted > end

    def ends_known(self):
        """``bound`` was called for every stream."""
        self._state.ends_known = 1
        pf_stream_source_wake(&self._state)

    # -- any thread -----------------------------------------------------------------------------------------------

    def wanted(self, uint32_t index):
        """The next offset to be handed on; -1: nothing was yet, and nothing was said."""
        return self._part(index).wanted

    def fail(self):
        """Let poll() return FAILED, now if it waits."""
        self._state.failed = 1
        pf_stream_source_wake(&self._state)

    def wake(self):
        pf_stream_source_wake(&self._state)

    @property
    def counters(self):
        """(messages handed on, bytes received, chunks)."""
        return self._state.messages, self._state.bytes, self._state.chunks

    def credit(self, uint32_t index):
        """Chunks of a stream that the server may have on their way."""
        return self._part(index).target
