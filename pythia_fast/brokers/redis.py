"""Redis Streams as a source and a sink: what a user writes down.

Settings come from the argument, else the environment (``REDIS_URL``, ``CONSUMER_GROUP``), else a default. Options of
redis-py can be given by their own names (``ssl_ca_certs=...``). Nothing of redis-py is imported before there is such an
option to check or something to open.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from pythia_fast import options
from pythia_fast.brokers.base import (
    MAX_PARTITIONS,
    Publisher,
    PublisherContext,
    Reader,
    ReaderContext,
    Sink,
    Source,
)
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.group_share import GroupShare
from pythia_fast.brokers.redis_client import RedisServer
from pythia_fast.errors import ConfigError, SchemaError
from pythia_fast.options import named_options

BLOCK_S = 1.0  #: how long the server keeps a read that finds nothing; a wake-up does not wait for it
MAX_ENTRY_BYTES = 1 << 30  #: twice what a Redis takes as one string by default


class RedisStreamsConsumer(Source):
    """Reads streams as a consumer of a group.

    ``stream`` or ``streams``: names of keys. ``consumer_group``: default ``CONSUMER_GROUP``, else ``<app>-<handler>``.
    ``consumer_name``: default host, process and handler, unique, and deleted at the end when it has nothing pending.
    A name that stays the same gets back what an earlier life of it had in hand, at once.
    ``url`` (default ``REDIS_URL``, else ``redis://localhost:6379/0``) or ``host``, ``port``; ``db``, ``username``,
    ``password``; ``sentinels=[(host, port), ...]`` with ``service_name``; ``cluster=True``.
    ``start``: where a group that does not exist yet begins: ``"0"`` (everything), ``"$"`` (what comes) or an id.
    ``create_group``: whether it may be created. ``payload_field``: default ``data``, else ``body``, else the only one.
    ``key_field``: the field that is the key. ``fields``: a Struct: the fields are the columns.
    ``min_idle``: seconds after which another consumer's entries are reclaimed. ``read_count``: entries of one read at
    most. ``read_ahead_bytes``: what is read ahead, in bytes. ``max_entry_bytes``: a larger entry ends the run.
    ``timeout``: seconds that an answer may take.

    Raises ConfigError, and UnknownOptionError for an option that neither this nor redis-py has.
    """

    @named_options("RedisStreamsConsumer")
    def __init__(
        self,
        stream: str | None = None,
        *,
        streams: Iterable[str] | None = None,
        consumer_group: str | None = None,
        consumer_name: str | None = None,
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        db: int | None = None,
        username: str | None = None,
        password: str | None = None,
        sentinels: Iterable[tuple[str, int]] | None = None,
        service_name: str | None = None,
        cluster: bool = False,
        start: str = "0",
        create_group: bool = True,
        payload_field: str | None = None,
        key_field: str | None = None,
        fields: type[msgspec.Struct] | None = None,
        min_idle: float = 60.0,
        read_count: int = 1000,
        read_ahead_bytes: int = 8 << 20,
        max_entry_bytes: int = 64 << 20,
        timeout: float = 5.0,
        **redis_options: object,
    ) -> None:
        where = "RedisStreamsConsumer"
        self.streams = _streams(where, stream, streams)
        for option, value in (
            ("consumer_group", consumer_group),
            ("consumer_name", consumer_name),
            ("payload_field", payload_field),
            ("key_field", key_field),
        ):
            if value is not None:
                options.text(where, option, value, "a name, 1 to 1,000 characters", longest=1000)
        self.consumer_group = consumer_group
        self.consumer_name = consumer_name
        self.server = RedisServer(
            where,
            url=url,
            host=host,
            port=port,
            db=db,
            username=username,
            password=password,
            sentinels=sentinels,
            service_name=service_name,
            cluster=cluster,
            timeout=timeout,
            redis_options=redis_options,
        )
        self.start = _start(where, start)
        self.create_group = options.flag(where, "create_group", create_group)
        if fields is not None and payload_field is not None:
            raise ConfigError(f"{where}: with fields= all fields are the message; leave payload_field= out")
        self.payload_field = payload_field
        self.key_field = key_field
        self.columns = None if fields is None else bare_columns(where, fields)
        self.min_idle = options.seconds(where, "min_idle", min_idle)
        if self.min_idle < 1:
            raise options.refusal(where, "min_idle", min_idle, "seconds, from 1")
        self.read_count = options.whole(where, "read_count", read_count, 1, 100_000, "entries")
        self.read_ahead_bytes = options.whole(where, "read_ahead_bytes", read_ahead_bytes, 1, 1 << 40, "bytes")
        self.max_entry_bytes = options.whole(where, "max_entry_bytes", max_entry_bytes, 1024, MAX_ENTRY_BYTES, "bytes")

    def group(self, app: str, handler: str) -> str:
        return self.consumer_group or os.environ.get("CONSUMER_GROUP") or f"{app}-{handler}"

    def share(self, app: str, handler: str) -> GroupShare:
        servers, given = frozenset([self.server.database]), self.consumer_group is not None
        return GroupShare("Redis stream", tuple(self.streams), servers, self.group(app, handler), given)

    def reads_what(self, sink: Sink) -> str | None:
        if not isinstance(sink, RedisStreamsProducer) or sink.stream not in self.streams:
            return None
        return f"Redis stream {sink.stream}" if sink.server.database == self.server.database else None

    def as_group(self, group: str) -> RedisStreamsConsumer:
        other = copy.copy(self)
        other.consumer_group = group
        return other

    def open(self, context: ReaderContext) -> Reader:
        from pythia_fast.brokers.redis_reader import RedisReader

        return RedisReader(self, context)

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.redis_checkup import check_consumer

        return check_consumer(self, context)

    def describe(self) -> str:
        kind = "stream" if len(self.streams) == 1 else "streams"
        as_group = f" as group {self.consumer_group}" if self.consumer_group else ""
        return f"redis {kind} {', '.join(self.streams)}{as_group}"


class RedisStreamsProducer(Sink):
    """Adds an entry to a stream for every record.

    The payload goes into the field ``payload_field`` (``data``), a key into ``key_field`` (``key``), headers into
    fields of their names. ``maxlen``: the stream is trimmed to about so many entries (``MAXLEN ~``); None: it grows.
    The server's options are those of RedisStreamsConsumer.

    Raises ConfigError, and UnknownOptionError for an option that neither this nor redis-py has.
    """

    @named_options("RedisStreamsProducer")
    def __init__(
        self,
        stream: str,
        *,
        maxlen: int | None = None,
        payload_field: str = "data",
        key_field: str = "key",
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        db: int | None = None,
        username: str | None = None,
        password: str | None = None,
        sentinels: Iterable[tuple[str, int]] | None = None,
        service_name: str | None = None,
        cluster: bool = False,
        timeout: float = 5.0,
        **redis_options: object,
    ) -> None:
        where = "RedisStreamsProducer"
        (self.stream,) = _streams(where, stream, None)
        self.maxlen = None if maxlen is None else options.whole(where, "maxlen", maxlen, 1, 1 << 62, "entries")
        takes = "a name, 1 to 1,000 characters"
        self.payload_field = options.text(where, "payload_field", payload_field, takes, longest=1000)
        self.key_field = options.text(where, "key_field", key_field, takes, longest=1000)
        self.server = RedisServer(
            where,
            url=url,
            host=host,
            port=port,
            db=db,
            username=username,
            password=password,
            sentinels=sentinels,
            service_name=service_name,
            cluster=cluster,
            timeout=timeout,
            redis_options=redis_options,
        )

    def open(self, context: PublisherContext) -> Publisher:
        from pythia_fast.brokers.redis_publisher import RedisPublisher

        return RedisPublisher(self, context)

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.redis_checkup import check_producer

        return check_producer(self, context)

    def describe(self) -> str:
        return f"redis stream {self.stream}"


def _streams(where: str, stream: str | None, streams: Iterable[str] | None) -> list[str]:
    if (stream is None) == (streams is None):
        raise ConfigError(f"{where}: give stream='name', or streams=['one', 'another']")
    takes = "the name of a key, 1 to 10,000 characters"
    if stream is not None:
        return [options.text(where, "stream", stream, takes, longest=10_000)]
    names = options.items(where, "streams", streams, takes)
    found = [options.text(where, "streams", name, takes, longest=10_000) for name in names]
    if not found or len(found) > MAX_PARTITIONS or len(set(found)) != len(found):
        raise options.refusal(where, "streams", streams, f"1 to {MAX_PARTITIONS:,} names, each once")
    return found


def _start(where: str, start: object) -> str:
    text = start if isinstance(start, str) else ""
    parts = text.split("-")
    is_id = len(parts) <= 2 and all(part.isascii() and part.isdigit() and int(part) < 1 << 64 for part in parts)
    if text == "$" or is_id:
        return text
    takes = "'0' (everything), '$' (what comes from now on) or an id like '1526919030474-0'"
    raise options.refusal(where, "start", start, takes)


def bare_columns(where: str, fields: Any) -> list[tuple[bytes, bool]]:
    """The fields of a Struct that are no strings, and whether they are booleans."""
    if not isinstance(fields, type) or not issubclass(fields, msgspec.Struct):
        raise options.refusal(where, "fields", fields, "a msgspec.Struct, the handler's schema")
    found = []
    for field in msgspec.structs.fields(fields):
        kinds = {type(kind) for kind in _alternatives(msgspec.inspect.type_info(field.type))}
        kinds.discard(msgspec.inspect.NoneType)
        if kinds <= {msgspec.inspect.IntType, msgspec.inspect.FloatType}:
            found.append((field.encode_name.encode(), False))
        elif kinds == {msgspec.inspect.BoolType}:
            found.append((field.encode_name.encode(), True))
        elif kinds & {msgspec.inspect.ListType, msgspec.inspect.StructType, msgspec.inspect.DictType}:
            raise SchemaError(
                f"{where}: fields={fields.__name__}: the fields of an entry are flat, and {field.name!r} is not: "
                "give the message as one field, as JSON, and leave fields= out"
            )
    return found


def _alternatives(kind: msgspec.inspect.Type) -> Iterable[msgspec.inspect.Type]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else [kind]
