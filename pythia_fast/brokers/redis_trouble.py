"""What went wrong with a Redis server, as a sentence that says what to do, and whether it can pass."""

from __future__ import annotations

import os
from typing import NamedTuple

from pythia_fast._ext import redis_reader as native


class Trouble(NamedTuple):
    """``passes``: trying again can help, without anybody doing anything here."""

    sentence: str
    passes: bool


#: First words of the server's own errors that pass by themselves, or with the next connection after a failover.
PASSING = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "MOVED", "ASK", "READONLY", "OOM", "UNBLOCKED",
           "MISCONF", "NOREPLICAS", "NOGROUP")  # fmt: skip


def of_answer(text: str, server: str, what: str) -> Trouble:
    """The server answered with an error. ``what``: stream and group, or stream."""
    word = text.split(" ", 1)[0]
    at = f"Redis at {server}"
    if word == "WRONGTYPE":
        return Trouble(f"{at}: {what}: the key holds something else than a stream (TYPE tells what): {text}", False)
    if word == "NOPERM":
        return Trouble(f"{at}: {what}: the user may not do this (ACL SETUSER allows it): {text}", False)
    if word in ("WRONGPASS", "NOAUTH") or "invalid password" in text or "invalid username" in text:
        return Trouble(f"{at} refuses the credentials (username=, password= or those in url=): {text}", False)
    if word == "LOADING":
        return Trouble(f"{at} is still loading its data: {text}", True)
    if word == "READONLY":
        return Trouble(f"{at} is a replica that takes no writes, and reading as a group is one: {text}", True)
    if word == "OOM":
        return Trouble(f"{at}: {what}: its memory is full (maxmemory); trim streams or raise it: {text}", True)
    if word in ("NOGROUP", "UNBLOCKED"):
        return Trouble(f"{at}: {what}: the group or the stream does not exist any more: {text}", True)
    return Trouble(f"{at}: {what}: {text}", word in PASSING)


def of_error(error: BaseException, server: str, what: str) -> Trouble:
    """redis-py, or the socket, raised this."""
    import redis

    text = str(error) or type(error).__name__
    if isinstance(error, redis.AuthenticationError):
        return Trouble(
            f"Redis at {server} refuses the credentials (username=, password= or those in url=): {text}", False
        )
    if isinstance(error, redis.exceptions.InvalidResponse) or "Protocol Error" in text:
        return Trouble(f"{server} does not answer as a Redis server does: {text}; is this its port?", False)
    if isinstance(error, redis.BusyLoadingError):
        return Trouble(f"Redis at {server} is still loading its data", True)
    if isinstance(error, redis.ReadOnlyError):
        return of_answer(f"READONLY {text}", server, what)
    if isinstance(error, redis.exceptions.NoPermissionError):
        return of_answer(f"NOPERM {text}", server, what)
    if isinstance(error, EOFError):
        return Trouble(f"Redis at {server} closed the connection", True)
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
        return Trouble(f"no Redis answers at {server} ({text})", True)
    return of_answer(text, server, what)


def of_broken(broken: tuple[int, int, int, str], server: str, what: str, max_entry_bytes: int) -> Trouble:
    """The reader gave its connection up (``RedisReaderNative.take_broken``)."""
    kind, number, size, text = broken
    if kind == native.REFUSED:
        return of_answer(text, server, what)
    if kind == native.CLOSED:
        return Trouble(f"Redis at {server} closed the connection", True)
    if kind == native.ERRNO:
        return Trouble(f"the connection to Redis at {server} broke: {os.strerror(number)}", True)
    if kind == native.SILENT:
        return Trouble(f"Redis at {server} does not answer", True)
    if kind == native.MEMORY:
        return Trouble(f"no memory for what Redis at {server} sends: {what}; give the process more", False)
    if number in (native.BULK_TOO_LARGE, native.ENTRY_TOO_LARGE):
        return Trouble(
            f"Redis at {server}: {what}: an entry has {size:,} bytes or more, max_entry_bytes is {max_entry_bytes:,}; "
            "it was not taken in and is pending: raise max_entry_bytes, or acknowledge and delete it (XPENDING, XACK, "
            "XDEL)",
            False,
        )
    if number == native.TOO_MANY:
        return Trouble(f"Redis at {server}: {what}: an array of {size:,} elements, more than can be", False)
    return Trouble(f"{server} does not answer as a Redis server does: {what}: {text} was expected", True)
