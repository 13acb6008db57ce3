"""Connections to Redis, made by redis-py: TLS, AUTH, SELECT, Sentinel and Cluster discovery are its business.

``RedisServer`` is what a source and a sink have in common of their options; ``connection`` gives a connection of one's
own, past the handshake, and ``client`` redis-py's client for the commands that are not on the data path.
"""

from __future__ import annotations

import inspect
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pythia_fast import options
from pythia_fast.errors import ConfigError, UnknownOptionError

#: redis-py's client and connection. Its annotations speak for its asynchronous twin as well, so they help nobody.
Client = Any
Connection = Any

DEFAULT_URL = "redis://localhost:6379/0"
#: Options of redis-py that are answered for here, and why.
RESERVED: Mapping[str, str] = {
    "decode_responses": "payloads are bytes",
    "connection_pool": "every connection here has one user",
    "single_connection_client": "every connection here has one user",
    "max_connections": "every connection here has one user",
    "socket_timeout": "timeout= is how long an answer may take",
    "socket_connect_timeout": "timeout= is how long an answer may take",
    "retry": "it is tried again for as long as the run lasts",
    "retry_on_error": "it is tried again for as long as the run lasts",
    "retry_on_timeout": "it is tried again for as long as the run lasts",
    "client_name": "it tells two consumers of one name apart",
}


class RedisServer:
    """Where Redis is and how one gets in. Raises ConfigError for what cannot be."""

    def __init__(
        self,
        where: str,
        *,
        url: str | None,
        host: str | None,
        port: int | None,
        db: int | None,
        username: str | None,
        password: str | None,
        sentinels: Iterable[tuple[str, int]] | None,
        service_name: str | None,
        cluster: bool,
        timeout: float,
        redis_options: Mapping[str, object],
    ) -> None:
        self.timeout = options.seconds(where, "timeout", timeout)
        if self.timeout < 0.01:
            raise options.refusal(where, "timeout", timeout, "seconds, from 0.01")
        parts = {"host": host, "port": port, "db": db, "username": username, "password": password}
        given = [name for name, value in parts.items() if value is not None]
        if url is not None and (sentinels is not None or {"host", "port"} & set(given)):
            raise ConfigError(f"{where}: url= names the server already; leave out host=, port= and sentinels=")
        for name in ("host", "username", "password"):
            if parts[name] is not None:
                options.text(where, name, parts[name], "a text that is not empty")
        if port is not None:
            options.whole(where, "port", port, 1, 65_535, "")
        if db is not None:
            options.whole(where, "db", db, 0, 1 << 20, "")
        self.url: str | None = None
        if sentinels is None and host is None and port is None:
            default = "redis://localhost:6379" if db is not None else DEFAULT_URL
            self.url = url if url is not None else os.environ.get("REDIS_URL") or default
            _check_url(where, self.url)
        self.cluster = options.flag(where, "cluster", cluster)
        self.sentinels = _sentinels(where, sentinels, service_name)
        self.service_name = service_name
        if self.sentinels and self.cluster:
            raise ConfigError(f"{where}: sentinels= and cluster=True exclude each other")
        self._parts = {name: value for name, value in parts.items() if value is not None}
        self._options = _redis_options(where, redis_options)

    @property
    def name(self) -> str:
        """The server as a person finds it; no password."""
        if self.sentinels:
            return f"{self.service_name} (by Sentinel {self.sentinels[0][0]}:{self.sentinels[0][1]})"
        if self.url is None:
            return f"{self._parts.get('host', 'localhost')}:{self._parts.get('port', 6379)}"
        found = urlsplit(self.url)
        if found.scheme == "unix":
            return found.path
        return f"{found.hostname or 'localhost'}:{found.port or 6379}"

    @property
    def database(self) -> str:
        """The server, and which of its databases: ``localhost:6379/0``."""
        found = urlsplit(self.url or "")
        in_url = parse_qs(found.query).get("db", [""])[0] or ("" if found.scheme == "unix" else found.path.strip("/"))
        return f"{self.name}/{in_url or self._parts.get('db', 0)}"

    def client(self, keys: Sequence[str], timeout: float | None = None) -> Client:
        """redis-py's client of the node that has these keys. May ask Sentinel or the cluster where that is.

        ``timeout``: seconds that an answer may take, where it is not what the options say.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        answer_s = self.timeout if timeout is None else timeout
        settings: dict[str, Any] = {
            "socket_timeout": answer_s,
            "socket_connect_timeout": answer_s,
            "retry": Retry(NoBackoff(), 0),
            "socket_keepalive": True,
            "protocol": 2,
            **self._options,
            **self._parts,
        }
        if self.sentinels:
            from redis.sentinel import Sentinel

            limits = {"socket_timeout": answer_s, "socket_connect_timeout": answer_s}
            found = Sentinel(self.sentinels, sentinel_kwargs=limits).discover_master(self.service_name)
            return redis.Redis(**(settings | {"host": found[0], "port": int(found[1])}))
        if self.cluster:
            return self._node(settings, keys)
        if self.url is not None:
            return redis.Redis.from_url(self.url, **settings)
        return redis.Redis(**settings)

    def _node(self, settings: dict[str, Any], keys: Sequence[str]) -> Client:
        import redis

        limits = {name: settings[name] for name in ("socket_timeout", "socket_connect_timeout")}
        parts: dict[str, Any] = {name: value for name, value in self._parts.items() if name != "db"}
        if self.url is not None:
            parts["url"] = self.url
        settings_of_cluster: dict[str, Any] = self._options | limits | parts
        cluster: Any = redis.RedisCluster(**settings_of_cluster)
        try:
            slots = {cluster.keyslot(key) for key in keys}
            if len(slots) > 1:
                raise ConfigError(
                    f"the streams {', '.join(keys)} are in {len(slots)} slots of the Redis cluster, and one read has "
                    "the streams of one slot: give each its own handler, or names with one {hash tag}"
                )
            node = cluster.get_node_from_key(keys[0])
            assert node is not None
        finally:
            cluster.close()
        settings.pop("db", None)
        return redis.Redis(**(settings | {"host": node.host, "port": node.port}))

    def connection(self, client: Client, client_name: str) -> Connection:
        """A connection of one's own, past the handshake."""
        connection: Connection = client.connection_pool.make_connection()
        connection.client_name = client_name
        connection.connect()
        return connection


def socket_of(connection: Connection) -> socket.socket:
    """The socket that a connection has opened. redis-py keeps it under a private name, in all versions since 2."""
    found: socket.socket | None = connection._sock
    if found is None:
        raise ConnectionError("the connection is closed")
    return found


def encode_command(*parts: str | bytes | int) -> bytes:
    """A command as the server reads it: an array of strings."""
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(encoded) + b"".join(map(encode_string, encoded))


def encode_string(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _check_url(where: str, url: object) -> None:
    takes = (
        "redis://, rediss:// (TLS) or unix:// and the server's address, with the number of a database: redis://h:6379/0"
    )
    text = options.text(where, "url", url, takes)
    try:
        found = urlsplit(text)
        fits = found.scheme in ("redis", "rediss", "unix") and (found.port is None or found.port > 0)
        fits = fits and text.lower().startswith(f"{found.scheme}://")  # redis-py takes nothing else, once it connects
        if found.scheme != "unix":  # and leaves out a database that is no number
            fits = fits and re.fullmatch(r"(/[0-9]*)?", found.path) is not None
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"{where}: url= takes {takes}")  # not repeated: there may be a password in it


def _sentinels(where: str, sentinels: object, service_name: object) -> list[tuple[str, int]]:
    if (sentinels is None) != (service_name is None):
        raise ConfigError(f"{where}: sentinels=[(host, port), ...] and service_name= go together")
    if sentinels is None:
        return []
    takes = "addresses of Sentinel: [(host, port), ...]"
    found = []
    for address in options.items(where, "sentinels", sentinels, takes):
        if not isinstance(address, tuple | list) or len(address) != 2:
            raise options.refusal(where, "sentinels", sentinels, takes)
        host = options.text(where, "sentinels", address[0], takes)
        found.append((host, options.whole(where, "sentinels", address[1], 1, 65_535, "ports")))
    if not found:
        raise options.refusal(where, "sentinels", sentinels, takes)
    options.text(where, "service_name", service_name, "the name under which Sentinel watches the server")
    return found


def _redis_options(where: str, given: Mapping[str, object]) -> dict[str, object]:
    """Options that go to redis-py as they are."""
    if not given:
        return {}
    import redis

    known = [name for name in inspect.signature(redis.Redis.__init__).parameters if name != "self"]
    for name in given:
        if name in RESERVED:
            raise ConfigError(f"{where}: {name}= is not for you to set: {RESERVED[name]}")
        if name not in known:
            raise UnknownOptionError(where, name, [*known, *OWN_OPTIONS])
    return dict(given)


#: For the nearest name of an option that does not exist.
OWN_OPTIONS = (
    "stream", "streams", "consumer_group", "consumer_name", "url", "host", "port", "db", "username", "password",
    "sentinels", "service_name", "cluster", "timeout", "start", "create_group", "payload_field", "key_field", "fields",
    "min_idle", "read_count", "read_ahead_bytes", "max_entry_bytes", "maxlen",
)  # fmt: skip
