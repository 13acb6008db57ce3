"""Messages back to RabbitMQ queues, confirmed by the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythia_fast.brokers.framing import Headers
from pythia_fast.brokers.rabbitmq import NAME_BYTES, RabbitMQProducer
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.rabbitmq_asking import RabbitMqAsking
from pythia_fast.dlq.sink_target import PlacesTarget, SinkTarget, publisher_context
from pythia_fast.dlq.target import Answer
from pythia_fast.errors import SinkError

if TYPE_CHECKING:
    from pythia_fast.brokers.rabbitmq_address import Address

#: Headers by which the server tells what it did with a message, or is told where else it goes: they are of its first
#: way, and as text the server refuses some of them.
SERVERS_OWN = frozenset({"x-delivery-count", "x-death", "CC", "BCC"})


class RabbitMqTarget(PlacesTarget):
    """``queue``: for all of them; None: each goes back to its own. By the default exchange, so that no other queue gets
    it: its routing key is the queue's name then."""

    def __init__(self, address: Address, queue: str | None, *, timeout_s: float) -> None:
        super().__init__(queue, kind="rabbitmq queue", timeout_s=timeout_s)
        self._address = address
        self._asking = RabbitMqAsking(address, timeout_s)

    def _lacking(self, name: str) -> str:
        if not 0 < len(name.encode("utf-8", "surrogateescape")) <= NAME_BYTES:
            return f"no rabbitmq queue can have the name {name[:40]}..."
        there = self._asking.messages_in(name, SinkError) is not None
        return "" if there else self._asking.missing(name)

    def _open(self, name: str) -> SinkTarget:
        at = self._address
        producer = RabbitMQProducer(
            queue=name,
            host=at.host,
            port=at.port,
            username=at.username,
            password=at.password,
            virtual_host=at.virtual_host,
            tls=at.tls,
            heartbeat=at.heartbeat_s,
        )
        context = publisher_context(self._timeout_s)
        return SinkTarget(f"rabbitmq queue {name}", lambda: producer.open(context), self._timeout_s)

    def _own_headers(self, message: Message) -> Headers:
        return [(name, value) for name, value in message.headers if name not in SERVERS_OWN]

    def close(self) -> list[Answer]:
        answers = super().close()
        self._asking.close()
        return answers
