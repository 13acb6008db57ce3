"""An open reader of RabbitMQ's streams: what the runtime calls, between the native source and its keeper.

Every stream is a partition, and a message's offset is its own in the stream. What is committed is stored at the server,
under the group's name, so nothing is revoked when a connection breaks: the next one goes on where this one was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pythia_fast._ext.stream_reader import StreamReaderNative
from pythia_fast.brokers.base import Partition, Reader, ReaderContext
from pythia_fast.brokers.rabbitmq_stream_connection import closing_reason
from pythia_fast.brokers.rabbitmq_stream_keeper import Keeper
from pythia_fast.brokers.rabbitmq_stream_trouble import Trouble, name_of, of_broken
from pythia_fast.brokers.rabbitmq_stream_wire import RESPONSE, Key, Parts, ProtocolError
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer

STORED_S = 10.0  #: how long a commit that waits waits


class RabbitMqStreamReader(Reader):
    def __init__(self, consumer: RabbitMQStreamConsumer, context: ReaderContext) -> None:
        self._consumer = consumer
        self._context = context
        self._failure: str | None = None
        self._bounded = context.until == "end"
        self._streams: Sequence[str] = ()
        self._closed = False
        self.native: StreamReaderNative = StreamReaderNative(
            raw=consumer.raw,
            key_property=None if consumer.key_property is None else consumer.key_property.encode(),
            read_ahead_bytes=consumer.read_ahead_bytes,
            max_chunk_bytes=consumer.max_chunk_bytes,
        )
        self._address = consumer.address
        group = consumer.group(context.app, context.handler)
        self._keeper = Keeper(
            consumer,
            self.native,
            name=f"{context.app}-{context.handler}",
            group=group,
            bounded=self._bounded,
            connect_timeout=context.connect_timeout,
            log=context.log,
            known=self._known,
            fail=self._fail,
        )
        context.log(Routine(f"rabbitmq: reading {consumer.what} at {self._address.place} as group {group}"))
        self._keeper.start()

    def _known(self, streams: Sequence[str]) -> None:
        self._streams = streams
        self.native.wake()

    def serve(self) -> None:
        if self._streams and not self.native.announced:
            self._context.listener.assigned([Partition(i, stream, 0) for i, stream in enumerate(self._streams)])
            self.native.announce()
        if self.native.wants_unpacking:
            self.native.unpack()
        if self.native.wants_io:
            self.native.transfer(self._keeper.data.socket)  # type: ignore[arg-type]  # one with TLS
        told: Trouble | None = None
        if (frame := self.native.take_other()) is not None:
            told = self._trouble_of(frame)
        if told is not None:
            self.native.drop()
        if (broken := self.native.take_broken()) is not None:
            consumer = self._consumer
            self._keeper.broken(told or of_broken(broken, self._address, consumer.what, consumer.max_chunk_bytes))

    def _trouble_of(self, frame: bytes) -> Trouble | None:
        """What the server says beside messages; None: nothing that ends the connection."""
        place = f"RabbitMQ at {self._address}"
        parts = Parts(frame)
        try:
            key, _ = parts.number("H"), parts.number("H")
            if key == Key.CLOSE:
                return Trouble(f"{place}: {closing_reason(frame[4:])}", True)
            if key == Key.METADATA_UPDATE:
                code, stream = parts.number("H"), parts.string()
                return Trouble(
                    f"{place}: stream {stream!r} was deleted, or its copy on this node is gone ({name_of(code)})", True
                )
            if key == RESPONSE | Key.CREDIT:
                return Trouble(f"{place} has ended a subscription ({name_of(parts.number('H'))})", True)
        except ProtocolError as error:
            return Trouble(f"{place}: what comes is no frame of RabbitMQ's stream protocol ({error})", True)
        return None

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self.native.fail()

    def failure(self) -> str:
        return self._failure or super().failure()

    def keep_alive(self) -> None:
        if self.native.keep_alive():
            self.serve()

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        self._keeper.commit(dict(positions))
        if wait and not self._keeper.wait_stored(STORED_S):
            return (
                f"RabbitMQ at {self._address} did not confirm within {STORED_S:g} s the offsets that were stored for "
                f"{self._consumer.what} as group {self._keeper.group}"
            )
        return ""

    def lag(self) -> Mapping[tuple[str, int], int]:
        keeper = self._keeper
        found = {}
        for index, stream in enumerate(self._streams):
            done = max(keeper.stored[index], keeper.begun[index])
            if done >= 0:
                found[(stream, 0)] = max(0, keeper.ends[index] + 1 - done)
        return found

    def progress(self) -> tuple[int, int] | None:
        if not self._bounded or not self._streams:
            return None
        read = total = 0
        for index in range(len(self._streams)):
            begun, end = max(0, self._keeper.begun[index]), self._keeper.ends[index] + 1
            total += max(0, end - begun)
            read += max(0, min(end, self.native.wanted(index)) - begun)
        return read, total

    def place(self, topic: str, partition: int, offset: int) -> str:
        return f"stream {topic} offset {offset:,}"

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._keeper.close()
