"""RabbitMQ's stream protocol as Python has to speak it: logging in, asking, subscribing, storing offsets.

Chunks of messages do not come by here: they are read in C (ext/stream_frames.h, which has the format of a frame).
Source: RabbitMQ's stream protocol reference (deps/rabbitmq_stream/docs/PROTOCOL.adoc of rabbitmq-server).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

RESPONSE = 0x8000
VERSION = 1
HEAD_BYTES = 4  #: key and version


class Key(IntEnum):
    """Commands."""

    DELIVER = 8
    CREDIT = 9
    STORE_OFFSET = 10
    QUERY_OFFSET = 11
    SUBSCRIBE = 7
    UNSUBSCRIBE = 12
    METADATA = 15
    METADATA_UPDATE = 16
    PEER_PROPERTIES = 17
    SASL_HANDSHAKE = 18
    SASL_AUTHENTICATE = 19
    TUNE = 20
    OPEN = 21
    CLOSE = 22
    HEARTBEAT = 23
    PARTITIONS = 25


class Code(IntEnum):
    """What a response says."""

    OK = 1
    NO_STREAM = 2
    NO_SUBSCRIPTION = 4
    NOT_AVAILABLE = 6
    MECHANISM = 7
    AUTHENTICATION = 8
    SASL_ERROR = 9
    LOOPBACK = 11
    VHOST = 12
    INTERNAL = 15
    ACCESS_REFUSED = 16
    PRECONDITION = 17
    NO_OFFSET = 19


class Start(IntEnum):
    """From where a subscription is sent messages."""

    FIRST = 1
    LAST = 2  #: the last chunk
    NEXT = 3
    OFFSET = 4
    TIMESTAMP = 5


class ProtocolError(Exception):
    """What came is no stream protocol."""


def string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def binary(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def table(pairs: Mapping[str, str]) -> bytes:
    return struct.pack(">I", len(pairs)) + b"".join(string(key) + string(value) for key, value in pairs.items())


def frame(key: int, content: bytes, correlation: int | None = None) -> bytes:
    head = struct.pack(">HH", key, VERSION) + (b"" if correlation is None else struct.pack(">I", correlation))
    return struct.pack(">I", len(head) + len(content)) + head + content


class Parts:
    """A frame's content, read from front to end. Raises ProtocolError where it ends too early."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def number(self, form: str) -> int:
        form = ">" + form
        size = struct.calcsize(form)
        if self._at + size > len(self._content):
            raise ProtocolError("a frame ends within a number")
        (value,) = struct.unpack_from(form, self._content, self._at)
        self._at += size
        return int(value)

    def string(self) -> str:
        return self._bytes(self.number("h")).decode("utf-8", "replace")

    def binary(self) -> bytes:
        return self._bytes(self.number("i"))

    def strings(self) -> list[str]:
        return [self.string() for _ in range(self.number("I"))]

    def table(self) -> dict[str, str]:
        pairs = [(self.string(), self.string()) for _ in range(self.number("I"))]
        return dict(pairs)

    def _bytes(self, size: int) -> bytes:
        if size < 0:  # null
            return b""
        if self._at + size > len(self._content):
            raise ProtocolError("a frame ends within a string")
        self._at += size
        return self._content[self._at - size : self._at]
