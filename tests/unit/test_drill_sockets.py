"""pythia_fast.drill.sockets: connections of this process that are cut, or carry little."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator

import pytest

from pythia_fast.drill import sockets


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(the client's side, which does not block, as librdkafka's; the server's side)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
        os.set_blocking(client.fileno(), False)
        with client, server:
            yield client, server


def addresses(client: socket.socket) -> set[sockets.Address]:
    return sockets.addresses_of([f"127.0.0.1:{client.getpeername()[1]}"])


def catch(slow: sockets.Slowdown) -> None:
    """Once the connections have been there for long enough."""
    slow.catch()
    assert slow.connections == 0, "it may be a short question"
    time.sleep(sockets.SETTLED_S)
    slow.catch()


def receive(side: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        select.select([side], [], [], 10)
        with contextlib.suppress(BlockingIOError):
            chunk = side.recv(size - len(got))
            assert chunk, f"closed after {len(got)} of {size} bytes"
            got += chunk
    return got


def test_addresses_are_resolved_and_those_that_cannot_be_are_left_out():
    found = sockets.addresses_of(["127.0.0.1:9092", "PLAINTEXT://127.0.0.1:9093", "no.such.host.invalid:1", "x"])
    assert found == {("127.0.0.1", 9092), ("127.0.0.1", 9093)}
    assert sockets.addresses_of(["[::1]:9092"]) == {("::1", 9092)}


def test_only_connections_to_the_addresses_are_cut(connected):
    client, server = connected
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = socket.create_connection(listener.getsockname())
        other_server = listener.accept()[0]
        with other, other_server:
            open_before = len(os.listdir("/dev/fd"))
            assert sockets.cut(addresses(client)) == 1
            assert len(os.listdir("/dev/fd")) == open_before
            assert client.recv(1) == b""
            assert server.recv(1) == b""
            other.sendall(b"x")
            assert other_server.recv(1) == b"x"


def test_a_slow_connection_carries_every_byte_both_ways_at_its_pace(connected):
    client, server = connected
    slow = sockets.Slowdown(addresses(client), 40_000)
    client.sendall(b"before")
    catch(slow)
    slow.catch()  # it is slow already, and the connection behind it is none of librdkafka's
    assert slow.connections == 1
    sent = os.urandom(20_000)
    begun = time.monotonic()
    client.sendall(sent)
    assert receive(server, 6 + len(sent)) == b"before" + sent
    assert time.monotonic() - begun > 0.3
    server.sendall(sent)
    assert receive(client, len(sent)) == sent
    slow.end()
    begun = time.monotonic()
    for _ in range(10):
        client.sendall(sent)
        assert receive(server, len(sent)) == sent
    assert time.monotonic() - begun < 2


def test_the_end_of_either_side_reaches_the_other(connected):
    client, server = connected
    slow = sockets.Slowdown(addresses(client), 1e9)
    catch(slow)
    server.shutdown(socket.SHUT_RDWR)
    assert select.select([client], [], [], 10)[0]
    assert client.recv(1) == b""
    deadline = time.monotonic() + 10
    while slow._carried:
        assert time.monotonic() < deadline, "the connection behind is still open"
        time.sleep(0.01)
