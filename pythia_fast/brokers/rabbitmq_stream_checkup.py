"""Streams of RabbitMQ before a run: login, streams, where the group stands; nothing is stored or declared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pythia_fast.brokers.checkup import CheckupContext, Findings, note, ok, problem
from pythia_fast.brokers.rabbitmq_stream_connection import Chunk, StreamConnection
from pythia_fast.brokers.rabbitmq_stream_trouble import CannotRead, Refused, of_error
from pythia_fast.brokers.rabbitmq_stream_wire import Code, ProtocolError, Start

if TYPE_CHECKING:
    from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer

SEE = "see that the server is up and the address and login are right (url= or RABBITMQ_STREAM_URL)"


def check_consumer(consumer: RabbitMQStreamConsumer, context: CheckupContext) -> Findings:
    """The streams that are read."""
    address = consumer.address
    begun = time.monotonic()
    try:
        connection = StreamConnection(address, f"{context.app}-{context.handler}-doctor", context.left_s())
    except (OSError, Refused, ProtocolError) as error:
        yield problem(of_error(error, address).sentence, SEE)
        return
    with contextlib.closing(connection):
        server = connection.server
        yield ok(
            f"{server.get('product', 'a server')} {server.get('version', '')} at {address.place} let user "
            f"{address.username!r} in after {(time.monotonic() - begun) * 1000:.0f} ms"
        )
        try:
            yield from _streams(connection, consumer, context)
        except (OSError, CannotRead, Refused, ProtocolError) as error:
            yield problem(of_error(error, address).sentence, "see there")


def _streams(connection: StreamConnection, consumer: RabbitMQStreamConsumer, context: CheckupContext) -> Findings:
    streams = yield from _names(connection, consumer)
    if not streams:
        return
    missing = connection.missing(streams)
    for stream, code in missing.items():
        trouble = of_error(Refused(code, f"read stream {stream!r}"), consumer.address)
        change = "declare it" if code == Code.NO_STREAM else "see rabbitmq-streams stream_status"
        yield problem(trouble.sentence, change)
    streams = [stream for stream in streams if stream not in missing]
    chunks = connection.last_chunks(streams)
    group = consumer.group(context.app, context.handler)
    for stream, chunk in zip(streams, chunks, strict=True):
        yield from _position(connection, consumer, group, stream, chunk)
    yield note(
        f"one run at a time has group {group}: RabbitMQ does not share a stream between several, so a second one would "
        "handle every message, too"
    )


def _names(connection: StreamConnection, consumer: RabbitMQStreamConsumer) -> Any:
    """Yields findings; returns the streams."""
    if consumer.stream is not None:
        return [consumer.stream]
    name = str(consumer.super_stream)
    try:
        streams = connection.partitions(name)
    except Refused as refused:
        if refused.code != Code.NO_STREAM:
            raise
        streams = []
    if not streams:
        yield problem(
            f"super stream {name!r} does not exist in virtual host {consumer.address.virtual_host!r}",
            "declare it (rabbitmq-streams add_super_stream), or give stream= for a single stream",
        )
        return []
    yield ok(f"super stream {name!r} has {len(streams)} streams: {_some(streams)}")
    return streams


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _position(
    connection: StreamConnection, consumer: RabbitMQStreamConsumer, group: str, stream: str, chunk: Chunk | None
) -> Findings:
    last = -1 if chunk is None else chunk.last
    there = "with no messages" if chunk is None else f"with messages up to offset {last:,}"
    stored = connection.stored_offset(group, stream)
    if stored is not None:
        behind = max(0, last - stored)
        yield ok(f"stream {stream!r} is there, {there}; group {group} is {behind:,} behind")
        return
    yield ok(
        f"stream {stream!r} is there, {there}; group {group} has stored nothing and begins with {consumer.beginning}"
    )
    beginning = consumer.beginning
    if beginning.start == Start.OFFSET and beginning.value > last + 1:
        yield note(
            f"offset={beginning.value:,} is beyond the end of stream {stream!r}: what comes before it is skipped"
        )
