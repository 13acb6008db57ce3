"""Dead letters in a RabbitMQ queue: messages with the payload and pf-* headers.

AMQP has no way to look at a queue, so letters are got one by one and not acknowledged: while a command runs they are in
its hands, and hidden from others. One that was dealt with is acknowledged, which removes it. All others go back at the
end, or when the command dies: a classic queue puts them where they were, a quorum queue nearly so.

A quorum queue counts how often a message came back, and throws it away beyond its x-delivery-limit. A letter that is
close to that is published again, at the queue's end, before it is acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from pythia_fast.brokers.framing import Headers
from pythia_fast.dlq.rabbitmq_asking import RabbitMqAsking, Returns
from pythia_fast.dlq.ranges import Ranges
from pythia_fast.dlq.store import DeadLetterStore, Entry, Place
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.runtime.dead_letter_form import OUR_HEADERS, StoredLetter, letter_of_record

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

    from pythia_fast.brokers.rabbitmq_address import Address

PUT_BACK_AT_ONCE = 16  #: more that are on their way at once come back out of order
PUT_BACK_S, PUT_BACK_LOOK_S = 5.0, 0.05  #: at most, and between two looks
DELIVERIES = "x-delivery-count"  #: header that a quorum queue adds to a message that came back


class RabbitMqStore(DeadLetterStore):
    """One queue. A letter's place is its number from the head, which is its delivery tag. Its key is the routing key,
    where it came by an exchange."""

    kind = "rabbitmq"
    settles_in_parts = True

    def __init__(self, queue: str, address: Address, *, timeout_s: float) -> None:
        self._queue = queue
        self._address = address
        self._asking = RabbitMqAsking(address, timeout_s)
        self._returns = Returns(are_counted=False)
        self._confirms = False  #: on the channel that there is
        self._last_tag = 0  #: of those that were got on this channel
        self._gone = Ranges()  #: tags that were acknowledged
        self._read = self._total = 0

    def lies_at(self, queue: str, address: Address) -> bool:
        """Whether this is the queue, as far as can be told without asking."""
        return queue == self._queue and address.is_surely(self._address)

    def describe(self) -> str:
        return f"rabbitmq queue {self._queue}"

    def locate(self, place: Place) -> str:
        return f"{self.describe()}, message {place.start:,} from its head"

    def describe_foreign(self) -> str:
        if not self.foreign:
            return ""
        where = f"of {self.describe()} without pf-* headers"
        if self.foreign == 1:
            return f"1 message {where} is no dead letter, and left alone"
        return f"{self.foreign:,} messages {where} are no dead letters, and left alone"

    def entries(self) -> Iterator[Entry]:
        self.close()
        self.foreign = self._read = 0
        total = self._asking.messages_in(self._queue, SourceError)
        if total is None:
            raise SourceError(self._asking.missing(self._queue))
        self._total = total
        self._returns = self._asking.returns(self._queue)
        limit = self._returns.limit
        if limit == 0 and total:
            raise SourceError(
                f"queue {self._queue!r} at {self._asking.address.place} has x-delivery-limit 0: it would throw away "
                "what is looked at and put back; declare it with another limit, or move its messages elsewhere"
            )
        while self._read < self._total:
            method, properties, body = self._asking.ask(
                SourceError, f"get from queue {self._queue!r}", lambda channel: channel.basic_get(self._queue)
            )
            if method is None:
                return  # somebody else took the rest
            self._read += 1
            self._last_tag = method.delivery_tag
            headers = dict(properties.headers or {})
            returns = headers.pop(DELIVERIES, 0)
            if limit is not None and isinstance(returns, int) and 0 < returns >= limit - 1:
                self._renew(method, properties, body, headers)
                continue
            stored = self._letter(method, headers, body)
            if stored is None:
                self.foreign += 1
                continue
            yield Entry(stored, Place(0, method.delivery_tag, method.delivery_tag + 1))

    def _letter(self, method: Any, headers: Mapping[Any, Any], body: bytes) -> StoredLetter | None:
        pairs: Headers = [(_name(name), _value(value)) for name, value in headers.items()]
        # The server may have added some behind ours, which come last in a letter.
        ours = [pair for pair in pairs if pair[0] in OUR_HEADERS]
        others = [pair for pair in pairs if pair[0] not in OUR_HEADERS]
        key = method.routing_key.encode() if method.exchange else None
        return letter_of_record(body or b"", key, [*others, *ours])

    def _renew(self, method: Any, properties: Any, body: bytes, headers: dict[Any, Any]) -> None:
        """Have the message begin anew, at the end of the queue, where it is met again."""

        def publish(channel: BlockingChannel) -> None:
            if not self._confirms:
                channel.confirm_delivery()
                self._confirms = True
            channel.basic_publish("", self._queue, body, properties, mandatory=True)
            channel.basic_ack(method.delivery_tag)

        properties.headers = headers
        self._asking.ask(SourceError, f"publish to queue {self._queue!r}", publish)
        self._total += 1
        self._gone.add(method.delivery_tag, method.delivery_tag + 1)

    def progress(self) -> tuple[int, int]:
        return self._read, self._total

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """The broker gives each message to one consumer, so nothing else need be locked."""
        try:
            yield
        finally:
            self.close()

    def settle(self, places: Iterable[Place], *, archive: bool) -> list[str]:
        tags = Ranges((place.start, place.end) for place in places)
        if not tags:
            return []
        if not self._asking.is_open:
            raise SinkError(
                f"the connection to RabbitMQ at {self._asking.address} is gone, and with it the right to remove "
                f"letters that were dealt with: they are in queue {self._queue!r} again"
            )

        def acknowledge(channel: BlockingChannel) -> None:
            for first, end in tags.pairs():
                for tag in range(first, end):
                    channel.basic_ack(tag)
            # A channel does things in their order: once this is answered, the acknowledgements were taken.
            channel.queue_declare(self._queue, passive=True)

        self._asking.ask(SinkError, f"acknowledge messages of queue {self._queue!r}", acknowledge)
        for first, end in tags.pairs():
            self._gone.add(first, end)
        return []

    def close(self) -> None:
        self._confirms = False
        # The channel's end puts messages back where they were in a classic queue, which takes minutes for ten thousand
        # that are nacked. A quorum queue puts them back in any order, unless one after the other.
        if self._asking.is_open and self._returns.are_counted:
            with contextlib.suppress(SinkError):
                self._put_back()
        self._asking.close()
        self._last_tag, self._gone = 0, Ranges()

    def _put_back(self) -> None:
        held = (tag for tag in range(1, self._last_tag + 1) if tag not in self._gone)
        count = 0
        while some := list(islice(held, PUT_BACK_AT_ONCE)):
            self._asking.ask(SinkError, "put messages back", partial(self._return, some))
            count += len(some)
        # The queue takes its time, and whoever looked next would find few or none. Somebody may be taking them, too.
        deadline = time.monotonic() + PUT_BACK_S
        while (self._asking.messages_in(self._queue, SinkError) or 0) < count and time.monotonic() < deadline:
            time.sleep(PUT_BACK_LOOK_S)

    def _return(self, tags: list[int], channel: BlockingChannel) -> None:
        for tag in tags:
            channel.basic_nack(tag)
        channel.queue_declare(self._queue, passive=True)  # answered once the channel has taken them


def _name(name: Any) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)


def _value(value: Any) -> bytes | None:
    """As the source has it: text and bytes as they are, a number or bool its text, a list or table JSON."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, default=str, skipkeys=True).encode()
