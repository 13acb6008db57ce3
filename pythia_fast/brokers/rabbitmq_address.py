"""Where a RabbitMQ is and how it is entered: what consumer and producer have in common.

Given as ``url=`` or in parts; without either, by ``RABBITMQ_URL``, else ``amqp://guest:guest@localhost:5672/%2F``.
For streams, which have a protocol and ports of their own, by ``RABBITMQ_STREAM_URL``, else
``rabbitmq-stream://guest:guest@localhost:5552/%2F``.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pythia_fast import options
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pika.connection import Parameters

#: Seconds without a sign of life before a connection counts as dead. The server's own wish, 60, is long for a reader
#: whose messages wait meanwhile.
HEARTBEAT_S = 20
MAX_HEARTBEAT_S = 65_535
CONNECT_S = 5.0  #: for each address that a name stands for, and for the handshake of TLS


@dataclass(frozen=True)
class Way:
    """One of the protocols that a server speaks: how its URLs begin, where they go, what the environment calls them."""

    scheme: str
    tls_scheme: str
    port: int
    tls_port: int
    variable: str


AMQP = Way("amqp", "amqps", 5672, 5671, "RABBITMQ_URL")
STREAM = Way("rabbitmq-stream", "rabbitmq-stream+tls", 5552, 5551, "RABBITMQ_STREAM_URL")


@dataclass(frozen=True)
class Address:
    """One server, one virtual host, one user."""

    host: str
    port: int
    username: str
    password: str
    virtual_host: str
    tls: ssl.SSLContext | None
    heartbeat_s: int

    def __str__(self) -> str:
        """As a person is told: no password."""
        return f"{self.host}:{self.port}"

    @property
    def place(self) -> str:
        """``127.0.0.1:5672, virtual host /``."""
        return f"{self}, virtual host {self.virtual_host}"

    def is_surely(self, other: Address) -> bool:
        """Whether both lead to the same virtual host of one server, as far as can be told without asking it.

        The ports of one protocol tell that; those of AMQP and of streams only where all of them are the usual ones.
        """
        if (self.host.lower(), self.virtual_host) != (other.host.lower(), other.virtual_host):
            return False
        usual = {AMQP.port, AMQP.tls_port, STREAM.port, STREAM.tls_port}
        return self.port == other.port or {self.port, other.port} <= usual

    def parameters(self, name: str) -> Parameters:
        """What pika wants to know; the server shows ``name`` among its connections."""
        import pika

        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.virtual_host,
            credentials=pika.PlainCredentials(self.username, self.password),
            heartbeat=self.heartbeat_s,
            client_properties={"connection_name": name},
        )


class Login:
    """The options by which a consumer or producer was told where to connect, checked; ``address`` reads what the
    environment adds only when it is asked for."""

    def __init__(
        self,
        where: str,
        *,
        url: str | None,
        host: str | None,
        port: int | None,
        username: str | None,
        password: str | None,
        virtual_host: str | None,
        tls: bool | ssl.SSLContext | None,
        heartbeat: int | None,
        way: Way = AMQP,
    ) -> None:
        self._where = where
        self._way = way
        self._url = url
        if tls is not None and not isinstance(tls, bool | ssl.SSLContext):
            raise options.refusal(where, "tls", tls, "True, False or an ssl.SSLContext")
        self._tls = tls
        if url is not None:
            in_parts = {
                "host": host,
                "port": port,
                "username": username,
                "password": password,
                "virtual_host": virtual_host,
            }
            also = next((name for name, value in in_parts.items() if value is not None), None)
            if also is not None:
                raise ConfigError(f"{where}: url= says all of it already; give url= or {also}=, not both")
            _read_url(where, "url", url, tls, way)
        self._host = options.text(where, "host", host, "the name or address of a server") if host is not None else None
        self._port = options.whole(where, "port", port, 1, 65_535, "") if port is not None else None
        self._username = None if username is None else options.text(where, "username", username, "the name of a user")
        if password is not None and not isinstance(password, str):
            raise ConfigError(f"{where}: password= must be a string")  # which is not repeated here
        self._password = password
        vhost_takes = "the name of a virtual host, such as '/'"
        self._vhost = None if virtual_host is None else options.text(where, "virtual_host", virtual_host, vhost_takes)
        self._heartbeat = HEARTBEAT_S
        if heartbeat is not None:
            self._heartbeat = options.whole(where, "heartbeat", heartbeat, 0, MAX_HEARTBEAT_S, "seconds (0: none)")

    @property
    def address(self) -> Address:
        """Raises ConfigError for an address in the environment that is none."""
        in_parts = (self._host, self._port, self._username, self._password, self._vhost)
        url, way = self._url, self._way
        if url is None and all(part is None for part in in_parts) and (url := os.environ.get(way.variable)):
            found = _read_url(self._where, way.variable, url, self._tls, way)
        elif url is not None:
            found = _read_url(self._where, "url", url, self._tls, way)
        else:
            found = Address("localhost", 0, "guest", "guest", "/", _tls_context(self._tls), HEARTBEAT_S)
        return Address(
            host=self._host or found.host,
            port=self._port or found.port or (way.tls_port if found.tls is not None else way.port),
            username=self._username if self._username is not None else found.username,
            password=self._password if self._password is not None else found.password,
            virtual_host=self._vhost or found.virtual_host,
            tls=found.tls,
            heartbeat_s=self._heartbeat,
        )


def _tls_context(tls: bool | ssl.SSLContext | None) -> ssl.SSLContext | None:
    if isinstance(tls, ssl.SSLContext):
        return tls
    return ssl.create_default_context() if tls else None


def _read_url(where: str, option: str, url: object, tls: bool | ssl.SSLContext | None, way: Way) -> Address:
    takes = f"{way.scheme}://user:password@host:port/virtual%20host, or {way.tls_scheme}:// for TLS"
    if not isinstance(url, str) or "\0" in url:
        raise ConfigError(f"{where}: {option}: {takes}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Not what urllib says: of a password with a '/' in it, that is the first half.
        raise ConfigError(
            f"{where}: {option}: it cannot be read as one: is the port a number? In a name or password, '/' is written "
            f"%2F, '?' %3F, '#' %23, '@' %40, ':' %3A. It takes {takes}"
        ) from None
    if parts.scheme not in (way.scheme, way.tls_scheme) or parts.fragment:
        named = parts.scheme and url.lower().startswith(f"{parts.scheme}://")  # else it may be anything
        told = f"{option} begins with '{parts.scheme}://'" if named else f"{option} is no such URL"
        raise ConfigError(f"{where}: {told}: {takes}")
    if parts.query:  # not repeated: it may be the second half of a password
        raise ConfigError(
            f"{where}: {option} goes on after a '?'; what stands there are options of their own: heartbeat=, tls=. In "
            "a name or password, '?' is written %3F"
        )
    if tls is False and parts.scheme == way.tls_scheme:
        raise ConfigError(f"{where}: {option} begins with {way.tls_scheme}://, and tls=False says the opposite")
    path = parts.path[1:]
    if "/" in path:
        raise ConfigError(f"{where}: {option}: a '/' in the name of a virtual host is written %2F: {takes}")
    return Address(
        host=parts.hostname or "localhost",
        port=port or 0,
        username=unquote(parts.username) if parts.username is not None else "guest",
        password=unquote(parts.password) if parts.password is not None else "guest",
        virtual_host=unquote(path) or "/",
        tls=_tls_context(tls if tls else parts.scheme == way.tls_scheme),
        heartbeat_s=HEARTBEAT_S,
    )
