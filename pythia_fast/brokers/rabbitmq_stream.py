"""Streams of RabbitMQ as a source: what a user writes down.

Settings come from the argument, else the environment (``RABBITMQ_STREAM_URL``, ``CONSUMER_GROUP``), else a default.
"""

from __future__ import annotations

import copy
import datetime
import os
import ssl
from typing import NamedTuple

from pythia_fast import options
from pythia_fast.brokers.base import Reader, ReaderContext, Sink, Source
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.group_share import GroupShare
from pythia_fast.brokers.rabbitmq import RabbitMQProducer
from pythia_fast.brokers.rabbitmq_address import STREAM, Address, Login
from pythia_fast.brokers.rabbitmq_stream_wire import Start
from pythia_fast.errors import ConfigError
from pythia_fast.options import named_options

NAME_BYTES = 255  #: of a stream, and of the reference that offsets are stored under
MOST_OFFSET = (1 << 63) - 2


class Beginning(NamedTuple):
    """From where a group reads that has stored nothing."""

    start: Start
    value: int  #: offset, or milliseconds since 1970

    def __str__(self) -> str:
        if self.start == Start.OFFSET:
            return f"offset {self.value:,}"
        if self.start == Start.TIMESTAMP:
            return datetime.datetime.fromtimestamp(self.value / 1000, datetime.UTC).isoformat(timespec="milliseconds")
        return {Start.FIRST: "its first message", Start.LAST: "its last chunk", Start.NEXT: "what comes next"}[
            self.start
        ]


class RabbitMQStreamConsumer(Source):
    """Reads a stream, or all streams of a super stream, by RabbitMQ's stream protocol (plugin ``rabbitmq_stream``).

    Parameters:
        stream: its name, or super_stream: that of a super stream, each of whose streams is a partition.
        consumer_group: the reference that offsets are stored under, at the server; default ``CONSUMER_GROUP``, else
            ``<app>-<handler>``. One run at a time has a group: the server shares no stream between several.
        offset: where a group begins that has stored nothing yet: ``"first"`` (the default), ``"last"`` (the last chunk
            of messages), ``"next"`` (what comes from now on), an offset, or a datetime with a time zone.
        message_format: ``"amqp"``: messages of AMQP 1.0, as clients publish them; ``"raw"``: messages are bare bytes.
        key_property: the application property that is a message's key; default: its routing key, where it came by
            AMQP 0-9-1.
        url: ``rabbitmq-stream://user:password@host:port/vhost``, ``rabbitmq-stream+tls://`` for TLS; or in parts: host,
            port, username, password, virtual_host. Without either ``RABBITMQ_STREAM_URL``, else
            ``rabbitmq-stream://guest:guest@localhost:5552/%2F``.
        tls: True, or an ssl.SSLContext.
        heartbeat: seconds without a sign of life before the connection counts as dead, 0: never; default 20.
        read_ahead_bytes: what is read ahead, in bytes; more only for a single chunk that is larger.
        max_chunk_bytes: a larger chunk of messages ends the run.

    Raises ConfigError, and UnknownOptionError for an option that does not exist.
    """

    @named_options("RabbitMQStreamConsumer")
    def __init__(
        self,
        stream: str | None = None,
        *,
        super_stream: str | None = None,
        consumer_group: str | None = None,
        offset: str | int | datetime.datetime = "first",
        message_format: str = "amqp",
        key_property: str | None = None,
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        tls: bool | ssl.SSLContext | None = None,
        heartbeat: int | None = None,
        read_ahead_bytes: int = 8 << 20,
        max_chunk_bytes: int = 256 << 20,
    ) -> None:
        where = "RabbitMQStreamConsumer"
        if (stream is None) == (super_stream is None):
            raise ConfigError(f"{where}: give stream='name' or super_stream='name', one of the two")
        self.stream = None if stream is None else _name(where, "stream", stream)
        self.super_stream = None if super_stream is None else _name(where, "super_stream", super_stream)
        self.consumer_group = None if consumer_group is None else _name(where, "consumer_group", consumer_group)
        self.beginning = _beginning(where, offset)
        self.raw = options.choice(where, "message_format", message_format, ("amqp", "raw")) == "raw"
        if self.raw and key_property is not None:
            raise ConfigError(f'{where}: key_property= needs message_format="amqp": bare bytes have no properties')
        self.key_property = None if key_property is None else _name(where, "key_property", key_property)
        self._login = Login(
            where,
            url=url,
            host=host,
            port=port,
            username=username,
            password=password,
            virtual_host=virtual_host,
            tls=tls,
            heartbeat=heartbeat,
            way=STREAM,
        )
        self.read_ahead_bytes = options.whole(where, "read_ahead_bytes", read_ahead_bytes, 64 << 10, 1 << 40, "bytes")
        self.max_chunk_bytes = options.whole(where, "max_chunk_bytes", max_chunk_bytes, 64 << 10, 1 << 32, "bytes")

    @property
    def address(self) -> Address:
        """Where it connects to. Raises ConfigError for a ``RABBITMQ_STREAM_URL`` that is none."""
        return self._login.address

    def group(self, app: str, handler: str) -> str:
        return self.consumer_group or os.environ.get("CONSUMER_GROUP") or f"{app}-{handler}"

    def as_group(self, group: str) -> RabbitMQStreamConsumer:
        other = copy.copy(self)
        other.consumer_group = group
        return other

    def share(self, app: str, handler: str) -> GroupShare:
        address, given = self.address, self.consumer_group is not None
        servers = frozenset([f"{address.host}:{address.port}/{address.virtual_host}"])
        name = self.stream or self.super_stream or ""
        kind = "RabbitMQ stream" if self.stream is not None else "RabbitMQ super stream"
        return GroupShare(kind, (name,), servers, self.group(app, handler), given)

    def reads_what(self, sink: Sink) -> str | None:
        if not isinstance(sink, RabbitMQProducer) or self.stream is None or sink.queue != self.stream:
            return None
        return f"RabbitMQ stream {self.stream}" if self.address.is_surely(sink.address) else None

    def open(self, context: ReaderContext) -> Reader:
        from pythia_fast.brokers.rabbitmq_stream_reader import RabbitMqStreamReader

        return RabbitMqStreamReader(self, context)

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.rabbitmq_stream_checkup import check_consumer

        return check_consumer(self, context)

    @property
    def what(self) -> str:
        """``stream orders``, ``super stream orders``."""
        return f"stream {self.stream}" if self.stream is not None else f"super stream {self.super_stream}"

    def describe(self) -> str:
        as_group = f" as group {self.consumer_group}" if self.consumer_group else ""
        return f"rabbitmq {self.what}{as_group}"


def _name(where: str, option: str, value: object) -> str:
    takes = f"a name of 1 to {NAME_BYTES} bytes"
    name = options.text(where, option, value, takes, longest=NAME_BYTES)
    if len(name.encode()) > NAME_BYTES:
        raise options.refusal(where, option, value, takes)
    return name


def _beginning(where: str, offset: object) -> Beginning:
    takes = "'first', 'last', 'next', an offset from 0, or a datetime with a time zone"
    words = {"first": Start.FIRST, "last": Start.LAST, "next": Start.NEXT}
    if isinstance(offset, str) and offset in words:
        return Beginning(words[offset], 0)
    if isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset <= MOST_OFFSET:
        return Beginning(Start.OFFSET, offset)
    if isinstance(offset, datetime.datetime) and offset.tzinfo is not None:
        return Beginning(Start.TIMESTAMP, int(offset.timestamp() * 1000))
    raise options.refusal(where, "offset", offset, takes)
