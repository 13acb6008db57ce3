"""RedisStreamsConsumer before servers that answer with garbage, end in the middle, are loading, or speak TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from pythia_fast._ext.collecting_sink import FAILED
from pythia_fast.brokers.redis import RedisStreamsConsumer
from pythia_fast.brokers.redis_client import encode_string as bulk
from tests.support.kafka_broker import free_ports
from tests.support.redis_reading import Reading
from tests.support.redis_server import RedisServerProcess
from tests.support.scripted_server import ScriptedServer

Open = Callable[..., Reading]

GROUP_FACTS = [b"name", b"app-handler", b"consumers", b"0", b"pending", b"0", b"last-delivered-id", b"0-0"]
ENTRY = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$4\r\ndata\r\n$1\r\nx\r\n"


@pytest.fixture
def open_reading(tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_one(port: int, **options: Any) -> Reading:
            made = Reading(RedisStreamsConsumer("s", host="127.0.0.1", port=port, **options), tmp_path)
            stack.callback(made.reader.close)
            return made

        yield open_one


def answers(read: Callable[[], bytes | None]) -> Callable[[list[bytes]], bytes | None]:
    """A server with one group and nothing pending; ``read`` gives the answer to an XREADGROUP."""

    def script(command: list[bytes]) -> bytes | None:
        name = command[0].upper()
        if name == b"XREADGROUP":
            return read()
        if name == b"XINFO":
            return b"*1\r\n*%d\r\n" % len(GROUP_FACTS) + b"".join(map(bulk, GROUP_FACTS))
        if name == b"XPENDING":
            return b"*0\r\n"
        if command[:2] == [b"CLIENT", b"LIST"]:
            return b"$0\r\n\r\n"
        return b":1\r\n" if name in (b"CLIENT", b"XACK") and command[-1] == b"ID" else b"+OK\r\n"

    return script


def test_a_server_that_is_no_redis(open_reading: Open) -> None:
    with ScriptedServer(lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        reading = open_reading(server.port)
        reading.poll_to(FAILED)
        assert f"127.0.0.1:{server.port} does not answer as a Redis server does" in reading.reader.failure()


def test_garbage_in_place_of_entries(open_reading: Open) -> None:
    with ScriptedServer(answers(lambda: b"*1\r\n*2\r\n:5\r\n")) as server:
        reading = open_reading(server.port)
        reading.poll_to(FAILED)
        told = reading.reader.failure()
        assert f"127.0.0.1:{server.port} does not answer as a Redis server does" in told
        assert "stream s, group app-handler: a string was expected" in told


def test_a_stream_that_nobody_asked_for(open_reading: Open) -> None:
    with ScriptedServer(answers(lambda: ENTRY.replace(b"$1\r\ns", b"$1\r\nt"))) as server:
        reading = open_reading(server.port)
        reading.poll_to(FAILED)
        assert "a stream that was asked for was expected" in reading.reader.failure()
        assert reading.messages == []


def test_a_reply_that_ends_in_the_middle(open_reading: Open) -> None:
    halves = iter([ENTRY[:-10]])
    cut = iter([True])

    def read() -> bytes | None:
        return next(halves, None) if next(cut, False) else ENTRY

    script = answers(read)
    served: list[bytes] = []

    def ending(command: list[bytes]) -> bytes | None:
        """Half a reply, and the end of the connection at the next command."""
        if served and command[0].upper() == b"XREADGROUP" and len(served) == 1:
            served.append(b"end")
            return None
        answer = script(command)
        if command[0].upper() == b"XREADGROUP":
            served.append(answer or b"")
        return answer

    with ScriptedServer(ending) as server:
        reading = open_reading(server.port)
        reading.poll_until(lambda: len(reading.messages) >= 1)
        assert reading.has_told(f"Redis at 127.0.0.1:{server.port} closed the connection")
        assert reading.payloads[0] == b"x"


def test_a_server_that_is_loading(open_reading: Open) -> None:
    loading = iter([b"-LOADING Redis is loading the dataset in memory\r\n"] * 3)

    def read() -> bytes | None:
        return next(loading, ENTRY)

    with ScriptedServer(answers(read)) as server:
        reading = open_reading(server.port)
        reading.poll_until(lambda: len(reading.messages) >= 1)
        assert reading.has_told("is still loading its data")


def test_a_replica_is_waited_out(tmp_path: Path, open_reading: Open) -> None:
    with RedisServerProcess(tmp_path / "one") as first, RedisServerProcess(tmp_path / "two") as second:
        with first.client() as client, second.client() as replica:
            client.xadd("s", {"data": "x"})
            client.xgroup_create("s", "app-handler", id="0")
            replica.replicaof("127.0.0.1", str(first.port))
            reading = open_reading(second.port)
            reading.poll_until(lambda: reading.has_told("is a replica that takes no writes"))
            reading.poll_until(lambda: bool(replica.exists("s")))
            replica.replicaof("NO", "ONE")
            reading.poll_until(lambda: len(reading.messages) == 1)
        reading.reader.close()


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServerProcess, Path]]:
    """A server with TLS, a password and its authority's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    (tls_port,) = free_ports(1)
    settings = {
        "tls-port": str(tls_port),
        "tls-cert-file": str(folder / "cert.pem"),
        "tls-key-file": str(folder / "key.pem"),
        "tls-ca-cert-file": str(folder / "ca.pem"),
        "tls-auth-clients": "no",
    }
    with RedisServerProcess(folder / "data", settings) as server:
        server.tls_port = tls_port  # type: ignore[attr-defined]
        yield server, folder / "ca.pem"


def test_entries_come_through_tls(tls_server: tuple[RedisServerProcess, Path], open_reading: Open) -> None:
    server, authority = tls_server
    large = b"y" * 700_000
    with server.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(20_000):
            pipeline.xadd("s", {"data": b"%d" % number})
        pipeline.xadd("s", {"data": large})
        pipeline.execute()
        reading = open_reading(server.tls_port, ssl=True, ssl_ca_certs=str(authority))  # type: ignore[attr-defined]
        reading.sink.stall_after(5000)
        reading.poll_until(lambda: len(reading.messages) == 5000)
        for _ in range(20):
            reading.poll()
        reading.sink.stall_after(None)
        reading.poll_until(lambda: len(reading.messages) == 20_001)
        assert reading.payloads == [*(b"%d" % number for number in range(20_000)), large]
        client.xadd("s", {"data": "later"})
        reading.poll_until(lambda: len(reading.messages) == 20_002)
        reading.commit()
        assert client.xpending("s", "app-handler")["pending"] == 0
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        client.xadd("s", {"data": "after"})
        reading.poll_until(lambda: len(reading.messages) == 20_003)


def test_a_certificate_that_nobody_vouches_for(
    tls_server: tuple[RedisServerProcess, Path], tmp_path: Path, open_reading: Open
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    reading = open_reading(tls_server[0].tls_port, ssl=True, ssl_ca_certs=str(other))  # type: ignore[attr-defined]
    reading.poll_until(lambda: reading.has_told("certificate verify failed"))
    assert ssl.OPENSSL_VERSION_INFO >= (1, 1)
