"""An open reader of Redis Streams: what the runtime calls, between the native source and its keeper.

Every stream is a partition. An entry's offset is a number of its own, by arrival; the ids of what was handed on and is
not acknowledged are kept in C (ext/redis_ids.h), so a committed position becomes the XACK of all ids below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pythia_fast._ext.redis_reader import RedisReaderNative
from pythia_fast.brokers.base import Partition, Reader, ReaderContext
from pythia_fast.brokers.redis_client import encode_command, encode_string
from pythia_fast.brokers.redis_group import RedisGroup
from pythia_fast.brokers.redis_keeper import Keeper
from pythia_fast.brokers.redis_trouble import of_broken
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.brokers.redis import RedisStreamsConsumer

ACK_S = 10.0  #: how long a commit that waits waits
MAX_FIELDS = 65_536  #: of one entry
#: Between commits: what is not acknowledged costs the server memory, and a thousand ids are one command.
COMMIT_INTERVAL_S = 0.2


class RedisReader(Reader):
    commit_interval_s = COMMIT_INTERVAL_S

    def __init__(self, consumer: RedisStreamsConsumer, context: ReaderContext) -> None:
        from pythia_fast.brokers.redis import BLOCK_S

        self._context = context
        self._max_entry_bytes = consumer.max_entry_bytes
        self._failure: str | None = None
        self._total: int | None = None
        self._bounded = context.until == "end"
        group = RedisGroup(consumer, context.app, context.handler)
        self._group = group
        self.native: RedisReaderNative = RedisReaderNative(
            [(stream.encode(), _ack_of(stream, group.name)) for stream in group.streams],
            _read_of(group, None if self._bounded else BLOCK_S),
            most_entries=consumer.read_count,
            read_ahead_bytes=consumer.read_ahead_bytes,
            silent_after_s=consumer.server.timeout + BLOCK_S,
            bounded=self._bounded,
            max_entry_bytes=consumer.max_entry_bytes,
            max_fields=MAX_FIELDS,
            payload_field=_encoded(consumer.payload_field),
            key_field=_encoded(consumer.key_field),
            columns=consumer.columns,
        )
        self._keeper = Keeper(
            group,
            self.native,
            bounded=self._bounded,
            connect_timeout=context.connect_timeout,
            log=context.log,
            fail=self._fail,
        )
        context.log(
            Routine(
                f"redis: reading {', '.join(group.streams)} at {group.server.name} as consumer {group.consumer} of "
                f"group {group.name}"
            )
        )
        self._keeper.start()

    def serve(self) -> None:
        if not self.native.announced:
            table = [Partition(index, stream, 0) for index, stream in enumerate(self._group.streams)]
            self._context.listener.assigned(table)
            self.native.announce()
        if self.native.wants_io:
            self.native.transfer(self._keeper.data_socket)
        broken = self.native.take_broken()
        if broken is not None:
            group = self._group
            self._keeper.broken(of_broken(broken, group.server.name, group.what, self._max_entry_bytes))

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self.native.fail()

    def failure(self) -> str:
        return self._failure or super().failure()

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        for index, position in positions.items():
            self.native.commit(index, position)
        if not wait:
            self._keeper.poke()
        elif not self._keeper.wait_acknowledged(ACK_S):
            return (
                f"redis: {self._group.server.name} did not confirm within {ACK_S:g} s what was acknowledged: "
                f"{self._group.what}"
            )
        return ""

    def finish(self) -> bool:
        self.native.finish()
        self._keeper.finish()
        return True

    def lag(self) -> Mapping[tuple[str, int], int]:
        return {(stream, 0): behind for stream, behind in self._group.behind.items() if behind is not None}

    def progress(self) -> tuple[int, int] | None:
        behind = list(self._group.behind.values())
        if not self._bounded or not behind or None in behind:
            return None
        read = self.native.counters[0]
        if self._total is None:
            self._total = read + sum(each for each in behind if each is not None)
        return min(read, self._total), self._total

    def place(self, topic: str, partition: int, offset: int) -> str:
        return f"{topic} entry {offset:,} of this run"

    def close(self) -> None:
        self._keeper.close()


def _encoded(name: str | None) -> bytes | None:
    return None if name is None else name.encode()


def _ack_of(stream: str, group: str) -> bytes:
    return b"".join(encode_string(part) for part in (b"XACK", stream.encode(), group.encode()))


def _read_of(group: RedisGroup, block_s: float | None) -> tuple[bytes, bytes]:
    """An XREADGROUP of everything that is new, cut where the string of COUNT stands."""
    mark = b"\0COUNT\0"
    block: list[str | int] = [] if block_s is None else ["BLOCK", round(block_s * 1000)]
    new = [">"] * len(group.streams)
    command = encode_command(
        "XREADGROUP", "GROUP", group.name, group.consumer, "COUNT", mark, *block, "STREAMS", *group.streams, *new
    )
    head, tail = command.split(encode_string(mark), 1)
    return head, tail
