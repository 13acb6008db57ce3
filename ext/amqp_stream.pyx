# cython: language_level=3
"""AmqpStream: one connection's bytes as the client library sees them. The stream itself is C, in amqp_stream.h."""

import os
import ssl

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory

from amqp_wire cimport (
    PF_AMQP_IN_BYTES,
    pf_amqp_put,
    pf_amqp_stream_close,
    pf_amqp_stream_came,
    pf_amqp_stream_compact,
    pf_amqp_stream_flush,
    pf_amqp_stream_open,
    pf_amqp_stream_unsent,
    pf_amqp_stream_went,
)

#: What is wrong with bytes that cannot be read on, by number (amqp_frames.h).
FAULTS = {
    1: "what answers does not speak AMQP",
    2: "it speaks another version of AMQP than 0-9-1",
    3: "it sends a frame larger than was agreed upon",
    4: "a frame does not end where its size says",
    5: "a method cannot be read",
    6: "a message's header cannot be read",
    7: "a message's body is longer than its header says",
    8: "a frame comes where another kind must come",
    9: "there is no memory for what it sends",
}


cdef class AmqpStream:
    """Made by a reader or a publisher, which own the struct."""

    def open(self, int fd, bint tls):
        pf_amqp_stream_open(self.stream, fd, tls)

    def close(self):
        pf_amqp_stream_close(self.stream)

    def agree(self, frame_max):
        self.stream.parser.frame_most = frame_max

    def emit(self, bytes data not None):
        pf_amqp_put(&self.stream.out, <const char *>data, <size_t>len(data))

    def take_other(self):
        if self.stream.other_size == 0:
            return None
        frames = PyBytes_FromStringAndSize(<const char *>self.stream.other, <Py_ssize_t>self.stream.other_size)
        self.stream.other_size = 0
        return frames

    @property
    def received(self):
        return self.stream.received

    @property
    def unsent(self):
        return pf_amqp_stream_unsent(self.stream)

    def flush(self):
        with nogil:
            pf_amqp_stream_flush(self.stream)

    def fault(self):
        if self.stream.parser.error:
            return FAULTS[self.stream.parser.error]
        if self.stream.out.failed:
            return "there is no memory for what is to be sent"
        if self.stream.error:
            return os.strerror(self.stream.error)
        return "it closed the connection" if self.stream.ended else None

    def exchange(self, tls_socket):
        """TLS: send what waits, and read what there is, as far as the buffer goes."""
        cdef size_t room
        try:
            while pf_amqp_stream_unsent(self.stream):
                sent = tls_socket.send(PyMemoryView_FromMemory(
                    <char *>self.stream.out.bytes + self.stream.out_at,
                    <Py_ssize_t>pf_amqp_stream_unsent(self.stream), PyBUF_READ))
                pf_amqp_stream_went(self.stream, <size_t>sent)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._broke(error)
            return
        if self.stream.in_at == self.stream.in_size:
            pf_amqp_stream_compact(self.stream)
        self.stream.tls_more = 0
        try:
            while True:
                room = PF_AMQP_IN_BYTES - self.stream.in_size
                if room == 0:
                    self.stream.tls_more = 1
                    return
                got = tls_socket.recv_into(PyMemoryView_FromMemory(
                    <char *>self.stream.in_ + self.stream.in_size, <Py_ssize_t>room, PyBUF_WRITE))
                if got == 0:
                    self.stream.ended = 1
                    return
                pf_amqp_stream_came(self.stream, <size_t>got)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except ssl.SSLEOFError:
            self.stream.ended = 1
        except OSError as error:
            self._broke(error)

    cdef object _broke(self, error):
        self.stream.error = error.errno or 5  # EIO: an error of TLS has none of its own
