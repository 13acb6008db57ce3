"""RabbitMQ as a source and a sink: what a user writes down. Nothing of pika is imported before something is opened."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from pythia_fast import options
from pythia_fast.brokers.base import Publisher, PublisherContext, Reader, ReaderContext, Sink, Source
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.rabbitmq_address import Address, Login
from pythia_fast.errors import ConfigError
from pythia_fast.options import named_options

MOST_PREFETCH = 65_535
NAME_BYTES = 255  #: of a queue, an exchange, a routing key
MAX_MESSAGE_BYTES = 512 << 20  #: RabbitMQ allows no more, whatever its max_message_size says


class RabbitMQConsumer(Source):
    """Reads a queue, classic or quorum, together with all others that consume from it.

    Parameters:
        queue: its name. One that does not exist is declared, if the user may.
        prefetch_count: messages that may be in hand, 1 to 65,535; default: what all batches of the pool can hold.
        auto_ack: messages count as handled once the broker has sent them: what is in hand when this process dies, or
            the connection breaks, is lost.
        url: ``amqp://user:password@host:port/vhost``, ``amqps://`` for TLS; or in parts: host, port, username,
            password, virtual_host. Without either ``RABBITMQ_URL``, else ``amqp://guest:guest@localhost:5672/%2F``.
        exchange, routing_key: bind the queue to this exchange, which must exist.
        durable, arguments: as the queue is declared (default: durable, no arguments). Where one of them is given, a
            queue that exists otherwise is refused.
        exclusive: be the only consumer of the queue, or fail.
        tls: True, or an ssl.SSLContext.
        heartbeat: seconds without a sign of life before the connection counts as dead, 0: never; default 20.

    Raises ConfigError, and UnknownOptionError for an option that does not exist.
    """

    @named_options("RabbitMQConsumer")
    def __init__(
        self,
        queue: str,
        *,
        prefetch_count: int | None = None,
        auto_ack: bool = False,
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        exchange: str | None = None,
        routing_key: str | None = None,
        durable: bool | None = None,
        arguments: Mapping[str, Any] | None = None,
        exclusive: bool = False,
        tls: bool | ssl.SSLContext | None = None,
        heartbeat: int | None = None,
    ) -> None:
        where = "RabbitMQConsumer"
        self.queue = _name(where, "queue", queue)
        self.prefetch_count: int | None = None
        if prefetch_count is not None:
            self.prefetch_count = options.whole(where, "prefetch_count", prefetch_count, 1, MOST_PREFETCH, "messages")
        self.auto_ack = options.flag(where, "auto_ack", auto_ack)
        self.exchange = None if exchange is None else _name(where, "exchange", exchange)
        if routing_key is not None and exchange is None:
            raise ConfigError(
                f"{where}: routing_key={options.spell(routing_key)} needs exchange=, to which it binds the queue"
            )
        self.routing_key = "" if not routing_key else _name(where, "routing_key", routing_key)
        self.declares = durable is not None or arguments is not None
        self.durable = True if durable is None else options.flag(where, "durable", durable)
        self.arguments = _arguments(where, arguments)
        self.exclusive = options.flag(where, "exclusive", exclusive)
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
        )

    @property
    def address(self) -> Address:
        """Where it connects to. Raises ConfigError for a ``RABBITMQ_URL`` that is none."""
        return self._login.address

    def reads_what(self, sink: Sink) -> str | None:
        if not isinstance(sink, RabbitMQProducer) or not self.address.is_surely(sink.address):
            return None
        if sink.queue == self.queue:
            return f"RabbitMQ queue {self.queue}"
        if self.exchange and (sink.exchange, sink.routing_key) == (self.exchange, self.routing_key):
            return f"RabbitMQ exchange {self.exchange} with routing key {self.routing_key!r}"
        return None

    def open(self, context: ReaderContext) -> Reader:
        from pythia_fast.brokers.rabbitmq_reader import RabbitMqReader

        return RabbitMqReader(self, context)

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.rabbitmq_checkup import check_consumer

        return check_consumer(self, context)

    def describe(self) -> str:
        return f"rabbitmq queue {self.queue}"


class RabbitMQProducer(Sink):
    """Writes to a queue or an exchange; a record counts as written once the broker has confirmed it.

    Messages are persistent, and mandatory: one that no queue takes is refused, as is one that is too large.

    Parameters:
        queue: its name; it must exist.
        exchange: which must exist, instead of a queue.
        routing_key: of every message; without it, each record's own key is its routing key.
        max_message_size: bytes of a payload, beyond which it is refused at once; the server's own limit is found out
            when it is met.
        url, host, port, username, password, virtual_host, tls, heartbeat: as for RabbitMQConsumer.

    Raises ConfigError, and UnknownOptionError for an option that does not exist.
    """

    @named_options("RabbitMQProducer")
    def __init__(
        self,
        queue: str | None = None,
        *,
        exchange: str | None = None,
        routing_key: str | None = None,
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        max_message_size: int | None = None,
        tls: bool | ssl.SSLContext | None = None,
        heartbeat: int | None = None,
    ) -> None:
        where = "RabbitMQProducer"
        if (queue is None) == (exchange is None):
            raise ConfigError(f"{where}: give queue='name' or exchange='name', one of the two")
        if queue is not None and routing_key is not None:
            raise ConfigError(f"{where}: routing_key={options.spell(routing_key)} goes with exchange=, not with queue=")
        self.exchange = "" if exchange is None else _name(where, "exchange", exchange)
        self.routing_key: str | None = None
        if queue is not None:
            self.routing_key = _name(where, "queue", queue)
        elif routing_key is not None:
            self.routing_key = "" if routing_key == "" else _name(where, "routing_key", routing_key)
        self.max_message_size = MAX_MESSAGE_BYTES
        if max_message_size is not None:
            self.max_message_size = options.whole(
                where, "max_message_size", max_message_size, 1, MAX_MESSAGE_BYTES, "bytes"
            )
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
        )

    @property
    def address(self) -> Address:
        """Where it connects to. Raises ConfigError for a ``RABBITMQ_URL`` that is none."""
        return self._login.address

    @property
    def queue(self) -> str | None:
        """The queue that it writes to, where it was told one."""
        return None if self.exchange else self.routing_key

    @property
    def target(self) -> str:
        """``queue 'orders'``."""
        return f"exchange {self.exchange!r}" if self.exchange else f"queue {self.routing_key!r}"

    def open(self, context: PublisherContext) -> Publisher:
        from pythia_fast.brokers.rabbitmq_publisher import RabbitMqPublisher

        return RabbitMqPublisher(self, context)

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.rabbitmq_checkup import check_producer

        return check_producer(self, context)

    def describe(self) -> str:
        return f"rabbitmq exchange {self.exchange}" if self.exchange else f"rabbitmq queue {self.routing_key}"


def _name(where: str, option: str, value: object) -> str:
    takes = f"a name of 1 to {NAME_BYTES} bytes"
    name = options.text(where, option, value, takes, longest=NAME_BYTES)
    if len(name.encode()) > NAME_BYTES:
        raise options.refusal(where, option, value, takes)
    return name


def _arguments(where: str, arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if arguments is None:
        return None
    takes = "a mapping of names to values, such as {'x-queue-type': 'quorum'}"
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise options.refusal(where, "arguments", arguments, takes)
    return dict(arguments)
