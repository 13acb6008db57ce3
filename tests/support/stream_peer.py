"""A server that speaks RabbitMQ's stream protocol as a script says: for what no real one sends, as damaged chunks."""

from __future__ import annotations

import contextlib
import socket
import struct
import zlib
from collections.abc import Callable, Sequence

from pythia_fast.brokers.rabbitmq_stream_wire import RESPONSE, Code, Key, Parts, binary, frame, string, table
from tests.support.rabbitmq_stream import entry
from tests.support.scripted_server import LocalServer

CLOSE_NOW = b""


def chunk(
    contents: Sequence[bytes], first: int = 0, *, crc: int | None = None, kind: int = 0, magic: int = 0x50
) -> bytes:
    """A Deliver frame to subscription 0 of these entries, each of them one message."""
    return raw_chunk(b"".join(map(entry, contents)), len(contents), first, crc=crc, kind=kind, magic=magic)


def raw_chunk(
    data: bytes, entries: int, first: int = 0, *, crc: int | None = None, kind: int = 0, magic: int = 0x50
) -> bytes:
    numbers = (magic, kind, entries, entries, 0, 1, first, zlib.crc32(data) if crc is None else crc, len(data), 0, 0)
    return frame(Key.DELIVER, b"\0" + struct.pack(">BBHIqQQIIII", *numbers) + data)


class StreamPeer(LocalServer):
    """Lets everybody in. A connection that gets credit is sent what ``script(n)`` gives for the n-th of them, at once.

    ``b""`` among it: the connection is closed. ``offsets``: of the subscriptions that were asked for.
    """

    def __init__(self, script: Callable[[int], Sequence[bytes]], heartbeat_s: int = 60) -> None:
        self.offsets: list[int] = []
        self._script = script
        self._heartbeat_s = heartbeat_s
        self._fed = 0
        super().__init__()
        self.url = f"rabbitmq-stream://127.0.0.1:{self.port}"

    def _serve(self, connection: socket.socket) -> None:
        fed = False
        with contextlib.suppress(OSError):
            stream = connection.makefile("rb")
            while head := stream.read(4):
                content = stream.read(*struct.unpack(">I", head))
                (key,) = struct.unpack_from(">H", content)
                if key == Key.CREDIT and not fed:
                    fed = True
                    self._fed += 1
                    for sent in self._script(self._fed - 1):
                        if sent == CLOSE_NOW:
                            connection.shutdown(socket.SHUT_RDWR)
                            return
                        connection.sendall(sent)
                elif key not in (Key.CREDIT, Key.HEARTBEAT, Key.TUNE, Key.STORE_OFFSET):
                    self._answer(connection, key, content[4:])

    def _answer(self, connection: socket.socket, key: int, content: bytes) -> None:
        parts = Parts(content)
        correlation = parts.number("I")
        code, rest = Code.OK, b""
        if key == Key.PEER_PROPERTIES:
            rest = table({"product": "peer", "version": "0"})
        elif key == Key.SASL_HANDSHAKE:
            rest = struct.pack(">I", 1) + string("PLAIN")
        elif key == Key.OPEN:
            rest = table({})
        elif key == Key.QUERY_OFFSET:
            code, rest = Code.NO_OFFSET, bytes(8)
        elif key == Key.SUBSCRIBE:
            parts.number("B")
            parts.string()
            if parts.number("H") == 4:
                self.offsets.append(parts.number("Q"))
        elif key == Key.SASL_AUTHENTICATE:
            rest = binary(b"")
        answer = struct.pack(">H", code) + rest
        if key == Key.METADATA:
            parts.number("I")
            stream = string(parts.string()) + struct.pack(">HHI", Code.OK, 0, 0)
            answer = struct.pack(">I", 0) + struct.pack(">I", 1) + stream
        connection.sendall(frame(RESPONSE | key, answer, correlation))
        if key == Key.SASL_AUTHENTICATE:
            connection.sendall(frame(Key.TUNE, struct.pack(">II", 1 << 20, self._heartbeat_s)))
