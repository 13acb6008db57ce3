"""What each broker guarantees a handler, as data: ``doctor`` prints it, and docs/brokers.md has it as a table.

One row a source. Figures are those of the defaults in the sources' own modules.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NOTHING = "–"
LEAST_COLUMNS = 30  #: of a cell, however narrow the terminal is


@dataclass(frozen=True, slots=True)
class Order:
    """What ``ordering=`` means where messages come from."""

    partition_is: str
    key_is: str
    partition: str  #: what ordering="partition" keeps
    key: str  #: what ordering="key" keeps
    unordered: str = "none"


@dataclass(frozen=True, slots=True)
class Redelivery:
    """What is handled again when the whole runtime is killed (``kill -9``, a power cut)."""

    what: str
    when: str
    counted: str  #: what ``batch.delivery_counts`` tells of it


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the source holds at most outside of the arena, while a handler is slow."""

    messages: str
    bytes: str


@dataclass(frozen=True, slots=True)
class Guarantees:
    """One row of the table."""

    broker: str
    source: str  #: the class
    sink: str
    delivery: str
    done_when: str  #: what tells the broker; always after its outputs and dead letters are durable
    written_when: str  #: what makes a record of the sink count as written
    order: Order
    keys: str
    headers: str
    sharing: str  #: between runtimes
    redelivery: Redelivery
    bounds: Bounds
    cannot: Sequence[str] = field(default_factory=tuple)

    def cells(self) -> Mapping[str, str]:
        """Subject -> what is so, in the order in which it is read."""
        return {
            "source, sink": f"`{self.source}`, `{self.sink}`",
            "delivery": self.delivery,
            "a message is done at the broker": self.done_when,
            "a record counts as written": self.written_when,
            "a partition is": self.order.partition_is,
            "a key is": self.order.key_is,
            'order, `ordering="unordered"`': self.order.unordered,
            'order, `ordering="partition"`': self.order.partition,
            'order, `ordering="key"`': self.order.key,
            "keys": self.keys,
            "headers": self.headers,
            "several runtimes": self.sharing,
            "comes back after `kill -9`": self.redelivery.what,
            "when it comes back": self.redelivery.when,
            "`batch.delivery_counts`": self.redelivery.counted,
            "held outside of the arena, messages": self.bounds.messages,
            "held outside of the arena, bytes": self.bounds.bytes,
            "cannot be promised": "; ".join(self.cannot) or NOTHING,
        }


KAFKA = Guarantees(
    broker="Kafka",
    source="KafkaConsumer",
    sink="KafkaProducer",
    delivery="at least once; from Kafka to Kafka exactly once with `transactional=True`, for `read_committed` readers",
    done_when="its offset is committed: once a second, before a partition is given back, and at the end",
    written_when="every in-sync replica has it (`acks=all`, idempotent producer)",
    order=Order(
        partition_is="a partition of a topic",
        key_is="the record's key",
        partition="that of the partition",
        key='that of the partition, for records of one key; those without a key as with `"partition"`',
    ),
    keys="read and written; a written key chooses the partition",
    headers="read and written",
    sharing="a consumer group: each partition belongs to one member",
    redelivery=Redelivery(
        what="what was handled since the last commit, at most a second of it, and what was in hand; while a row "
        "waits for its retry, also all that was handled behind it in its partition; nothing twice "
        "for `read_committed` readers with `transactional=True`",
        when="when the group gives the partitions to another member: `session.timeout.ms` (45 s) after the death; at "
        "once for a restart with the same `group_instance_id`",
        counted="0: Kafka does not count",
    ),
    bounds=Bounds(
        messages="8,256 kept by the source; in librdkafka by bytes",
        bytes="32 MiB kept by the source, 32 MiB in librdkafka (`queued.max.messages.kbytes`), each and one fetch",
    ),
    cannot=(
        "what the brokers lose: a topic with one replica, or `acks` below `all`",
        "messages that retention removes before they are read",
    ),
)

KAFKA_SHARE = Guarantees(
    broker="Kafka share group",
    source="KafkaShareConsumer",
    sink="KafkaProducer",
    delivery="at least once, as long as the brokers deliver a row: five times (`share.delivery.count.limit`)",
    done_when="it is accepted, as soon as its batch is done",
    written_when="as for Kafka",
    order=Order(
        partition_is="a partition of a topic",
        key_is="the record's key",
        partition="refused",
        key="refused",
    ),
    keys="read and written; a written key chooses the partition",
    headers="read and written",
    sharing="a share group: the brokers give the rows of a partition to several members, a producer's batch at once",
    redelivery=Redelivery(
        what="every row that was not accepted",
        when="when the broker notices that the connection is gone: at once after a kill; else once its lock is over, "
        "`share.record.lock.duration.ms` (30 s). A partition that only the dead had is given to others after "
        "`share.session.timeout.ms` (45 s)",
        counted="the broker's count of deliveries before this one",
    ),
    bounds=Bounds(
        messages="`max_poll_records` (500) of each of `members` (4), arena included; or a whole batch of a producer",
        bytes="`fetch.max.bytes` (8 MiB) of each of `members` (4), or one producer's batch",
    ),
    cannot=(
        "any order",
        "that rows of aborted transactions are left out, unless the group has `share.isolation.level=read_committed`",
        "a row that was delivered for the last time, and not done while it was in hand: the brokers archive it",
        "that a row is handled once where it takes longer than its lock, and another runtime asks for rows",
        "what the brokers lose, and what retention removes before it is read, as for Kafka",
    ),
)

RABBITMQ = Guarantees(
    broker="RabbitMQ queue",
    source="RabbitMQConsumer",
    sink="RabbitMQProducer",
    delivery="at least once; at most once with `auto_ack=True`",
    done_when="it is acknowledged (`basic.ack`), as soon as its batch is done",
    written_when="the broker has confirmed it (persistent, mandatory)",
    order=Order(
        partition_is="the queue, for as long as one channel lives",
        key_is="the routing key",
        partition="that of the queue, while one consumer reads it and nothing is delivered again",
        key="the same, for messages of one routing key",
    ),
    keys="the routing key; a written key is the routing key where the sink has an exchange and no `routing_key=`",
    headers="read and written; other properties are not passed on",
    sharing="competing consumers: the broker hands out single messages",
    redelivery=Redelivery(
        what="everything that was not acknowledged: at most `prefetch_count` messages",
        when="when the broker notices that the connection is gone: at once after a kill, after missed heartbeats (20 s "
        "each) when the machine or the network is gone",
        counted="quorum queue: `x-delivery-count`; classic queue: 1 when redelivered, else 0",
    ),
    bounds=Bounds(
        messages="`prefetch_count` in all, arena included: as many as the pool can have in hand, at most 65,535",
        bytes="256 KiB of read buffer and one message, and the socket's buffer",
    ),
    cannot=(
        "what the server loses: messages of a queue that is not durable or not replicated, with their node",
        "messages that TTL, `max-length` with `drop-head` or `x-delivery-limit` remove",
        "an acknowledgement later than `consumer_timeout` (30 min): the channel is closed, its messages come again",
        "order, when something is delivered again",
    ),
)

RABBITMQ_STREAM = Guarantees(
    broker="RabbitMQ stream",
    source="RabbitMQStreamConsumer",
    sink="RabbitMQProducer",
    delivery="at least once",
    done_when="its offset is stored at the server under the group's name: once a second, and at the end",
    written_when="the broker has confirmed it; a stream is written to as a queue is, by AMQP 0-9-1",
    order=Order(
        partition_is="a stream; of a super stream, each of its streams",
        key_is="the application property `key_property`, else the routing key of AMQP 0-9-1",
        partition="that of the stream",
        key='that of the stream, for messages of one key; those without a key as with `"partition"`',
    ),
    keys="read; a written key is the routing key where the sink has an exchange and no `routing_key=`",
    headers="application properties, read and written; other sections are not passed on",
    sharing="none: one run at a time has a group, and reads all of the stream or super stream",
    redelivery=Redelivery(
        what="what was handled since the offset was stored last, at most a second of it, and what was in hand; while a "
        "row waits for its retry, also all that was handled behind it",
        when="with the next run of the same group, at once",
        counted="0: a stream does not count",
    ),
    bounds=Bounds(
        messages="those of the chunks that there is credit for, at most 64 a stream",
        bytes="`read_ahead_bytes` (8 MiB), or one chunk of `max_chunk_bytes` (256 MiB), and the socket's buffer",
    ),
    cannot=(
        "what retention (`max-age`, `max-length-bytes`) removes before it is read",
        "what the server loses: a stream with one replica goes with its node",
        "messages of a sub-batch that is compressed with anything but gzip: it is one dead letter",
    ),
)

REDIS = Guarantees(
    broker="Redis Streams",
    source="RedisStreamsConsumer",
    sink="RedisStreamsProducer",
    delivery="at least once",
    done_when="it is acknowledged (`XACK`), soon after its batch is done",
    written_when="the server has answered `XADD` with its id",
    order=Order(
        partition_is="a stream",
        key_is="the field `key_field`",
        partition="that of the stream, for one consumer, but for reclaimed entries",
        key="the same, for entries of one key",
    ),
    keys="read from and written to `key_field`",
    headers="fields that are neither payload nor key; the entry's id as `redis-id`",
    sharing="a consumer group: the server hands out single entries",
    redelivery=Redelivery(
        what="every entry that is pending for the dead consumer",
        when="at once for a restart with the same `consumer_name`; for other consumers once it was idle for "
        "`min_idle` (60 s), which they look for every half of it",
        counted="how often the entry was delivered before, where it is reclaimed; else 0",
    ),
    bounds=Bounds(
        messages="two reads of `read_count` (1,000) entries a stream",
        bytes="`read_ahead_bytes` (8 MiB) for both reads, or one entry of `max_entry_bytes` (64 MiB)",
    ),
    cannot=(
        "what a failover loses: replication is asynchronous, acknowledgements included",
        "what a restart of the server loses, by its persistence (`appendonly`, `appendfsync`, `save`)",
        "entries that are trimmed, deleted or evicted before they are read: they are counted and told (Redis 7)",
    ),
)

FILE = Guarantees(
    broker="file",
    source="FileConsumer",
    sink="FileProducer",
    delivery="at least once; standard input and pipes at most once, for they cannot go back",
    done_when="its position is in the checkpoint of the state folder: once a second, and at the end",
    written_when='it is synced to the disk (`fsync="batch"`)',
    order=Order(
        partition_is="a file",
        key_is='the message\'s key, with `format="records"`; else nothing: lines, frames and fixed records have none',
        partition="that of the file",
        key="that of the file: rows without a key are ordered by partition",
    ),
    keys='read and written with `format="records"`; else none, and written ones are dropped',
    headers='read and written with `format="records"`; else none, and written ones are dropped',
    sharing="none: one run at a time has a group, and one run at a time writes a file",
    redelivery=Redelivery(
        what="what was handled since the last checkpoint, about a second of it, and what was in hand; while a row "
        "waits for its retry, also all that was handled behind it in its file",
        when="with the next run that has the same state folder",
        counted="0: nobody counts",
    ),
    bounds=Bounds(messages="one block's", bytes="a block of 256 KiB, or the record that is being read"),
    cannot=(
        "bytes that are truncated away, or rotated away twice, before they are read",
        'what a crash of the machine takes with it with `fsync="interval"` or `"never"`',
    ),
)

MEMORY = Guarantees(
    broker="memory",
    source="MemoryConsumer",
    sink="MemoryProducer",
    delivery="at least once within the process; nothing outlives it",
    done_when="its offset is committed in memory, once a second",
    written_when="it stands in `records`",
    order=Order(
        partition_is="a partition, of as many as were asked for",
        key_is="the message's key",
        partition="that of the partition",
        key="that of the partition, for messages of one key",
    ),
    keys="read and written",
    headers="read and written",
    sharing="none: one handler reads it",
    redelivery=Redelivery(
        what="nothing: it is gone with the process; opened again in the same process it goes on where it committed",
        when=NOTHING,
        counted="what `MemoryMessage(deliveries=)` says",
    ),
    bounds=Bounds(
        messages="those that were given, and what `room_bytes` holds",
        bytes="`room_bytes` (64 MiB) of messages sent and not yet committed; then `send()` waits",
    ),
    cannot=("anything beyond the life of the process",),
)

#: A broker that is added has its row here.
TABLE: Sequence[Guarantees] = (KAFKA, KAFKA_SHARE, RABBITMQ, RABBITMQ_STREAM, REDIS, FILE, MEMORY)


def as_markdown() -> str:
    """The table of docs/brokers.md: a column a broker."""
    rows = [row.cells() for row in TABLE]
    lines = [
        "| | " + " | ".join(row.broker for row in TABLE) + " |",
        "|---|" + "---|" * len(TABLE),
    ]
    lines += [f"| {subject} | " + " | ".join(row[subject] for row in rows) + " |" for subject in rows[0]]
    return "\n".join(lines)


def as_text(columns: int) -> str:
    """The same for a terminal of so many columns: a paragraph a broker."""
    width = max(len(_plain(subject)) for row in TABLE for subject in row.cells())
    paragraphs = []
    for row in TABLE:
        lines = [row.broker]
        for subject, cell in row.cells().items():
            head = f"  {_plain(subject):<{width}}  "
            lines += textwrap.wrap(
                head + _plain(cell), max(columns, len(head) + LEAST_COLUMNS), subsequent_indent=" " * len(head)
            )
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def as_data() -> list[dict[str, Any]]:
    """The same for machines."""
    return [asdict(row) for row in TABLE]


def _plain(text: str) -> str:
    return text.replace("`", "")
