"""A connection to RabbitMQ on which letters are got and looked after, with failures as errors of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pika import exceptions

from pythia_fast.brokers.rabbitmq_asking import Asking, Refused
from pythia_fast.brokers.rabbitmq_blocking import NoConnection, blocking_connection
from pythia_fast.brokers.rabbitmq_errors import NOT_FOUND, channel_refusal, connection_refusal
from pythia_fast.errors import SinkError, SourceError

if TYPE_CHECKING:
    import pika
    from pika.adapters.blocking_connection import BlockingChannel

    from pythia_fast.brokers.rabbitmq_address import Address

Answer = TypeVar("Answer")
DEFAULT_LIMIT = 20  #: times that a quorum queue of RabbitMQ 4 delivers a message, where nobody says otherwise
GOODBYE_S = 2.0


class Returns(NamedTuple):
    """What a queue does with messages that come back to it, as far as it can be found out."""

    are_counted: bool  #: as a quorum queue does
    limit: int | None = None  #: of times; beyond it a message is thrown away; None: there is none


class _Silence(Exception):
    """The server has not answered in time."""


class RabbitMqAsking:
    """Made when it is needed. It gives no sign of life meanwhile: a person may think long over what is asked."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    def ask(
        self, kind: type[SourceError | SinkError], doing: str, question: Callable[[BlockingChannel], Answer]
    ) -> Answer:
        """The answer to a question on the one channel that there is. Raises ``kind``; then the channel is gone."""
        try:
            if self._channel is None:
                self._channel = self._connected().channel()
            with _in_time(self._connected(), self._timeout_s):
                return question(self._channel)
        except NoConnection as error:
            raise kind(
                f"{error}: is it running, and are address and login right (--rabbitmq-url or RABBITMQ_URL)?"
            ) from None
        except exceptions.ChannelClosedByBroker as error:
            self.close()
            raise kind(channel_refusal(error.reply_code, error.reply_text, self.address, doing).sentence) from None
        except (exceptions.NackError, exceptions.UnroutableError):
            self.close()
            raise kind(f"RabbitMQ at {self.address.place} refuses to {doing}: is it full (x-overflow)?") from None
        except (exceptions.AMQPError, OSError) as error:
            self.close()
            raise kind(f"{connection_refusal(error, self.address).sentence} (while it was asked to {doing})") from None
        except _Silence:
            self.close(gently=False)
            raise kind(
                f"RabbitMQ at {self.address} did not answer within {self._timeout_s:g} s when it was asked to {doing}"
            ) from None

    def _connected(self) -> pika.BlockingConnection:
        if self._connection is None:
            self._connection = blocking_connection(self.address, "pythia_fast dlq", self._timeout_s, heartbeat=0)
        return self._connection

    def messages_in(self, queue: str, kind: type[SourceError | SinkError]) -> int | None:
        """How many are ready in it; None: there is no such queue."""
        found = self.ask(kind, f"look at queue {queue!r}", lambda _: Asking(self._connected()).queue(queue))
        if not isinstance(found, Refused):
            return found.messages
        if found.code != NOT_FOUND:
            self.close()
            raise kind(channel_refusal(found.code, found.text, self.address, f"look at queue {queue!r}").sentence)
        return None

    def missing(self, queue: str) -> str:
        """That there is no such queue."""
        return (
            f"there is no rabbitmq queue {queue} at {self.address.place}: see whether its name and the server "
            "(--rabbitmq-url) are right (rabbitmqctl list_queues)"
        )

    def returns(self, queue: str) -> Returns:
        """Raises SourceError for a stream, which can neither be read so nor lose a message."""
        asking = Asking(self._connected())
        properties = self.ask(SourceError, f"look at queue {queue!r}", lambda _: asking.properties(queue)) or {}
        if properties.get("x-queue-type") == "stream":
            raise SourceError(
                f"queue {queue!r} at {self.address.place} is a stream, from which no letter can be taken: dlq reads "
                "classic and quorum queues"
            )
        if properties.get("x-queue-type") != "quorum":
            return Returns(are_counted=False)
        default = DEFAULT_LIMIT if int(asking.server_version.partition(".")[0] or 0) >= 4 else None
        limit = properties.get("x-delivery-limit", default)
        return Returns(are_counted=True, limit=limit if isinstance(limit, int) and limit >= 0 else None)

    def close(self, *, gently: bool = True) -> None:
        """End the connection; what was got and not acknowledged goes back to its queue."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None or not connection.is_open:
            return
        try:
            if gently:
                with _in_time(connection, GOODBYE_S):
                    connection.close()
                return
        except (exceptions.AMQPError, OSError):
            return
        except _Silence:
            pass
        connection._impl._terminate_stream(exceptions.AMQPHeartbeatTimeout())
        with contextlib.suppress(exceptions.AMQPError):
            while connection.is_open:
                connection.process_data_events(0.1)


@contextlib.contextmanager
def _in_time(connection: pika.BlockingConnection, timeout_s: float) -> Iterator[None]:
    """pika waits for an answer for ever; the timers of its inner connection run meanwhile. Raises _Silence."""

    def silent() -> None:
        raise _Silence

    loop = connection._impl.ioloop
    timer = loop.call_later(timeout_s, silent)
    try:
        yield
    finally:
        loop.remove_timeout(timer)
