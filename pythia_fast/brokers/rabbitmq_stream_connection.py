"""A connection to RabbitMQ by its stream protocol: logged in, asked one thing after the other.

What reads the messages is made here too, up to its subscriptions, which have no credit yet; then its socket goes to the
intake thread, and nobody calls this object any more but to close it.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pythia_fast.brokers.rabbitmq_address import CONNECT_S, Address
from pythia_fast.brokers.rabbitmq_stream_trouble import Refused
from pythia_fast.brokers.rabbitmq_stream_wire import (
    HEAD_BYTES,
    RESPONSE,
    Code,
    Key,
    Parts,
    ProtocolError,
    Start,
    binary,
    frame,
    string,
    table,
)

ANSWER_S = 10.0
PROBE_S = 0.25  #: for what a server has to send anyway: it comes before the answer to the next question
MOST_FRAME_BYTES = 16 << 20  #: of an answer
CHUNK_HEAD = struct.Struct(">BbbHIqQQ")  #: a Deliver frame behind key and version: as far as the first offset


class Chunk(NamedTuple):
    """Where a stream's last chunk of messages begins, and its last message."""

    first: int
    last: int


class StreamConnection:
    """See the module's docstring. Raises OSError, Refused or ProtocolError, after which it is of no more use."""

    def __init__(self, address: Address, name: str, patience_s: float = ANSWER_S) -> None:
        """``patience_s``: how long it waits for an answer at most."""
        self.address = address
        self._patience_s = patience_s
        self.heartbeat_s = 0
        self.closed = False
        self._correlation = 0
        self._chunks: dict[int, Chunk] = {}
        self._sent = self._heard = time.monotonic()
        self.socket = self._connect()
        try:
            self.server: Mapping[str, str] = self._log_in(name)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((self.address.host, self.address.port), min(CONNECT_S, self._patience_s))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.address.tls is None:
            return plain
        try:
            return self.address.tls.wrap_socket(plain, server_hostname=self.address.host)
        except BaseException:
            plain.close()
            raise

    def _log_in(self, name: str) -> Mapping[str, str]:
        address = self.address
        peer = {"product": "pythia_fast", "connection_name": name, "platform": "Python"}
        server = self.ask(Key.PEER_PROPERTIES, table(peer), "say who we are").table()
        mechanisms = self.ask(Key.SASL_HANDSHAKE, b"", "ask how to log in").strings()
        if "PLAIN" not in mechanisms:
            raise Refused(Code.MECHANISM, "log in")
        secret = b"\0" + address.username.encode() + b"\0" + address.password.encode()
        self.ask(Key.SASL_AUTHENTICATE, string("PLAIN") + binary(secret), "log in")
        tune = self._await(Key.TUNE, None)
        frame_max, theirs = tune.number("I"), tune.number("I")
        ours = address.heartbeat_s
        self.heartbeat_s = min(ours, theirs) if ours and theirs else ours
        self.send(Key.TUNE, struct.pack(">II", frame_max, self.heartbeat_s))
        self.ask(Key.OPEN, string(address.virtual_host), f"open virtual host {address.virtual_host!r}")
        return server

    # -- asking ------------------------------------------------------------------------------------

    def ask(self, key: int, content: bytes, doing: str, *, has_code: bool = True) -> Parts:
        """Ask and wait for the answer, which is read behind its code."""
        self._correlation = (self._correlation + 1) & 0x7FFFFFFF
        self._write(frame(key, content, self._correlation))
        answer = self._await(key, self._correlation)
        if has_code and (code := answer.number("H")) != Code.OK:
            raise Refused(code, doing)
        return answer

    def send(self, key: int, content: bytes) -> None:
        self._write(frame(key, content))

    def store_offset(self, reference: str, stream: str, offset: int) -> None:
        """There is no answer: whether it is stored, ``stored_offset`` tells."""
        self.send(Key.STORE_OFFSET, string(reference) + string(stream) + struct.pack(">Q", offset))

    def stored_offset(self, reference: str, stream: str) -> int | None:
        """The last offset that was stored, None: none was."""
        try:
            return self.ask(
                Key.QUERY_OFFSET, string(reference) + string(stream), f"ask for the stored offset of {stream!r}"
            ).number("Q")
        except Refused as refused:
            if refused.code == Code.NO_OFFSET:
                return None
            raise

    def partitions(self, super_stream: str) -> list[str]:
        """The streams of a super stream, in their order."""
        return self.ask(Key.PARTITIONS, string(super_stream), f"find super stream {super_stream!r}").strings()

    def missing(self, streams: Sequence[str]) -> dict[str, int]:
        """Those of these streams that cannot be read now, with the code that says why."""
        content = struct.pack(">I", len(streams)) + b"".join(map(string, streams))
        answer = self.ask(Key.METADATA, content, "ask about streams", has_code=False)
        for _ in range(answer.number("I")):
            answer.number("H"), answer.string(), answer.number("I")
        found = {}
        for _ in range(answer.number("I")):
            name, code = answer.string(), answer.number("H")
            answer.number("H")
            for _ in range(answer.number("I")):
                answer.number("H")
            found[name] = code
        return {stream: code for stream in streams if (code := found.get(stream, Code.NO_STREAM)) != Code.OK}

    def subscribe(self, number: int, stream: str, start: Start, value: int, credit: int) -> None:
        content = struct.pack(">B", number) + string(stream) + struct.pack(">H", start)
        if start in (Start.OFFSET, Start.TIMESTAMP):
            content += struct.pack(">q", value)
        content += struct.pack(">H", credit)
        self.ask(Key.SUBSCRIBE, content, f"read stream {stream!r}")

    def last_chunks(self, streams: Sequence[str]) -> list[Chunk | None]:
        """The last chunk of messages of each stream; None: it has none.

        There is no command that tells, so each is subscribed to at its last chunk, with credit for one. The server
        sends it before it answers the next question.
        """
        self._chunks.clear()
        for number, stream in enumerate(streams):
            self.subscribe(number, stream, Start.LAST, 0, 1)
        deadline = time.monotonic() + PROBE_S
        while len(self._chunks) < len(streams) and self._readable(deadline - time.monotonic()):
            self._read_frame()
        for number, stream in enumerate(streams):
            self.ask(Key.UNSUBSCRIBE, struct.pack(">B", number), f"leave stream {stream!r}")
        return [self._chunks.get(number) for number in range(len(streams))]

    def service(self) -> None:
        """Called again and again while nothing is asked: heartbeats go both ways."""
        while self._readable(0.0):
            self._read_frame()
        if not self.heartbeat_s:
            return
        now = time.monotonic()
        if now - self._sent >= self.heartbeat_s / 2:
            self.send(Key.HEARTBEAT, b"")
        if now - self._heard > 2 * self.heartbeat_s:
            raise TimeoutError

    def close(self) -> None:
        """Whatever state it is in; the server takes the end of a connection as a goodbye."""
        if not self.closed:
            self.closed = True
            self.socket.close()

    # -- frames ------------------------------------------------------------------------------------

    def _write(self, content: bytes) -> None:
        self.socket.settimeout(self._patience_s)
        self.socket.sendall(content)
        self._sent = time.monotonic()

    def _await(self, key: int, correlation: int | None) -> Parts:
        """The answer that is waited for, behind its correlation.

        Its key is that of a response, but RabbitMQ 3.10 answers PARTITIONS with the key of the request.
        """
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            found = self._read_frame()
            if found is None:
                continue
            came, parts = found
            if came & ~RESPONSE == key and (correlation is None or parts.number("I") == correlation):
                return parts
        raise TimeoutError

    def _read_frame(self) -> tuple[int, Parts] | None:
        """Key and content of the next frame; None for a heartbeat and for a chunk, which is noted."""
        self.socket.settimeout(self._patience_s)
        (size,) = struct.unpack(">I", self._read(4))
        if size < HEAD_BYTES:
            raise ProtocolError(f"a frame of {size} bytes")
        key, version = struct.unpack(">HH", self._read(HEAD_BYTES))
        left = size - HEAD_BYTES
        if key == Key.DELIVER:
            self._note_chunk(version, left)
            return None
        if left > MOST_FRAME_BYTES:
            raise ProtocolError(f"a frame of {size:,} bytes")
        content = self._read(left)
        if key == Key.CLOSE:
            raise ConnectionError(closing_reason(content))
        return None if key == Key.HEARTBEAT else (key, Parts(content))

    def _note_chunk(self, version: int, left: int) -> None:
        head = self._read(min(left, CHUNK_HEAD.size + (8 if version == 2 else 0)))
        if len(head) < CHUNK_HEAD.size:
            raise ProtocolError("a chunk ends within its header")
        if version == 2:
            head = head[:1] + head[9:]
            left -= 8
        number, _, kind, _, records, _, _, first = CHUNK_HEAD.unpack(head)
        left -= CHUNK_HEAD.size
        while left:
            left -= len(self._read(min(left, 1 << 16)))
        if kind == 0 and records:
            self._chunks[number] = Chunk(first, first + records - 1)

    def _read(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            piece = self.socket.recv(size - len(got))
            if not piece:
                raise ConnectionError("it closed the connection")
            got += piece
            self._heard = time.monotonic()
        return bytes(got)

    def _readable(self, seconds: float) -> bool:
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))


def closing_reason(content: bytes) -> str:
    """What a server says that closes the connection; ``content``: its frame behind key and version."""
    parts = Parts(content)
    parts.number("I"), parts.number("H")
    return f"it closed the connection: {parts.string()}"
