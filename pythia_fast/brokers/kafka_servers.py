"""The addresses of Kafka's brokers, as ``bootstrap.servers`` has them: checked, since librdkafka looks at nothing.

It tries port 57599 for ``localhost:99999999``, port 0 for ``localhost:notaport``, and waits for ever where there is no
address at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from pythia_fast import options as options_
from pythia_fast.errors import ConfigError

DEFAULT_BOOTSTRAP_SERVERS = "localhost:9092"
VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
TAKES = "host:port, several separated by commas or in a list"

_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_NAMES = ("bootstrap.servers", "metadata.broker.list")  #: librdkafka has two for them


def given_servers(where: str, servers: str | Iterable[str] | None, options: dict[str, str]) -> str | None:
    """The servers that were declared, taken out of librdkafka's ``options`` where they are there; None: nowhere."""
    named = [value for name in _NAMES if (value := options.pop(name, None)) is not None]
    if servers is None:
        return _joined(where, "bootstrap_servers", named[0], options) if named else None
    if named:
        raise ConfigError(f"{where}: bootstrap_servers= is given, and in librdkafka's options as well: give one")
    return _joined(where, "bootstrap_servers", servers, options)


def servers_in_use(given: str | None, options: Mapping[str, str]) -> str:
    """Those that were declared, else the environment's, else the default one. Raises ConfigError."""
    if given is not None:
        return given
    named = os.environ.get(VARIABLE)
    return _joined("environment", VARIABLE, named, options) if named else DEFAULT_BOOTSTRAP_SERVERS


def server_names(servers: str) -> frozenset[str]:
    """``bootstrap.servers``, each as ``host:port``: two lists that have one in common lead to the same brokers."""
    hosts = [server.strip().lower().rpartition("//")[2] for server in servers.split(",")]
    return frozenset(host if re.search(r":\d+$", host) else f"{host}:9092" for host in hosts if host)


def _joined(where: str, option: str, servers: str | Iterable[str], options: Mapping[str, str]) -> str:
    names = [servers] if isinstance(servers, str) else list(options_.items(where, option, servers, TAKES))
    if not names or not all(isinstance(name, str) and name.strip() and "\0" not in name for name in names):
        raise options_.refusal(where, option, servers, TAKES)
    if any("@" in name for name in names):  # not repeated
        raise ConfigError(
            f"{where}: {option}= takes {TAKES}; a user's name and password are options of their own: sasl_username=, "
            "sasl_password="
        )
    each = [server.strip() for server in ",".join(names).split(",") if server.strip()]
    if not each:
        raise options_.refusal(where, option, servers, TAKES)
    protocol = options.get("security.protocol", "plaintext").lower()
    for server in each:
        trouble = _trouble(server, protocol)
        if trouble:
            raise ConfigError(f"{where}: {option}={options_.spell(servers)}: {trouble}")
    return ",".join(each)


def _trouble(server: str, protocol: str) -> str:
    """Why librdkafka would not go where one server's text says; empty where it does."""
    named, separator, rest = server.rpartition("://")
    if separator:
        if named.lower() not in _PROTOCOLS:
            return f"{server!r} names no protocol; there are: {', '.join(name.upper() for name in _PROTOCOLS)}"
        if named.lower() != protocol:
            return f"{server!r} is of another protocol than security_protocol={protocol!r}"
        rest = rest.partition("/")[0]
    host, colon, port = rest.rpartition(":")
    # More colons than one, and no bracket before the last: an IPv6 address without a port.
    if not colon or (":" in host and not host.endswith("]")):
        host, port = rest, "9092"
    if re.search(r"\s", host) or not host:
        return f"{server!r} names no host; it takes {TAKES}"
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        return f"the port of {server!r} is not a number from 1 to 65,535"
    return ""
