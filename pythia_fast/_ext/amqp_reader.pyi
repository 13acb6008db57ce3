from collections.abc import Sequence

from pythia_fast._ext.amqp_stream import AmqpStream
from pythia_fast._ext.ring import Arena
from pythia_fast._ext.source import NativeSource

class AmqpReaderNative(NativeSource):
    """A RabbitMQ queue as a source that is polled without the GIL. The intake thread's, but for ``settled``, ``done``
    and ``wake``."""

    stream: AmqpStream
    def __init__(self, prefetch: int, auto_ack: bool) -> None: ...
    def begin(self, channel: int, partition: int) -> None:
        """Take in the deliveries of a channel, as rows of a partition, and acknowledge them."""
    def end_channel(self) -> None:
        """The channel is gone: what was delivered on it cannot be acknowledged any more."""
    def settled(self, arena: Arena, slot: int, first: int, messages: int) -> None:
        """So many messages of the slot's table, from ``first`` on, are done: acknowledge them. Any thread."""
    def done(self, partition: int, tags: Sequence[int]) -> None:
        """These deliveries are done. Any thread."""
    def wake(self) -> None: ...
    def turn(self, timeout: float) -> bool:
        """From here on take nothing in; serve the connection once, for at most so many seconds.

        True: Reader.serve() must run.
        """
    def call(self, due: bool) -> None:
        """Let poll ask for Reader.serve() whatever comes."""
    def call_after(self, seconds: float | None) -> None:
        """Let poll ask for Reader.serve() once this time has passed; None: never."""
    def fail(self) -> None: ...
    def end(self) -> None: ...
    @property
    def unacknowledged(self) -> int:
        """Deliveries taken in and not done."""
    @property
    def appended(self) -> int:
        """Messages taken in, over all channels."""
    @property
    def ack_frames(self) -> int: ...
