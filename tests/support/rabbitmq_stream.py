"""Streams of a RabbitMQ for a test: declared, filled by the stream protocol, and messages as clients write them."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pika

from pythia_fast.brokers.rabbitmq_address import STREAM, Login
from pythia_fast.brokers.rabbitmq_stream_connection import StreamConnection
from pythia_fast.brokers.rabbitmq_stream_wire import binary, string
from tests.support.rabbitmq_server import ADDRESS, PASSWORD, USER, RabbitMqServer

_numbers = itertools.count()
AT_ONCE = 1000  #: messages of one Publish frame
UNCONFIRMED = 20_000


def small(code: int, content: bytes) -> bytes:
    """A value of variable size in its short or long encoding; ``code``: the short one."""
    if len(content) < 256:
        return bytes([code, len(content)]) + content
    return bytes([code + 0x10]) + struct.pack(">I", len(content)) + content


def text(value: str) -> bytes:
    return small(0xA1, value.encode())


def symbol(value: str) -> bytes:
    return small(0xA3, value.encode())


def data(value: bytes) -> bytes:
    return small(0xA0, value)


def compound(code: int, items: Sequence[bytes]) -> bytes:
    """A list (0xC0) or map (0xC1), with the long encoding where it must be."""
    content = b"".join(items)
    if len(content) < 255 and len(items) < 256:
        return bytes([code, len(content) + 1, len(items)]) + content
    return bytes([code + 0x10]) + struct.pack(">II", len(content) + 4, len(items)) + content


def section(number: int, value: bytes) -> bytes:
    return bytes([0x00, 0x53, number]) + value


def message(payload: bytes, properties: Mapping[str, bytes] | None = None) -> bytes:
    """A message of AMQP 1.0; ``properties``: application properties, encoded."""
    sections = b""
    if properties:
        sections = section(
            0x74, compound(0xC1, [part for name in properties for part in (text(name), properties[name])])
        )
    return sections + section(0x75, data(payload))


def entry(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def sub_batch(contents: Sequence[bytes], compression: int = 0, packed: bytes | None = None) -> bytes:
    """Several messages as one entry of a chunk."""
    plain = b"".join(map(entry, contents))
    if packed is None:
        packer = zlib.compressobj(wbits=31)
        packed = packer.compress(plain) + packer.flush() if compression == 1 else plain
    head = struct.pack(">BHII", 0x80 | compression << 4, len(contents), len(plain), len(packed))
    return head + packed


def login(server: RabbitMqServer, port: int | None = None) -> Login:
    return Login(
        "test",
        url=None,
        host=ADDRESS,
        port=port or server.stream_port,
        username=USER,
        password=PASSWORD,
        virtual_host=None,
        tls=None,
        heartbeat=0,
        way=STREAM,
    )


def url_of(server: RabbitMqServer, port: int | None = None) -> str:
    return f"rabbitmq-stream://{USER}:{PASSWORD}@{ADDRESS}:{port or server.stream_port}/%2F"


class Writer:
    """Publishes into one stream."""

    def __init__(self, server: RabbitMqServer, stream: str) -> None:
        self.connection = StreamConnection(login(server).address, "writer")
        try:
            self.connection.ask(1, b"\0" + string("") + string(stream), "declare a publisher")
        except BaseException:
            self.connection.close()
            raise
        self._next = 0
        self._confirmed = 0

    def publish(self, messages: Iterable[bytes], at_once: int = AT_ONCE) -> None:
        """Messages as they are in the stream; returns once the server has confirmed them."""
        source = iter(messages)
        while batch := list(itertools.islice(source, at_once)):
            published = b"".join(struct.pack(">Q", self._next + i) + binary(each) for i, each in enumerate(batch))
            self._send(published, len(batch))
        self._wait(0)

    def publish_batches(self, batches: Sequence[tuple[bytes, int]]) -> None:
        """Sub-batches, each with its number of messages."""
        for batch, _ in batches:
            self._send(struct.pack(">Q", self._next) + batch, 1)
        self._wait(0)

    def _send(self, published: bytes, count: int) -> None:
        self.connection.send(2, b"\0" + struct.pack(">I", count) + published)
        self._next += count
        self._wait(UNCONFIRMED)

    def _wait(self, most: int) -> None:
        while self._next - self._confirmed > most:
            found = self.connection._read_frame()
            if found is None:
                continue
            key, parts = found
            assert key == 3, (key, parts)
            parts.number("B")
            self._confirmed += parts.number("I")

    def close(self) -> None:
        self.connection.close()


class Stream:
    """A stream that no other test uses."""

    def __init__(self, server: RabbitMqServer, **arguments: Any) -> None:
        self.server = server
        self.name = f"stream-{next(_numbers)}"
        self._amqp = pika.BlockingConnection(pika.URLParameters(server.url))
        self.channel = self._amqp.channel()
        self.channel.queue_declare(self.name, durable=True, arguments={"x-queue-type": "stream", **arguments})

    def publish(self, payloads: Iterable[bytes], at_once: int = AT_ONCE) -> None:
        """As messages of AMQP 1.0 that have nothing but data."""
        self.publish_raw((message(payload) for payload in payloads), at_once)

    def publish_raw(self, messages: Iterable[bytes], at_once: int = AT_ONCE) -> None:
        writer = Writer(self.server, self.name)
        try:
            writer.publish(messages, at_once)
        finally:
            writer.close()

    def publish_batches(self, batches: Sequence[tuple[bytes, int]]) -> None:
        writer = Writer(self.server, self.name)
        try:
            writer.publish_batches(batches)
        finally:
            writer.close()

    def stored(self, group: str) -> int | None:
        connection = StreamConnection(login(self.server).address, "asking")
        try:
            return connection.stored_offset(group, self.name)
        finally:
            connection.close()

    def leave(self) -> None:
        """The stream stays."""
        self._amqp.close()

    def close(self) -> None:
        self.channel.queue_delete(self.name)
        self._amqp.close()


class SuperStream:
    """An exchange and the streams behind it, as ``rabbitmq-streams add_super_stream`` makes them."""

    def __init__(self, server: RabbitMqServer, partitions: int) -> None:
        self.server = server
        self.name = f"super-{next(_numbers)}"
        self._amqp = pika.BlockingConnection(pika.URLParameters(server.url))
        self.channel = self._amqp.channel()
        arguments = {"x-super-stream": True}
        self.channel.exchange_declare(self.name, "direct", durable=True, arguments=arguments)
        self.partitions = [f"{self.name}-{number}" for number in range(partitions)]
        for number, partition in enumerate(self.partitions):
            self.channel.queue_declare(partition, durable=True, arguments={"x-queue-type": "stream"})
            order = {"x-stream-partition-order": number}
            self.channel.queue_bind(partition, self.name, str(number), arguments=order)

    def writer(self, number: int) -> Writer:
        return Writer(self.server, self.partitions[number])

    def stored(self, group: str) -> list[int | None]:
        connection = StreamConnection(login(self.server).address, "asking")
        try:
            return [connection.stored_offset(group, partition) for partition in self.partitions]
        finally:
            connection.close()

    def close(self) -> None:
        for partition in self.partitions:
            self.channel.queue_delete(partition)
        self.channel.exchange_delete(self.name)
        self._amqp.close()
