"""Questions to a Redis about a stream, with its answers as they came: fields may repeat, and redis-py makes dicts."""

from __future__ import annotations

import contextlib
from typing import Any

from pythia_fast.brokers.redis_client import Connection, RedisServer
from pythia_fast.brokers.redis_trouble import of_error
from pythia_fast.errors import SinkError, SourceError


class RedisAsking:
    """One connection, made when it is needed. ``kind``: of the errors that it raises."""

    def __init__(self, server: RedisServer, stream: str, kind: type[SourceError | SinkError]) -> None:
        self._server = server
        self._stream = stream
        self._kind = kind
        self._client: Any = None
        self._connection: Connection | None = None

    def ask(self, *command: str | int, kind: type[SourceError | SinkError] | None = None) -> Any:
        """The answer to a command. Raises ``kind``."""
        import redis

        try:
            return self._answer(command)
        except (redis.RedisError, OSError, EOFError) as error:
            self.close()
            trouble = of_error(error, self._server.name, f"stream {self._stream}").sentence
            hint = "" if "answers at" not in trouble else ": is it running, and is the address right (--redis-url)?"
            raise (kind or self._kind)(trouble + hint) from None

    def _answer(self, command: tuple[str | int, ...]) -> Any:
        import redis

        had = self._connection is not None
        try:
            return self._told(command)
        except (redis.ConnectionError, redis.TimeoutError, OSError, EOFError):
            # The server may end a connection that is idle for long. None of these commands harms when it comes twice.
            if not had:
                raise
            self.close()
            return self._told(command)

    def _told(self, command: tuple[str | int, ...]) -> Any:
        if self._connection is None:
            self._client = self._server.client([self._stream])
            self._connection = self._server.connection(self._client, "pythia_fast:dlq")
        self._connection.send_command(*command)
        return self._connection.read_response()

    def is_there(self, stream: str) -> bool:
        """Whether there is such a stream. Raises the error where the key holds something else."""
        held = self.ask("TYPE", stream)
        found = held.decode() if isinstance(held, bytes) else str(held)
        if found not in ("none", "stream"):
            raise self._kind(f"Redis at {self._server.name}: the key {stream} holds a {found}, not a stream")
        return found == "stream"

    def missing(self, stream: str) -> str:
        """That there is no such stream."""
        return (
            f"there is no redis stream {stream} at {self._server.name}: see whether its name and the server "
            "(--redis-url) are right"
        )

    def close(self) -> None:
        connection, client = self._connection, self._client
        self._connection = self._client = None
        with contextlib.suppress(Exception):
            if connection is not None:
                connection.disconnect()
        with contextlib.suppress(Exception):
            if client is not None:
                client.close()
