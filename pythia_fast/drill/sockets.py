"""What networks do to connections, done to this process' own: cut them, or let them carry little.

librdkafka goes where the brokers say they are, so a proxy would have to be told to them. Instead the connections that
it has opened are taken by their descriptors, whichever broker, listener or encryption is at the other end:

    cut     shutdown(2) of the socket: both sides see its end
    slow    the socket's descriptor becomes one end of a pair of local sockets (dup2), and a thread carries bytes
            between the other end and the connection, at a pace

New connections are found by looking again. One is slowed only after it has been there for SETTLED_S: a short question
to a broker closes its connection by itself, and the descriptor may be another file's when it would be taken.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Iterable, Iterator

Address = tuple[str, int]
CHUNK_BYTES, LARGE_CHUNK_BYTES = 4096, 1 << 16
SETTLED_S = 0.3


def addresses_of(servers: Iterable[str]) -> set[Address]:
    """(IP address, port) of each ``host:port``; names that cannot be resolved are left out."""
    found: set[Address] = set()
    for server in servers:
        host, _, port = server.strip().rpartition(":")
        host = host.rpartition("//")[2].strip("[]")
        with contextlib.suppress(OSError, ValueError):
            found.update(
                (_plain(str(facts[4][0])), int(facts[4][1]))
                for facts in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            )
    return found


def _plain(address: str) -> str:
    """Of an IPv4 address in IPv6 clothes, the IPv4 address; without a zone."""
    return address.removeprefix("::ffff:").partition("%")[0]


def connections_to(addresses: set[Address]) -> Iterator[int]:
    """Descriptors of this process' TCP connections to these."""
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile, or no connection
            fd = int(name)
            if stat.S_ISSOCK(os.fstat(fd).st_mode) and _peer(fd) in addresses:
                yield fd


def _peer(fd: int) -> Address | None:
    with socket.socket(fileno=os.dup(fd)) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.type != socket.SOCK_STREAM:
            return None
        host, port = connection.getpeername()[:2]
        return _plain(host), port


def cut(addresses: set[Address]) -> int:
    """End every connection to these; how many there were."""
    count = 0
    for fd in connections_to(addresses):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
            count += 1
    return count


class Slowdown:
    """Connections that carry so many bytes a second each way, until ``end()``."""

    def __init__(self, addresses: set[Address], bytes_per_second: float) -> None:
        self.connections = 0
        self._addresses = addresses
        self._bytes_per_second = bytes_per_second
        self._over = threading.Event()
        self._carried: set[int] = set()  #: descriptors of the connections behind the pairs
        self._since: dict[tuple[int, int], float] = {}  #: (descriptor, inode) of others -> when it was first seen

    def catch(self) -> None:
        """Slow down the connections that are not slow yet."""
        now = time.monotonic()
        there: dict[tuple[int, int], float] = {}
        for fd in connections_to(self._addresses):
            if fd in self._carried:
                continue
            with contextlib.suppress(OSError):  # closed meanwhile
                known = (fd, os.fstat(fd).st_ino)
                there[known] = self._since.get(known, now)
                if now - there[known] >= SETTLED_S:
                    self._take_over(*known)
        self._since = there

    def _take_over(self, fd: int, inode: int) -> None:
        connection = socket.socket(fileno=os.dup(fd))
        if os.fstat(connection.fileno()).st_ino != inode:
            connection.close()
            return
        ours, theirs = socket.socketpair()
        self._carried.add(connection.fileno())
        os.set_blocking(theirs.fileno(), os.get_blocking(fd))
        os.dup2(theirs.fileno(), fd, inheritable=False)
        theirs.close()
        self.connections += 1
        threading.Thread(target=self._carry_both, args=(connection, ours), name="slow", daemon=True).start()

    def end(self) -> None:
        """Carry as fast as it goes from now on."""
        self._over.set()

    def _carry_both(self, connection: socket.socket, ours: socket.socket) -> None:
        back = threading.Thread(target=self._carry, args=(connection, ours), name="slow back", daemon=True)
        back.start()
        self._carry(ours, connection)
        back.join()
        self._carried.discard(connection.fileno())
        connection.close()
        ours.close()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        """Bytes from one to the other, to the end of either."""
        with contextlib.suppress(OSError):
            while chunk := _receive(source, LARGE_CHUNK_BYTES if self._over.is_set() else CHUNK_BYTES):
                begun = time.monotonic()
                _send_all(target, chunk)
                spent = time.monotonic() - begun
                self._over.wait(max(0.0, len(chunk) / self._bytes_per_second - spent))
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


def _receive(source: socket.socket, size: int) -> bytes:
    """What there is, waited for. A connection does not block, as librdkafka made it."""
    while True:
        select.select([source], [], [])
        with contextlib.suppress(BlockingIOError):
            return source.recv(size)


def _send_all(target: socket.socket, chunk: bytes) -> None:
    """All of it, waited for."""
    left = memoryview(chunk)
    while left:
        try:
            left = left[target.send(left) :]
        except BlockingIOError:
            select.select([], [target], [])
