"""An open RabbitMQ consumer: topology, epochs, acknowledgements, and what a person is told.

Deliveries go from the socket to the intake in compiled code (ext/amqp_source.h). What is here runs when something else
comes: the connection (rabbitmq_session.py), the channel and what was asked of it, timers.

A channel's deliveries are a partition of their own, since delivery tags count from 1 on each channel: when the channel
or its connection is gone, that partition is lost, its rows in hand are handled but not acknowledged, and the broker
delivers their messages again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pika.exceptions import AMQPError, ChannelClosedByBroker

from pythia_fast._ext.amqp_reader import AmqpReaderNative
from pythia_fast.brokers.base import Partition, Reader, ReaderContext
from pythia_fast.brokers.rabbitmq_errors import NOT_FOUND, channel_refusal
from pythia_fast.brokers.rabbitmq_session import Backoff, Session
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pika.channel import Channel

    from pythia_fast._ext.ring import Arena
    from pythia_fast.brokers.rabbitmq import RabbitMQConsumer

MOST_PREFETCH = 65_535  #: that basic.qos can say
COUNT_INTERVAL_S = 5.0  #: between questions how many messages wait
END_INTERVAL_S = 0.05  #: the same while nothing is in flight, and the end is looked for
CONFIRM_S = 10.0  #: for the broker to have taken the last acknowledgements
CLOSE_S = 5.0


class RabbitMqReader(Reader):
    commit_interval_s = 0.0  # an acknowledgement lets the broker deliver more, and costs 21 bytes
    acknowledges_rows = True

    def __init__(self, consumer: RabbitMQConsumer, context: ReaderContext) -> None:
        self._consumer = consumer
        self._context = context
        self._queue = consumer.queue
        self._bounded = context.until == "end"
        self._prefetch = consumer.prefetch_count or min(MOST_PREFETCH, context.rows_in_hand)
        self._channel: Channel | None = None
        self._doing = ""
        self._declare_first = consumer.declares
        self._consumer_tag = ""
        self._partition: Partition | None = None
        self._next_index = 0
        self._ever_consumed = False
        self._leaving = False
        self._failure = "the source failed"
        self._backoff = Backoff()
        self._waiting_messages: int | None = None  #: ready in the queue, when the broker was asked last
        self._total: int | None = None  #: that there were for a bounded run when it began
        self._closed = False
        self.native: AmqpReaderNative = AmqpReaderNative(self._prefetch, consumer.auto_ack)
        self._session = Session(
            consumer.address,
            f"{context.app}-{context.handler}",
            self.native.stream,
            wake=self._call_me,
            log=context.log,
            opened=self._open_channel,
            lost=lambda _: self._end_channel(),
            failed=self._fail,
            connect_timeout=context.connect_timeout,
        )
        self._place = f"queue {self._queue!r} at {consumer.address.place}"
        context.log(Routine(f"rabbitmq: reading {self._place}, with up to {self._prefetch:,} messages in hand"))

    # -- what the runtime calls ----------------------------------------------------------------

    def _call_me(self) -> None:
        self.native.call(True)
        self.native.wake()

    def serve(self) -> None:
        self.native.call(False)
        next_s = self._session.turn()
        self.native.call_after(next_s)

    def failure(self) -> str:
        return self._failure

    def _fail(self, sentence: str) -> None:
        self._failure = sentence
        self.native.fail()

    def settled(self, arena: Arena, slot: int, first: int, messages: int) -> None:
        self.native.settled(arena, slot, first, messages)

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        """What is done was told by ``settled`` and is acknowledged by the intake thread. ``wait``: the last of it.

        An acknowledgement is of its connection, so nothing comes of asking again.
        """
        if not wait:
            return ""
        self._leave()
        answered = self._confirm()
        if not answered and self._ever_consumed:
            self._context.log(
                f"rabbitmq: {self._place} did not confirm the last acknowledgements; what it did not get, it delivers "
                "again to whoever reads next"
            )
        return ""

    def _confirm(self) -> bool:
        """Whether the broker has taken all that was sent: it answers a channel's questions in their order."""
        answers: list[int] = []
        if not self._ask(answers.append):
            return False
        deadline = time.monotonic() + CONFIRM_S
        channel = self._channel
        while not answers and self._channel is channel and time.monotonic() < deadline:
            self._turn(0.05)
        return bool(answers)

    def keep_alive(self) -> None:
        self._leave()
        self._turn(0.0)

    def _turn(self, timeout: float) -> None:
        if self.native.turn(timeout):
            self.serve()

    def _leave(self) -> None:
        """Take nothing in any more; what comes all the same goes back to the queue with the channel's end."""
        if self._leaving:
            return
        self._leaving = True
        if self._channel is not None and self._channel.is_open and self._consumer_tag:
            self._channel.basic_cancel(self._consumer_tag, callback=lambda _: None)
        self._turn(0.0)

    def lag(self) -> Mapping[tuple[str, int], int]:
        if self._waiting_messages is None:
            return {}
        return {(self._queue, 0): self._waiting_messages + self.native.unacknowledged}

    def progress(self) -> tuple[int, int] | None:
        if not self._bounded or self._total is None:
            return None
        return min(self.native.appended, self._total), self._total

    def place(self, topic: str, partition: int, offset: int) -> str:
        return f"queue {topic} delivery {offset:,}"

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._leave()
        self._session.close(self._turn, CLOSE_S)

    # -- the channel ---------------------------------------------------------------------------

    def _open_channel(self) -> None:
        if self._session.link is None or not self._session.is_open or self._leaving:
            return
        self._doing = "open a channel"
        self._channel = self._session.link.channel(on_open_callback=self._channel_open)
        self._channel.add_on_close_callback(self._channel_closed)

    def _channel_open(self, channel: Channel) -> None:
        if channel is not self._channel or channel is None:
            return
        channel.add_on_cancel_callback(self._cancelled)
        consumer = self._consumer
        if self._declare_first:
            self._doing = f"declare queue {self._queue!r}"
            channel.queue_declare(
                self._queue, durable=consumer.durable, arguments=consumer.arguments, callback=self._declared
            )
        else:
            self._doing = f"look at queue {self._queue!r}"
            channel.queue_declare(self._queue, passive=True, callback=self._declared)

    def _declared(self, reply: Any) -> None:
        self._waiting_messages = reply.method.message_count
        if self._total is None:
            self._total = self._waiting_messages
        self._declare_first = self._consumer.declares
        channel, exchange = self._channel, self._consumer.exchange
        if channel is None:
            return
        if exchange is None:
            self._bound()
            return
        self._doing = f"bind queue {self._queue!r} to exchange {exchange!r}"
        channel.queue_bind(self._queue, exchange, self._consumer.routing_key, callback=lambda _: self._bound())

    def _bound(self) -> None:
        if self._channel is not None:
            self._doing = "set prefetch_count"
            self._channel.basic_qos(prefetch_count=self._prefetch, callback=lambda _: self._consume())

    def _consume(self) -> None:
        if self._channel is None or self._leaving:
            return
        self._doing = f"consume from queue {self._queue!r}"
        self._partition = Partition(self._next_index, self._queue, 0)
        self._next_index += 1
        self._context.listener.assigned([self._partition])
        self.native.begin(self._channel.channel_number, self._partition.index)
        self._consumer_tag = self._channel.basic_consume(
            self._queue,
            on_message_callback=lambda *_: None,  # deliveries do not come by here
            auto_ack=self._consumer.auto_ack,
            exclusive=self._consumer.exclusive,
            callback=lambda _: self._consuming(),
        )

    def _consuming(self) -> None:
        self._ever_consumed = True
        self._backoff.reset()
        self._session.settled()
        channel = self._channel
        interval_s = END_INTERVAL_S if self._bounded else COUNT_INTERVAL_S
        self._session.timers.later(interval_s, lambda: self._count(channel))

    def _end_channel(self) -> None:
        """The channel is gone, and with it every chance to acknowledge what came by it."""
        self._channel = None
        self._consumer_tag = ""
        partition, self._partition = self._partition, None
        self.native.end_channel()
        if partition is not None:
            self._context.listener.revoked([partition], lost=True)

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        if channel is not self._channel:
            return
        before = self._partition is not None
        self._end_channel()
        if self._leaving or not self._session.is_open or not isinstance(reason, ChannelClosedByBroker):
            return  # with its connection, of which the session tells
        code, text = reason.reply_code, reason.reply_text
        if code == NOT_FOUND and not before and not self._declare_first and self._doing.startswith("look at"):
            self._declare_first = True
            self._context.log(Routine(f"rabbitmq: {self._place} does not exist; declaring it"))
            self._open_channel()
            return
        refusal = channel_refusal(code, text, self._session.address, self._doing)
        if refusal.lasting and not self._ever_consumed:
            self._fail(refusal.sentence)
            return
        self._session.troubles.tell(f"rabbitmq: {refusal.sentence}; trying again", (code, self._doing))
        self._again()

    def _again(self) -> None:
        link = self._session.link
        self._session.timers.later(
            self._backoff.next_s(), lambda: self._open_channel() if self._session.link is link else None
        )

    def _cancelled(self, _: Any) -> None:
        channel = self._channel
        self._session.troubles.tell(
            f"rabbitmq: {self._place} was deleted, or its node went down, while it was read; looking for it again"
        )
        self._end_channel()
        if channel is not None and channel.is_open:
            channel.close()
        self._again()

    # -- how much there is ---------------------------------------------------------------------

    def _ask(self, answer: Callable[[int], object]) -> bool:
        """Ask how many messages are ready in the queue; False: there is nobody to ask."""
        if self._channel is None or not self._channel.is_open:
            return False

        def answered(reply: Any) -> None:
            self._waiting_messages = reply.method.message_count
            answer(reply.method.message_count)

        try:
            self._channel.queue_declare(self._queue, passive=True, callback=answered)
        except AMQPError:
            return False
        return True

    def _count(self, channel: Channel | None) -> None:
        """From time to time, while this channel lives."""
        if channel is None or channel is not self._channel or self._leaving:
            return
        if not self._bounded:
            self._ask(lambda _: None)
        elif self.native.unacknowledged == 0:
            appended = self.native.appended
            self._ask(lambda ready: self._look_again(appended) if ready == 0 else None)
        interval_s = END_INTERVAL_S if self._bounded else COUNT_INTERVAL_S
        self._session.timers.later(interval_s, lambda: self._count(channel))

    def _look_again(self, appended: int) -> None:
        """The queue was empty, and nothing was in flight.

        What the queue had handed to our channel just before may still be on its way. The channel does things in their
        order, so the answer to a second question comes behind it.
        """

        def seen(ready: int) -> None:
            if ready == 0 and self.native.appended == appended and self.native.unacknowledged == 0:
                self.native.end()

        self._ask(seen)
