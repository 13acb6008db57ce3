"""A consumer group of some streams, by redis-py: the questions and commands that are not on the data path.

Commands and replies: https://redis.io/docs/latest/commands/?group=stream
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pythia_fast._ext.redis_reader import MOST_IDS
from pythia_fast.brokers.redis_client import Client, Connection
from pythia_fast.errors import SourceError
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.brokers.redis import RedisStreamsConsumer

Id = tuple[int, int]


class PendingEntry(NamedTuple):
    """What XPENDING tells of one entry."""

    id: Id
    consumer: str
    deliveries: int


class RedisGroup:
    """One consumer of one group of some streams. Called by the keeper's thread, but for ``behind``."""

    def __init__(self, source: RedisStreamsConsumer, app: str, handler: str) -> None:
        self.server = source.server
        self.streams = list(source.streams)
        self.name = source.group(app, handler)
        self.is_temporary = source.consumer_name is None
        self.consumer = source.consumer_name or f"{socket.gethostname()}-{os.getpid()}-{handler}"
        self.min_idle = source.min_idle
        self.start = source.start
        self.may_create = source.create_group
        self._overtaken: dict[str, int] = {}
        self._seen = False
        #: Of the last look, by stream: entries not yet acknowledged (None: the server does not know).
        self.behind: dict[str, int | None] = {}

    @property
    def what(self) -> str:
        kind = "stream" if len(self.streams) == 1 else "streams"
        return f"{kind} {', '.join(self.streams)}, group {self.name}"

    @property
    def connection_name(self) -> str:
        """A name of the connection that tells this consumer from all others; no blanks, as Redis wants it."""
        return self._connection_name_of(self.consumer)

    def _connection_name_of(self, consumer: str) -> str:
        return "".join(
            c if c.isprintable() and c != " " and c.isascii() else "_" for c in f"pythia_fast:{self.name}:{consumer}"
        )

    def describe(self) -> str:
        return f"redis {self.what}"

    # -- when connecting --------------------------------------------------------------------------------------------

    def prepare(self, client: Client) -> list[str]:
        """Create the group where it is missing. Lines for the log. Raises SourceError where that is not allowed."""
        import redis

        lines = []
        for stream in self.streams:
            if self.facts(client, stream) is not None:
                continue
            if not self.may_create:
                raise SourceError(
                    f"Redis at {self.server.name}: stream {stream} has no group {self.name}, and create_group=False: "
                    f"create it (XGROUP CREATE {stream} {self.name} 0 MKSTREAM)"
                )
            try:
                client.xgroup_create(stream, self.name, id=self.start, mkstream=True)
            except redis.exceptions.NoPermissionError as error:
                raise SourceError(
                    f"Redis at {self.server.name}: stream {stream} has no group {self.name}, and the user may not "
                    f"create it (ACL SETUSER ... +xgroup): {error}"
                ) from None
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            else:
                made = f"redis: created group {self.name} of stream {stream}"
                at = f"at {self.start}"
                lines.append(f"{made} again {at}" if self._seen else Routine(f"{made} {at}"))
        self._seen = True
        return lines

    def facts(self, client: Client, stream: str) -> dict[str, Any] | None:
        """What XINFO GROUPS tells of this group; None: there is no such group, or no such stream."""
        import redis

        try:
            groups: list[dict[str, Any]] = client.xinfo_groups(stream)
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        for group in groups:
            if group["name"] == self.name.encode():
                return group
        return None

    def ends(self, client: Client) -> list[Id]:
        """The last id that each stream has given out."""
        return [_id(client.xinfo_stream(stream)["last-generated-id"]) for stream in self.streams]

    def is_alive_elsewhere(self, client: Client) -> bool:
        """Whether a consumer of the same name is connected now; False where the user may not ask."""
        return self.connection_name in self._connected(client)

    def _connected(self, client: Client) -> set[str]:
        """The names of all connections; none where the user may not ask."""
        import redis

        try:
            return {each.get("name", "") for each in client.client_list()}
        except redis.ResponseError:
            return set()

    def client_id(self, connection: Connection) -> int | None:
        """The number by which the server knows the connection; None where the user may not ask."""
        import redis

        connection.send_command("CLIENT", "ID")
        try:
            return int(connection.read_response())
        except redis.ResponseError:
            return None

    def unblock(self, client: Client, client_id: int) -> None:
        """End a read that waits at the server, as if its time was over."""
        import redis

        try:
            client.client_unblock(client_id)
        except redis.ResponseError:  # not allowed: it ends with its BLOCK
            return

    # -- what is pending --------------------------------------------------------------------------------------------

    def pending(
        self, client: Client, index: int, after: str, count: int, consumer: str | None, min_idle_ms: int
    ) -> list[PendingEntry]:
        """A page of what is pending: of one consumer, or idle for so long, whoever has it."""
        told = client.xpending_range(
            self.streams[index], self.name, after, "+", count, consumername=consumer, idle=min_idle_ms or None
        )
        return [
            PendingEntry(
                _id(each["message_id"]), each["consumer"].decode(errors="replace"), int(each["times_delivered"])
            )
            for each in told
        ]

    def left_by_others(self, client: Client) -> dict[str, int]:
        """Entries pending for consumers that are not connected, as far as can be told: other clients than this one do
        not say which consumer they are."""
        left: dict[str, int] = {}
        for stream in self.streams:
            for each in client.xpending(stream, self.name)["consumers"]:
                name = each["name"].decode(errors="replace")
                left[name] = left.get(name, 0) + int(each["pending"])
        left.pop(self.consumer, None)
        connected = self._connected(client) if left else set()
        return {name: count for name, count in left.items() if self._connection_name_of(name) not in connected}

    def forget_trimmed(self, client: Client, index: int, ids: Sequence[Id]) -> int:
        """Acknowledge those of these entries that are in the stream no more; how many there were."""
        stream = self.streams[index]
        asked = client.pipeline(transaction=False)
        for ms, seq in ids:
            asked.xrange(stream, f"{ms}-{seq}", f"{ms}-{seq}", count=1)
        gone = [f"{ms}-{seq}" for (ms, seq), found in zip(ids, asked.execute(), strict=True) if not found]
        if gone:
            client.xack(stream, self.name, *gone)
        return len(gone)

    def refresh(self, client: Client, in_hand: Sequence[Sequence[Id]]) -> None:
        """Tell the server that what has been in hand for long is in hand still, so that nobody reclaims it.

        JUSTID leaves the count of deliveries alone; entries that somebody else claimed meanwhile are too young.
        """
        young_ms = round(self.min_idle * 1000 / 4)
        for stream, ids in zip(self.streams, in_hand, strict=True):
            for at in range(0, len(ids), MOST_IDS):
                texts = [f"{ms}-{seq}" for ms, seq in ids[at : at + MOST_IDS]]
                client.xclaim(stream, self.name, self.consumer, young_ms, texts, justid=True)

    # -- now and then -----------------------------------------------------------------------------------------------

    def look(self, client: Client) -> list[str]:
        """Note how far the group is behind, and whether trimming has overtaken it; lines for the log."""
        lines = []
        for stream in self.streams:
            facts = self.facts(client, stream)
            if facts is None:
                continue
            lag = facts.get("lag")
            self.behind[stream] = None if lag is None else int(lag) + int(facts["pending"])
            lost = self.overtaken_by(client, stream, facts)
            if lost > self._overtaken.get(stream, 0):
                more = lost - self._overtaken.get(stream, 0)
                lines.append(
                    f"redis: {more:,} entries of {stream} were trimmed before group {self.name} read them: they are "
                    "lost to it; trim later (MAXLEN, MINID), or read faster"
                )
            self._overtaken[stream] = lost
        return lines

    def overtaken_by(self, client: Client, stream: str, facts: dict[str, Any]) -> int:
        """Entries that left the stream at its old end unread; 0 where the server does not count (before Redis 7)."""
        read = facts.get("entries-read")
        if read is None:
            return 0
        told = client.xinfo_stream(stream)
        added, first = told.get("entries-added"), told.get("recorded-first-entry-id")
        if added is None or first is None or _id(first) <= _id(facts["last-delivered-id"]):
            return 0
        return max(0, int(added) - int(told["length"]) - int(read))

    def leave(self, client: Client) -> None:
        """Delete this consumer unless something is pending for it, in each stream."""
        for stream in self.streams:
            for consumer in client.xinfo_consumers(stream, self.name):
                if consumer["name"] == self.consumer.encode() and consumer["pending"] == 0:
                    client.xgroup_delconsumer(stream, self.name, self.consumer)


def _id(text: bytes | str) -> Id:
    ms, _, seq = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(ms), int(seq or 0)
