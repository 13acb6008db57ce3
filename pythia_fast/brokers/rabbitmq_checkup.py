"""A RabbitMQ before a run: login, objects, permissions, settings; nothing is consumed, published or declared.

AMQP 0-9-1 has few questions, so most is learned from refusals. What is sent breaks a rule on purpose which the server
checks after the one that is asked about, so that it can only be refused, and the refusal tells:

    basic.consume with x-priority="asked"           403: may not read;   406: may
    basic.publish with expiration="asked"           403: may not write;  406: may
    queue.declare with x-max-age="asked"            403: may not declare; 406 names a property that the queue has;
                                                    a queue that is there is left as it is, one that is not is not made

Each refusal closes its channel. Policies, which can set the same as a queue's arguments, are not told over AMQP.
Server: rabbit_channel.erl and rabbit_amqqueue.erl, seen with 3.10.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pika
from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from pythia_fast.brokers.checkup import CheckupContext, Findings, note, ok, problem, warning
from pythia_fast.brokers.rabbitmq_errors import ACCESS_REFUSED, NOT_FOUND, connection_refusal

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

    from pythia_fast.brokers.rabbitmq import RabbitMQConsumer, RabbitMQProducer
    from pythia_fast.brokers.rabbitmq_address import Address

ASKED = "asked"  #: a text where a number belongs
ASKING_QUEUE = "pythia-fast.doctor.no-such-queue"  #: nothing is routed to it, and what is sent is refused before
CONSUMER_TIMEOUT_S = 1800.0  #: the server's own, unless its administrator or the queue says otherwise
#: From here on a server knows x-max-age, and refuses it with a queue that is no stream. Older ones, and other
#: makes of servers, might do what is meant to be refused, so they are not asked.
OLDEST = (3, 9)
BLOCKED_S = 0.5  #: within which a server with an alarm says so
MOST_PROPERTIES = 32  #: of a queue

_CURRENT = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' .*but current is "
    r"(?:the value )?(?P<value>'[^']*'|none)(?: of type '(?P<type>\w+)')?"
)


class Refused(NamedTuple):
    """The server's answer to what it did not do."""

    code: int
    text: str


class Queue(NamedTuple):
    """What a passive declaration tells."""

    messages: int
    consumers: int


class Asking:
    """One connection, each question on a channel of its own."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self._connection = connection
        self._blocked = False
        connection.add_on_connection_blocked_callback(self._note_blocked)

    def _note_blocked(self, *_: object) -> None:
        self._blocked = True

    def close(self) -> None:
        with contextlib.suppress(exceptions.AMQPError):
            self._connection.close()

    @property
    def product(self) -> str:
        """As the server gave it when it let us in; pika keeps that on the connection within."""
        return str((self._connection._impl.server_properties or {}).get("product", "a server"))

    @property
    def server_version(self) -> str:
        return str((self._connection._impl.server_properties or {}).get("version", "unknown"))

    @property
    def refuses_surely(self) -> bool:
        """Whether this server is known to refuse what is asked so that it is refused."""
        version = tuple(int(part) for part in re.findall(r"\d+", self.server_version)[:2])
        return self.product == "RabbitMQ" and version >= OLDEST

    def ask(self, question: Callable[[BlockingChannel], Any]) -> Any:
        """The answer, or Refused."""
        channel = self._connection.channel()
        try:
            answer = question(channel)
        except exceptions.ChannelClosedByBroker as error:
            return Refused(error.reply_code, error.reply_text)
        channel.close()
        return answer

    def queue(self, name: str) -> Queue | Refused:
        answer = self.ask(lambda channel: channel.queue_declare(name, passive=True))
        return (
            answer if isinstance(answer, Refused) else Queue(answer.method.message_count, answer.method.consumer_count)
        )

    def exchange(self, name: str) -> Refused | None:
        answer = self.ask(lambda channel: channel.exchange_declare(name, passive=True))
        return answer if isinstance(answer, Refused) else None

    def may_read(self, queue: str) -> bool:
        if not self.refuses_surely:
            return True

        def consume(channel: BlockingChannel) -> None:
            channel.basic_consume(queue, lambda *_: None, arguments={"x-priority": ASKED})

        answer = self.ask(consume)
        return not (isinstance(answer, Refused) and answer.code == ACCESS_REFUSED)

    def may_write(self, exchange: str, routing_key: str) -> bool:
        if not self.refuses_surely:
            return True

        def publish(channel: BlockingChannel) -> None:
            channel.confirm_delivery()  # which waits for the answer
            channel.basic_publish(exchange, routing_key, b"", pika.BasicProperties(expiration=ASKED))

        answer = self.ask(publish)
        return not (isinstance(answer, Refused) and answer.code == ACCESS_REFUSED)

    def is_blocked(self) -> bool:
        """Whether an alarm keeps the server from taking messages, which it tells those who have published."""
        deadline = time.monotonic() + BLOCKED_S
        while not self._blocked and (left_s := deadline - time.monotonic()) > 0:
            self._connection.process_data_events(left_s)
        return self._blocked

    def may_declare(self, queue: str) -> bool:
        if not self.refuses_surely:
            return True
        answer = self.ask(lambda channel: channel.queue_declare(queue, durable=True, arguments={"x-max-age": ASKED}))
        return not (isinstance(answer, Refused) and answer.code == ACCESS_REFUSED)

    def properties(self, queue: str) -> dict[str, Any] | None:
        """``durable``, ``auto_delete`` and the arguments of a queue that is there; None: it cannot be asked."""
        if not self.refuses_surely:
            return None
        found: dict[str, Any] = {}
        durable, auto_delete = True, False
        for _ in range(MOST_PROPERTIES):
            asked: dict[str, Any] = {"durable": durable, "auto_delete": auto_delete}
            asked["arguments"] = {**found, "x-max-age": ASKED}
            answer = self.ask(functools.partial(_declare, queue=queue, asked=asked))
            if not isinstance(answer, Refused):
                return {"durable": durable, "auto_delete": auto_delete, **found}
            told = _CURRENT.search(answer.text)
            if told is None or told["name"] in found:
                return None
            value = told["value"].strip("'")
            if told["name"] == "durable":
                durable = value == "true"
            elif told["name"] == "auto_delete":
                auto_delete = value == "true"
            elif told["name"] == "x-max-age":  # a stream
                return {"durable": durable, "auto_delete": auto_delete, **found}
            else:
                found[told["name"]] = value if told["type"] == "longstr" else _number(value)
                if value == "stream":
                    return {"durable": durable, "auto_delete": auto_delete, **found}
        return None


def _declare(channel: BlockingChannel, queue: str, asked: Mapping[str, Any]) -> None:
    channel.queue_declare(queue, **asked)


def _number(text: str) -> Any:
    return int(text) if text.lstrip("-").isdigit() else text == "true" if text in ("true", "false") else text


def check_consumer(consumer: RabbitMQConsumer, context: CheckupContext) -> Findings:
    """The queue that is read."""
    asking = yield from _connect(consumer.address, context)
    if asking is not None:
        with contextlib.closing(asking):
            yield from _check_queue(asking, consumer, context)


def _check_queue(asking: Asking, consumer: RabbitMQConsumer, context: CheckupContext) -> Findings:
    name, place = consumer.queue, consumer.address.place
    found = asking.queue(name)
    if consumer.exchange is not None:
        yield from _exchange(asking, consumer.exchange, place)
    if isinstance(found, Refused):
        yield from _missing(asking, found, consumer)
        return
    yield ok(f"queue {name!r} is there, with {found.messages:,} messages ready and {found.consumers} consumers")
    if not asking.may_read(name):
        yield problem(
            f"user {consumer.address.username!r} may not read queue {name!r}", "rabbitmqctl set_permissions: read"
        )
    yield from _sharing(consumer, context, found)
    yield from _prefetch(consumer, context)
    properties = asking.properties(name)
    if properties is None and asking.refuses_surely:
        yield note(
            f"the settings of queue {name!r} cannot be asked: user {consumer.address.username!r} may not declare it"
        )
    elif properties is not None:
        yield from _settings(name, properties, context, reads=True)


def _missing(asking: Asking, found: Refused, consumer: RabbitMQConsumer) -> Findings:
    name, user = consumer.queue, consumer.address.username
    if found.code != NOT_FOUND:
        yield problem(f"queue {name!r} cannot be asked about: {found.text}", "see there")
    elif asking.may_declare(name):
        yield note(f"queue {name!r} does not exist; a run declares it, {_declared_as(consumer)}")
    else:
        yield problem(
            f"queue {name!r} does not exist, and user {user!r} may not declare it",
            "declare it, or allow it (rabbitmqctl set_permissions: configure)",
        )


def _declared_as(consumer: RabbitMQConsumer) -> str:
    kind = (consumer.arguments or {}).get("x-queue-type", "classic")
    return f"{'durable' if consumer.durable else 'not durable'} and {kind}"


def _sharing(consumer: RabbitMQConsumer, context: CheckupContext, found: Queue) -> Findings:
    if consumer.auto_ack:
        yield warning(
            "auto_ack=True: what is in hand when the process dies, or the connection breaks, is lost",
            "leave auto_ack out",
        )
    if found.consumers and consumer.exclusive:
        yield problem(
            f"exclusive=True, and queue {consumer.queue!r} has {found.consumers} consumers already", "stop them"
        )
    elif found.consumers and context.ordering != "unordered":
        yield warning(
            f"queue {consumer.queue!r} has {found.consumers} consumers already, so its order is not kept: "
            f'ordering="{context.ordering}" holds within one consumer',
            "read it with one, or give each its own queue",
        )


def _prefetch(consumer: RabbitMQConsumer, context: CheckupContext) -> Findings:
    prefetch = consumer.prefetch_count
    if prefetch is not None and prefetch < context.batch_size:
        yield warning(
            f"prefetch_count={prefetch:,} is less than batch_size={context.batch_size:,}: no batch gets full, and each "
            "waits for batch_timeout",
            f"give prefetch_count={min(65_535, context.rows_in_hand):,}, or leave it out",
        )
    elif prefetch is not None and prefetch < min(65_535, context.rows_in_hand):
        yield note(
            f"prefetch_count={prefetch:,} is less than the {context.rows_in_hand:,} rows that the pool can have in hand"
        )


def check_producer(producer: RabbitMQProducer, context: CheckupContext) -> Findings:
    """The queue or exchange that is written to."""
    asking = yield from _connect(producer.address, context)
    if asking is not None:
        with contextlib.closing(asking):
            yield from _check_target(asking, producer, context)


def _check_target(asking: Asking, producer: RabbitMQProducer, context: CheckupContext) -> Findings:
    address = producer.address
    if producer.exchange:
        missing = yield from _exchange(asking, producer.exchange, address.place)
        if missing:
            return
        if producer.routing_key is None and context.role == "sink":
            yield note("each record's own key is its routing key: one without a key is published with an empty one")
    else:
        name = producer.routing_key or ""
        found = asking.queue(name)
        if isinstance(found, Refused):
            what = "does not exist" if found.code == NOT_FOUND else f"cannot be asked about: {found.text}"
            yield problem(
                f"queue {name!r} {what}: every record would come back and be dead-lettered", "declare it first"
            )
            return
        yield ok(f"queue {name!r} is there, with {found.messages:,} messages ready and {found.consumers} consumers")
        properties = asking.properties(name)
        if properties is not None:
            yield from _settings(name, properties, context, reads=False)
    if not asking.may_write(producer.exchange, ASKING_QUEUE):
        target = (
            f"exchange {producer.exchange!r}" if producer.exchange else "the default exchange, which leads to queues"
        )
        yield problem(f"user {address.username!r} may not write to {target}", "rabbitmqctl set_permissions: write")
    if asking.is_blocked():
        yield problem(
            f"RabbitMQ at {address} takes no messages now: an alarm of memory or disk is on",
            "see rabbitmqctl status, and free what it names",
        )


# -- what both have in common --------------------------------------------------------------------


def _connect(address: Address, context: CheckupContext) -> Any:
    """Yields findings; returns an Asking, or None where there is no way in."""
    parameters = address.parameters(f"{context.app}-{context.handler}-doctor")
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = patience_s = context.left_s()
    parameters.blocked_connection_timeout = BLOCKED_S  # a server with an alarm does not read goodbyes
    if address.tls is not None:
        parameters.ssl_options = pika.SSLOptions(address.tls, address.host)
    begun = time.monotonic()
    try:
        connection = pika.BlockingConnection(parameters)
    except (exceptions.AMQPError, AMQPConnectorException, OSError) as error:
        sentence, change = _why_no_connection(error, address, patience_s)
        yield problem(sentence, change)
        return None
    asking = Asking(connection)
    yield ok(
        f"{asking.product} {asking.server_version} at {address.place} let user {address.username!r} in after "
        f"{(time.monotonic() - begun) * 1000:.0f} ms"
    )
    if not asking.refuses_surely:
        yield note(
            f"rights and queues' settings are asked of RabbitMQ from 3.9 on, and this is {asking.product} "
            f"{asking.server_version}"
        )
    return asking


def _why_no_connection(error: Exception, address: Address, patience_s: float) -> tuple[str, str]:
    within: Any = error
    while isinstance(nested := getattr(within, "exception", None) or next(iter(within.args), None), Exception):
        within = nested  # pika wraps what the socket said
    if "imeout" in f"{type(within).__name__}{within}":
        sentence = f"RabbitMQ at {address} did not answer within {patience_s:.1f} s"
    else:
        sentence = connection_refusal(within, address).sentence
    return sentence, "see that the server is up and the address and login are right (url= or RABBITMQ_URL)"


def _exchange(asking: Asking, name: str, place: str) -> Any:
    """Yields findings; returns whether it is missing."""
    refused = asking.exchange(name)
    if refused is None:
        yield ok(f"exchange {name!r} is there")
        return False
    what = "does not exist" if refused.code == NOT_FOUND else f"cannot be asked about: {refused.text}"
    yield problem(f"exchange {name!r} at {place} {what}", "declare it first")
    return True


def _settings(name: str, properties: Mapping[str, Any], context: CheckupContext, *, reads: bool) -> Findings:
    kind = properties.get("x-queue-type", "classic")
    given = ", ".join(
        f"{key}={value}" for key, value in properties.items() if key.startswith("x-") and "type" not in key
    )
    yield ok(f"queue {name!r} is of type {kind}{', ' + given if given else ''}")
    if kind == "stream" and reads:
        yield problem(
            f"{name!r} is a stream, not a queue: reading it removes nothing", "name a classic or quorum queue"
        )
        return
    if not properties["durable"]:
        yield warning(
            f"queue {name!r} is not durable: it is gone with its messages when the server restarts",
            "declare it durable, or of type quorum",
        )
    elif kind == "classic":
        yield note(
            f"queue {name!r} is classic: its messages are on one node",
            'a quorum queue (x-queue-type="quorum") has copies',
        )
    if properties["auto_delete"]:
        yield warning(
            f"queue {name!r} is auto_delete: it is removed with its messages when its last consumer leaves",
            "declare it without auto_delete",
        )
    yield from _losses(name, properties)
    if reads and kind == "quorum" and "x-delivery-limit" not in properties:
        yield note(
            f"queue {name!r} has no x-delivery-limit: a message whose run is killed each time comes back for ever "
            "(RabbitMQ 4 has 20 as its default)",
        )
    timeout_s = float(properties.get("x-consumer-timeout", CONSUMER_TIMEOUT_S * 1000)) / 1000
    if reads and context.batch_deadline_s is not None and context.batch_deadline_s > timeout_s:
        yield warning(
            f"batch_deadline={context.batch_deadline_s:g} s is longer than consumer_timeout, {timeout_s:g} s "
            "unless the "
            "server says otherwise: the channel would be closed and its messages delivered again",
            "lower batch_deadline, or raise consumer_timeout",
        )


def _losses(name: str, properties: Mapping[str, Any]) -> Findings:
    letters = "x-dead-letter-exchange" in properties
    gone = "dead-lettered by the server" if letters else "dropped"
    for limit, what in (("x-message-ttl", "older than {} ms"), ("x-expires", "left alone with its queue for {} ms")):
        if limit in properties:
            yield warning(
                f"messages of queue {name!r} that are {what.format(properties[limit])} are {gone}, read or not",
                f"leave {limit} out where every message counts",
            )
    bounds = [limit for limit in ("x-max-length", "x-max-length-bytes") if limit in properties]
    if bounds and properties.get("x-overflow", "drop-head") == "drop-head":
        yield warning(
            f"queue {name!r} has {bounds[0]}={properties[bounds[0]]} with drop-head: when it is full, its oldest "
            f"messages are {gone} unread",
            "give x-overflow=reject-publish, which holds the writers back",
        )
    if "x-delivery-limit" in properties:
        yield (note if letters else warning)(
            f"a message of queue {name!r} that was delivered more than {properties['x-delivery-limit']} times "
            f"is {gone}",
            "" if letters else "give the queue x-dead-letter-exchange",
        )
