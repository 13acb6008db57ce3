from pythia_fast._ext.amqp_stream import AmqpStream

class AmqpPublisherNative:
    """Framed records to RabbitMQ. One thread at a time, but for ``wake``; nothing waits but ``wait``."""

    stream: AmqpStream
    def __init__(self, exchange: bytes, routing_key: bytes | None, max_message_size: int) -> None:
        """``routing_key`` None: each record's own key."""
    def add(self, records: memoryview, count: int, ticket: int) -> None:
        """Publish ``count`` framed records; they are read where they are until the ticket is done.

        Raises ValueError for a buffer that is no such thing.
        """
    def begin(self, channel: int, frame_max: int) -> None:
        """Publish on this channel from here on, first what is not confirmed; 0: there is none."""
    def release(self) -> None:
        """Go on after the broker refused something."""
    def limit(self, max_message_size: int) -> None:
        """Refuse larger payloads from here on."""
    def work(self) -> bool:
        """Read, take in confirmations, publish, send. True: the client library has something to do."""
    def wait(self, timeout: float) -> None:
        """Wait for the socket, or ``wake``, for at most so many seconds."""
    def wake(self) -> None:
        """End a wait. Any thread."""
    def take_done(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """Tickets all of whose records are confirmed, or refused for good: (ticket, [(record, why)])."""
    @property
    def tickets(self) -> int:
        """Those that are not done."""
    @property
    def unconfirmed(self) -> int: ...
    @property
    def confirmed(self) -> int:
        """Records, in all."""
    @property
    def held(self) -> bool:
        """The broker refused something, and nothing is published until ``release``."""
    @property
    def refusals(self) -> int: ...
