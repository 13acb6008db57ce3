"""A Redis before a run: login, role, memory, persistence, streams, groups, permissions; nothing is written.

What the user may do is learned by commands whose arguments are wrong: the server checks permissions first, then answers
with a syntax error, and does nothing. See processCommand() of Redis, and https://redis.io/docs/latest/commands/.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pythia_fast.brokers.checkup import CheckupContext, Findings, note, ok, problem, warning
from pythia_fast.brokers.redis_client import Client, RedisServer
from pythia_fast.brokers.redis_group import RedisGroup
from pythia_fast.brokers.redis_trouble import of_error

if TYPE_CHECKING:
    from pythia_fast.brokers.redis import RedisStreamsConsumer, RedisStreamsProducer

OLDEST = (6, 2)  #: XPENDING with IDLE, by which entries that were left are found
COUNTS_TRIMMED = (7, 0)  #: entries-read and entries-added
NEARLY_FULL = 0.9
MOST_TOLD = 20  #: streams, each on a line of its own
BAD_ID = "asked"  #: where an id or a number belongs
TRIMMED_MOST = 1.01  #: MAXLEN ~ leaves some more entries than it was told


def check_consumer(consumer: RedisStreamsConsumer, context: CheckupContext) -> Findings:
    """The streams and the group."""
    group = RedisGroup(consumer, context.app, context.handler)

    def questions(client: Client, version: tuple[int, ...]) -> Findings:
        yield from _read_permissions(client, consumer.streams, group.name, group.consumer)
        for stream in consumer.streams[:MOST_TOLD]:
            yield from _stream_to_read(client, stream, group)
        if consumer.consumer_name is not None and group.is_alive_elsewhere(client):
            yield warning(
                f"a consumer named {consumer.consumer_name!r} is connected now: after a restart each gets "
                "what the other "
                "has in hand",
                "give each process a consumer_name of its own, or none",
            )
        if version < COUNTS_TRIMMED:
            yield note("Redis before 7 does not count what is trimmed before it was read, so that cannot be told")

    yield from _at(consumer.server, consumer.streams, context, questions)


def check_producer(producer: RedisStreamsProducer, context: CheckupContext) -> Findings:
    """The stream that is written to."""

    def questions(client: Client, version: tuple[int, ...]) -> Findings:
        yield from _permission(client, "write to", producer.stream, "XADD", producer.stream, BAD_ID, "f", "v")
        facts = yield from _stream_facts(client, producer.stream)
        if not facts:
            return
        length = int(facts.get("length", 0))
        if producer.maxlen is None:
            yield note(
                f"stream {producer.stream} has {length:,} entries and maxlen= is not given: it grows for "
                "ever, in memory",
                "give maxlen=, or trim it elsewhere (XTRIM)",
            )
            return
        yield ok(f"stream {producer.stream} has {length:,} entries, and is trimmed to about {producer.maxlen:,}")
        for group in _groups(client, producer.stream):
            behind = int(group.get("lag") or 0) + int(group["pending"])
            if behind > producer.maxlen / TRIMMED_MOST / 2:
                yield warning(
                    f"group {_text(group['name'])} is {behind:,} entries of {producer.stream} behind, and maxlen="
                    f"{producer.maxlen:,} trims what is older: it loses entries when it falls further behind",
                    "raise maxlen, or read faster",
                )

    yield from _at(producer.server, [producer.stream], context, questions)


# -- the server ----------------------------------------------------------------------------------


def _at(
    server: RedisServer,
    keys: Sequence[str],
    context: CheckupContext,
    questions: Callable[[Client, tuple[int, ...]], Findings],
) -> Findings:
    """Connect, look at the server, then ask; what goes wrong on the way is a finding."""
    import redis

    what = f"stream {', '.join(keys)}"
    begun = time.monotonic()
    try:
        client = server.client(keys, timeout=min(server.timeout, context.left_s()))
        try:
            client.ping()
            took_ms = (time.monotonic() - begun) * 1000
            facts = yield from _server_facts(client, server.name, took_ms)
            yield from questions(client, _version(facts))
        finally:
            client.close()
    except (redis.RedisError, OSError, EOFError) as error:
        trouble = of_error(error, server.name, what)
        yield problem(
            trouble.sentence, "see that the server is up and the address and login are right (url= or REDIS_URL)"
        )


def _version(facts: Mapping[str, Any]) -> tuple[int, ...]:
    """(7, 0); the newest where the user may not ask, so that nothing is said about it."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", str(facts.get("redis_version", "")))[:2])
    return numbers or (999, 0)


def _server_facts(client: Client, name: str, took_ms: float) -> Any:
    """Yields findings; returns what INFO tells, nothing where the user may not ask."""
    import redis

    try:
        facts: dict[str, Any] = client.info()
    except redis.exceptions.NoPermissionError:
        yield ok(f"Redis at {name} let us in after {took_ms:.0f} ms")
        yield note(
            "the user may not ask INFO: version, memory and persistence are not checked", "ACL SETUSER ... +info"
        )
        return {}
    version = facts.get("redis_version", "of a version that it does not tell")
    yield ok(f"Redis {version} at {name} let us in after {took_ms:.0f} ms")
    if _version(facts) < OLDEST:
        yield problem(f"Redis {version} is older than 6.2, whose XPENDING tells which entries were left", "update it")
    if facts.get("role") == "slave":
        yield problem(
            f"Redis at {name} is a replica, which takes no writes, and reading as a group is one",
            "give the master's address, or sentinels= and service_name=",
        )
    yield from _memory(facts)
    yield from _persistence(client, facts)
    return facts


def _memory(facts: Mapping[str, Any]) -> Findings:
    limit, used = int(facts.get("maxmemory", 0)), int(facts.get("used_memory", 0))
    policy = facts.get("maxmemory_policy", "noeviction")
    if limit and str(policy).startswith("allkeys"):
        yield warning(
            f"maxmemory-policy {policy}: when its {limit:,} bytes are full, Redis removes keys, whole streams "
            "among them",
            "CONFIG SET maxmemory-policy noeviction (or volatile-..., where streams have no TTL)",
        )
    if limit and used > NEARLY_FULL * limit:
        yield warning(
            f"{used:,} of maxmemory's {limit:,} bytes are used: when it is full, writes wait",
            "trim streams, or raise it",
        )
    elif not limit:
        yield note("maxmemory is not set: a stream that is not trimmed takes memory until the system has none")


def _persistence(client: Client, facts: Mapping[str, Any]) -> Findings:
    import redis

    aof = int(facts.get("aof_enabled", 0)) == 1
    if facts.get("rdb_last_bgsave_status", "ok") != "ok" or (aof and facts.get("aof_last_write_status", "ok") != "ok"):
        yield problem(
            "the last save to disk failed, and Redis takes no writes then (stop-writes-on-bgsave-error)",
            "see its log, and the room on its disk",
        )
    if aof:
        yield ok("what is acknowledged is in the append-only file (appendonly yes)")
        return
    try:
        saves = client.config_get("save").get("save")
    except redis.ResponseError:  # not allowed, or a service that has no CONFIG
        saves = None
    if saves == "":
        yield warning(
            "nothing is kept on disk (appendonly no, save ''): a restart forgets streams, groups and what is pending",
            "CONFIG SET appendonly yes",
        )
    else:
        yield warning(
            "appendonly is no: a crash forgets what was written and acknowledged since the last snapshot",
            "CONFIG SET appendonly yes",
        )


# -- streams and groups --------------------------------------------------------------------------


def _stream_facts(client: Client, stream: str) -> Any:
    """Yields findings; returns what XINFO STREAM tells: nothing of one that does not exist, None of what is none."""
    import redis

    try:
        return client.xinfo_stream(stream)
    except redis.exceptions.NoPermissionError:
        yield note(f"the user may not ask about stream {stream}", "ACL SETUSER ... +xinfo")
    except redis.ResponseError as error:
        if "no such key" in str(error):
            yield note(f"stream {stream} does not exist yet; it is made with its first entry or group")
            return {}
        elif str(error).startswith("WRONGTYPE"):
            yield problem(f"key {stream} holds something else than a stream", "name another key, or remove that one")
        else:
            raise
    return None


def _groups(client: Client, stream: str) -> Sequence[Mapping[str, Any]]:
    import redis

    try:
        found: Sequence[Mapping[str, Any]] = client.xinfo_groups(stream)
    except redis.exceptions.NoPermissionError:
        return []
    return found


def _stream_to_read(client: Client, stream: str, group: RedisGroup) -> Findings:
    facts = yield from _stream_facts(client, stream)
    if facts is None:
        return
    found = group.facts(client, stream)
    if found is None:
        if not group.may_create:
            yield problem(
                f"stream {stream} has no group {group.name}, and create_group=False",
                f"XGROUP CREATE {stream} {group.name} 0 MKSTREAM",
            )
        else:
            yield note(f"stream {stream} has no group {group.name} yet; a run makes it, at {group.start}")
            yield from _permission(
                client, "make a group of", stream, "XGROUP", "CREATE", stream, group.name, BAD_ID, "MKSTREAM"
            )
        return
    lag = found.get("lag")
    behind = f"{int(lag):,} entries" if lag is not None else "an unknown number of entries"
    yield ok(
        f"stream {stream} has {int(facts.get('length', 0)):,} entries, group {group.name} has {behind} to read and "
        f"{int(found['pending']):,} pending"
    )
    if (lost := group.overtaken_by(client, stream, found)) > 0:
        yield warning(
            f"{lost:,} entries of {stream} were trimmed before group {group.name} read them",
            "trim later (MAXLEN, MINID), or read faster",
        )
    yield from _other_consumers(client, stream, group)


def _other_consumers(client: Client, stream: str, group: RedisGroup) -> Findings:
    others = [each for each in client.xinfo_consumers(stream, group.name) if _text(each["name"]) != group.consumer]
    left = [each for each in others if int(each["pending"]) and int(each["idle"]) > group.min_idle * 1000]
    if left:
        entries = sum(int(each["pending"]) for each in left)
        names = ", ".join(_text(each["name"]) for each in left[:3])
        yield note(
            f"{entries:,} entries of {stream} are pending for consumers idle for more than "
            f"min_idle={group.min_idle:g} s "
            f"({names}): a run reclaims them"
        )
    if len(others) > len(left):
        yield note(
            f"group {group.name} of {stream} has {len(others) - len(left)} other consumers, which share its entries"
        )


def _read_permissions(client: Client, streams: Sequence[str], group: str, consumer: str) -> Findings:
    for stream in streams[:MOST_TOLD]:
        for doing, *command in (
            ("read", "XREADGROUP", "GROUP", group, consumer, "COUNT", BAD_ID, "STREAMS", stream, ">"),
            ("acknowledge entries of", "XACK", stream, group, BAD_ID),
            ("see what is pending of", "XPENDING", stream, group, "IDLE", BAD_ID, "-", "+", "1"),
            ("reclaim entries of", "XCLAIM", stream, group, consumer, BAD_ID, "0-1"),
        ):
            yield from _permission(client, doing, stream, *command)


def _permission(client: Client, doing: str, stream: str, *command: str) -> Findings:
    """A finding where the user lacks a permission; ``command`` has an argument that is wrong, so it is never done."""
    import redis

    try:
        client.execute_command(*command)
    except redis.exceptions.NoPermissionError as error:
        yield problem(
            f"the user may not {doing} stream {stream}: {error}",
            f"ACL SETUSER ... +{command[0].lower()} ~{stream}",
        )
    except redis.ResponseError:
        return


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
