"""An open RabbitMQ producer: the channel that confirms, what became of the records, and what a person is told.

Records are framed and confirmations are taken in by compiled code (ext/amqp_outbox.h). A thread of its own serves the
connection, since heartbeats go on while nothing is published. A record is durable once the broker has confirmed it:
until then it is published again on every new channel. One that no queue takes, or that is larger than the broker
allows, is a ``FailedRecord``.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pika.exceptions import ChannelClosedByBroker

from pythia_fast._ext.amqp_publisher import AmqpPublisherNative
from pythia_fast.brokers.base import Delivery, FailedRecord, Publisher, PublisherContext
from pythia_fast.brokers.rabbitmq_errors import channel_refusal
from pythia_fast.brokers.rabbitmq_session import Backoff, Session
from pythia_fast.errors import SinkError
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pika.channel import Channel

    from pythia_fast.brokers.rabbitmq import RabbitMQProducer
    from pythia_fast.brokers.rabbitmq_link import Link

LONGEST_WAIT_S = 1.0  #: of the thread, when nothing is due
REFUSED_WAIT_S = 0.2  #: after a basic.nack, before anything is published again
SILENCE_S = 1.0  #: without a confirmation, before records that wait count as trouble
CLOSE_S = 5.0
TOO_LARGE = re.compile(r"message size \d+ is larger than .*max size (\d+)")


class RabbitMqPublisher(Publisher):
    def __init__(self, producer: RabbitMQProducer, context: PublisherContext) -> None:
        self._producer = producer
        self._place = f"{producer.target} at {producer.address.place}"
        self._lock = threading.Condition()  # guards all that follows; the thread waits for the socket without it
        self._done: deque[Delivery] = deque()
        self._failure: str | None = None
        self._blocked: str | None = None  #: why the broker takes nothing from publishers, while it does not
        self._channel: Channel | None = None
        self._doing = ""
        self._ever_published = False
        self._confirmed = 0
        self._progressed_at = time.monotonic()
        self._backoff = Backoff()
        self._max_message_size = producer.max_message_size
        self._native = AmqpPublisherNative(
            producer.exchange.encode(),
            None if producer.routing_key is None else producer.routing_key.encode(),
            producer.max_message_size,
        )
        self._stopping = False
        self._release_due = False  #: a timer is set by which publishing goes on after a refusal
        self._session = Session(
            producer.address,
            f"{context.app}-{context.handler} publisher",
            self._native.stream,
            wake=self._native.wake,
            log=context.log,
            opened=self._open_channel,
            lost=lambda _: self._end_channel(),
            failed=self._fail,
            connect_timeout=context.connect_timeout,
        )
        self._thread = threading.Thread(target=self._run, name=f"publish to {producer.target}", daemon=True)
        self._thread.start()

    # -- what the runtime calls ----------------------------------------------------------------

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        with self._lock:
            if self._native.tickets == 0:
                self._progressed_at = time.monotonic()
            self._native.add(records, count, ticket)
        self._native.wake()

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        with self._lock:
            if not self._done and timeout > 0:
                self._lock.wait_for(lambda: bool(self._done) or self._failure is not None, timeout)
            if self._failure is not None:
                raise SinkError(f"{self._producer.describe()}: {self._failure}")
            found = list(self._done)
            self._done.clear()
            return found

    def trouble(self) -> str | None:
        with self._lock:
            if self._native.tickets == 0 or time.monotonic() - self._progressed_at < SILENCE_S:
                return None
            if self._session.trouble is not None:
                return self._session.trouble
            if self._blocked is not None:
                return f"RabbitMQ at {self._session.address} takes nothing from publishers: {self._blocked}"
            return f"RabbitMQ has not confirmed records for {self._place} yet"

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            self._lock.wait_for(
                lambda: self._native.tickets == 0 or self._failure is not None, max(0.0, deadline - time.monotonic())
            )
            self._stopping = True
        self._native.wake()
        self._thread.join()

    # -- its thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                with self._lock:
                    wait_s = self._turn()
                if wait_s > 0:
                    self._native.wait(wait_s)
            with self._lock:
                self._session.close(self._serve, CLOSE_S)
        except BaseException as error:
            with self._lock:
                self._fail(f"{type(error).__name__}: {error}")

    def _serve(self, timeout: float) -> None:
        wait_s = self._turn()
        if wait_s > 0:
            self._native.wait(min(timeout, wait_s))

    def _turn(self) -> float:
        """Do what can be done now; seconds until there is more, 0: there is more at once."""
        next_s = self._session.turn()
        more = self._native.work()
        for ticket, failed in self._native.take_done():
            self._done.append(Delivery(ticket, tuple(FailedRecord(index, self._reason(why)) for index, why in failed)))
            self._lock.notify_all()
        if self._native.confirmed != self._confirmed:
            self._confirmed = self._native.confirmed
            self._progressed_at = time.monotonic()
        if self._native.held and not self._release_due:
            self._release_due = True
            self._session.troubles.tell(f"rabbitmq: {self._place} refused records; they are published again")
            self._session.timers.later(REFUSED_WAIT_S, self._release)
            next_s = REFUSED_WAIT_S
        if more and self._session.link is not None:
            return 0.0 if not self._native.stream.unsent else 0.001  # TLS: the socket may have to take more first
        return LONGEST_WAIT_S if next_s is None else min(next_s, LONGEST_WAIT_S)

    def _release(self) -> None:
        self._release_due = False
        self._native.release()

    def _reason(self, why: int) -> str:
        return (
            f"RabbitMQ does not take it for {self._place}: "
            + (
                "",
                "no queue is bound that it would go to (unroutable)",
                f"it is larger than {self._max_message_size:,} bytes (max_message_size)",
                "it has no payload (a null value), which AMQP cannot say",
                "its key is longer than the 255 bytes that a routing key may have",
                "its headers do not fit a frame, or a name among them is longer than 255 bytes",
            )[why]
        )

    def _fail(self, sentence: str) -> None:
        self._failure = sentence
        self._lock.notify_all()

    # -- the channel ---------------------------------------------------------------------------

    def _open_channel(self) -> None:
        link = self._session.link
        if link is None or not self._session.is_open or self._stopping:
            return
        link.add_on_connection_blocked_callback(lambda _, frame: self._block(frame.method.reason))
        link.add_on_connection_unblocked_callback(lambda *_: self._block(None))
        self._open_channel_of(link)

    def _open_channel_of(self, link: Link | None) -> None:
        if link is None or self._session.link is not link or not self._session.is_open or self._stopping:
            return
        self._doing = "open a channel"
        self._channel = link.channel(on_open_callback=self._channel_open)
        self._channel.add_on_close_callback(self._channel_closed)

    def _block(self, reason: Any) -> None:
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        self._blocked = reason
        if reason is None:
            self._session.troubles.tell(Routine(f"rabbitmq: {self._session.address} takes records again"))
        else:
            self._session.troubles.tell(
                f"rabbitmq: {self._session.address} takes nothing from publishers: {reason}", "blocked"
            )

    def _channel_open(self, channel: Channel) -> None:
        producer = self._producer
        if producer.exchange:
            self._doing = f"publish to exchange {producer.exchange!r}"
            channel.exchange_declare(producer.exchange, passive=True, callback=lambda _: self._confirm(channel))
        elif producer.routing_key is not None:
            self._doing = f"publish to queue {producer.routing_key!r}"
            channel.queue_declare(producer.routing_key, passive=True, callback=lambda _: self._confirm(channel))
        else:
            self._confirm(channel)

    def _confirm(self, channel: Channel) -> None:
        channel.confirm_delivery(ack_nack_callback=lambda _: None, callback=lambda _: self._begin(channel))

    def _begin(self, channel: Channel) -> None:
        link = self._session.link
        if self._channel is None or channel is not self._channel or link is None:
            return
        self._doing = f"publish to {self._producer.target}"
        self._ever_published = True
        self._native.begin(channel.channel_number, link.params.frame_max)
        self._session.settled()

    def _end_channel(self) -> None:
        self._channel = None
        self._blocked = None
        self._native.begin(0, 0)

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        if channel is not self._channel:
            return
        self._end_channel()
        if self._stopping or not self._session.is_open or not isinstance(reason, ChannelClosedByBroker):
            return  # with its connection, of which the session tells
        if (found := TOO_LARGE.search(reason.reply_text)) is not None:
            self._max_message_size = int(found[1])
            self._native.limit(self._max_message_size)
        else:
            refusal = channel_refusal(reason.reply_code, reason.reply_text, self._session.address, self._doing)
            if refusal.lasting and not self._ever_published:
                self._fail(refusal.sentence)
                return
            self._session.troubles.tell(f"rabbitmq: {refusal.sentence}; trying again", (reason.reply_code, self._doing))
        link = self._session.link
        self._session.timers.later(self._backoff.next_s(), lambda: self._open_channel_of(link))
