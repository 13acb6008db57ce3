"""Questions to a RabbitMQ that change nothing: what is there, what a user may, what a queue is like.

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

from pythia_fast.brokers.rabbitmq_errors import ACCESS_REFUSED

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

ASKED = "asked"  #: a text where a number belongs
ASKING_QUEUE = "pythia-fast.doctor.no-such-queue"  #: nothing is routed to it, and what is sent is refused before
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
