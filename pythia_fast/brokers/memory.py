"""Messages and results in memory: a source and a sink for tests, as real to the runtime as Kafka.

The source has partitions, offsets and commits, and opened again it goes on from what was committed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from pythia_fast import options
from pythia_fast._ext.memory_reader import MemoryLog
from pythia_fast.brokers.base import (
    MAX_PARTITIONS,
    Delivery,
    FailedRecord,
    Partition,
    Publisher,
    PublisherContext,
    Reader,
    ReaderContext,
    Sink,
    Source,
)
from pythia_fast.brokers.framing import Headers, decode_headers, encode_headers, iterate_records
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.message_extras import MAX_TIMESTAMP_MS, exact_bytes
from pythia_fast.options import named_options

if TYPE_CHECKING:
    from pythia_fast._ext.memory_reader import Entry

MAX_ROOM_BYTES = 2**63 - 1


class MemoryMessage(NamedTuple):
    """One message with more than a payload."""

    payload: bytes | None
    key: bytes | str | None = None
    headers: Headers | None = None
    partition: int | None = None  #: None: by the key's hash; without a key, in turn
    timestamp_ms: int | None = None  #: milliseconds since 1970-01-01T00:00:00Z
    deliveries: int = 0  #: how often a broker would have delivered it before


#: A payload (None: a null value), a MemoryMessage, or (key, payload, headers).
AnyMessage = bytes | None | MemoryMessage | tuple[bytes | str | None, bytes | None, Headers | None]


class MemoryConsumer(Source):
    """Reads the messages that it was given, and those sent to it.

    ``keep_open``: after the given messages wait for ``send()`` until ``end()``; otherwise they are all.
    ``room_bytes``: what messages sent and not yet committed may hold before ``send()`` waits.
    """

    @named_options("MemoryConsumer")
    def __init__(
        self,
        payloads: Iterable[AnyMessage] = (),
        *,
        partitions: int = 1,
        keep_open: bool = False,
        topic: str = "memory",
        room_bytes: int = 64 << 20,
    ) -> None:
        where = "MemoryConsumer"
        messages = options.items(
            where, "payloads", payloads, "a sequence of payloads or MemoryMessages: [payload] for one"
        )
        self.topic = options.text(where, "topic", topic, "a name, 1 to 1,000 characters", longest=1000)
        self.partitions = options.whole(where, "partitions", partitions, 1, MAX_PARTITIONS, "partitions")
        self.log = MemoryLog(
            (
                _entry(message, f"{where}: message {turn}", turn, self.partitions)
                for turn, message in enumerate(messages)
            ),
            self.partitions,
            options.flag(where, "keep_open", keep_open),
            options.whole(where, "room_bytes", room_bytes, 1, MAX_ROOM_BYTES, "bytes"),
        )

    @property
    def committed(self) -> dict[int, int]:
        """Position to go on from, per partition: the offset after the last message that is done."""
        return dict(enumerate(self.log.committed()))

    def send(
        self,
        payload: bytes | None,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int = 0,
        *,
        timestamp_ms: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Append a message while it is read. Any thread.

        Waits while the messages not yet committed hold ``room_bytes``, at most ``timeout`` seconds; raises
        SourceError then, and after ``end()``, ConfigError for what is no message.
        """
        entry: Entry
        if type(payload) is bytes and partition == 0 and key is None and headers is None and timestamp_ms is None:
            entry = payload, None, b"", 0, -1, 0  # nothing to check, and what a row sent alone costs matters
        else:
            message = MemoryMessage(payload, key, headers, partition, timestamp_ms)
            entry = _checked(message, "MemoryConsumer.send", 0, self.partitions)
        try:
            self.log.send(*entry, options.seconds("MemoryConsumer.send", "timeout", timeout))
        except BufferError:
            raise SourceError(
                f"{self.describe()}: no room for {timeout} seconds: "
                f"{self.log.live_bytes()} bytes were sent and not committed"
            ) from None
        except EOFError:
            raise SourceError(f"{self.describe()}: send() after end()") from None

    def end(self) -> None:
        """No more messages: readers stop once they have read what there is."""
        self.log.end()

    def open(self, context: ReaderContext) -> MemoryReader:
        return MemoryReader(self, context)

    def describe(self) -> str:
        return "memory" if self.topic == "memory" else f"memory {self.topic}"


class MemoryReader(Reader):
    def __init__(self, consumer: MemoryConsumer, context: ReaderContext) -> None:
        self.native = consumer.log
        self._consumer = consumer
        self._context = context
        try:
            consumer.log.open()
        except RuntimeError:
            raise SourceError(f"{consumer.describe()} is being read already; give each handler its own") from None

    def serve(self) -> None:
        table = [Partition(index, self._consumer.topic, index) for index in range(self._consumer.partitions)]
        self._context.listener.assigned(table)
        self._consumer.log.announced()

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        for partition, position in positions.items():
            self._consumer.log.commit(partition, position)
        return ""

    def close(self) -> None:
        self._consumer.log.close()


def _entry(message: AnyMessage, where: str, turn: int, partitions: int) -> bytes | Entry | None:
    if message is None:
        return None
    if isinstance(message, bytes):
        return exact_bytes(message)
    if not isinstance(message, MemoryMessage):
        if not isinstance(message, tuple) or len(message) != 3:
            raise ConfigError(
                f"{where} is {options.spell(message)}: it takes bytes, None, a MemoryMessage or (key, payload, headers)"
            )
        key, payload, headers = message
        message = MemoryMessage(payload, key, headers)
    return _checked(message, where, turn, partitions)


def _checked(message: MemoryMessage, where: str, turn: int, partitions: int) -> Entry:
    key = str.encode(message.key) if isinstance(message.key, str) else message.key
    payload_bytes, key_bytes = _bytes_or_none(where, "payload", message.payload), _bytes_or_none(where, "key", key)
    partition = message.partition
    if partition is None:
        partition = turn % partitions if key_bytes is None else crc32(key_bytes) % partitions
    partition = options.whole(where, "partition", partition, 0, partitions - 1, "")
    stamp = -1
    if message.timestamp_ms is not None:
        stamp = options.whole(where, "timestamp_ms", message.timestamp_ms, -1, MAX_TIMESTAMP_MS, "milliseconds")
    try:
        encoded = encode_headers(message.headers)
    except (TypeError, ValueError, AttributeError) as error:
        takes = f"(name, bytes or None) pairs ({error})"
        raise options.refusal(where, "headers", message.headers, takes) from None
    deliveries = options.whole(where, "deliveries", message.deliveries, 0, 65_535, "deliveries")
    return payload_bytes, key_bytes, encoded, partition, stamp, deliveries


def _bytes_or_none(where: str, part: str, value: object) -> bytes | None:
    if value is not None and not isinstance(value, bytes):
        raise options.refusal(where, part, value, "bytes or None")
    return None if value is None else exact_bytes(value)


class MemoryRecord(NamedTuple):
    """What a sink was given."""

    key: bytes | None
    headers: Headers
    payload: bytes | None


class MemoryProducer(Sink):
    """Keeps what it is given in ``records``, in the runtime process."""

    @named_options("MemoryProducer")
    def __init__(self) -> None:
        self.records: list[MemoryRecord] = []
        self._changed = threading.Condition()
        self._trouble: str | None = None
        self._refuse: Callable[[MemoryRecord], str | None] = lambda record: None

    @property
    def payloads(self) -> list[bytes | None]:
        return [record.payload for record in self.records]

    def fail_with(self, trouble: str | None) -> None:
        """Take nothing while ``trouble`` is set, as a sink that waits for its broker; None: go on. Any thread."""
        with self._changed:
            self._trouble = trouble
            self._changed.notify_all()

    def refuse(self, reason: Callable[[MemoryRecord], str | None]) -> None:
        """Refuse for good every record for which ``reason`` returns a sentence. Raises TypeError for no function."""
        if not callable(reason):
            raise TypeError(
                f"refuse() takes a function that is given a MemoryRecord and returns why it is refused, or None; this "
                f"is {type(reason).__name__}"
            )
        self._refuse = reason

    def wait_for(self, count: int, timeout: float = 60.0) -> bool:
        """Wait until there are ``count`` records; False when there were not within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.records) >= count, timeout)

    def open(self, context: PublisherContext) -> MemoryPublisher:
        return MemoryPublisher(self)

    def describe(self) -> str:
        return "memory"


class MemoryPublisher(Publisher):
    def __init__(self, producer: MemoryProducer) -> None:
        self._producer = producer
        self._pending: deque[tuple[int, list[MemoryRecord]]] = deque()

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        read = [
            MemoryRecord(record.key, decode_headers(record.headers), record.payload)
            for record in iterate_records(records)
        ]
        if len(read) != count:
            raise ValueError(f"{len(read)} records in the buffer of ticket {ticket}, {count} announced")
        self._pending.append((ticket, read))

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        producer = self._producer
        with producer._changed:
            if not self._pending or not producer._changed.wait_for(lambda: producer._trouble is None, timeout):
                return []
            done = []
            while self._pending:
                ticket, records = self._pending.popleft()
                failed = []
                for index, record in enumerate(records):
                    reason = producer._refuse(record)
                    if reason is None:
                        producer.records.append(record)
                    else:
                        failed.append(FailedRecord(index, reason))
                done.append(Delivery(ticket, tuple(failed)))
            producer._changed.notify_all()
            return done

    def trouble(self) -> str | None:
        return self._producer._trouble

    def close(self, timeout: float) -> None:
        self._pending.clear()
