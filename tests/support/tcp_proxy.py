"""A TCP proxy that can do to a connection what networks do: cut it, refuse it, freeze it, slow it down.

It listens on a port of 127.0.0.1 from its making on; ``target_port`` may be told later, before the first connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

CHUNK_BYTES = 16384
ADDRESS = "127.0.0.1"


class _Pair:
    """One client's connection and ours to the target: closed together."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sides = (client, server)

    def cut(self) -> None:
        for side in self.sides:
            with contextlib.suppress(OSError):  # the peer may have been first
                side.shutdown(socket.SHUT_RDWR)  # close() alone would leave a thread asleep in recv()


class TcpProxy:
    """Forwards every connection until told otherwise; ``close()`` ends all its threads and sockets."""

    def __init__(self, target_port: int = 0) -> None:
        self.target_port = target_port
        self._changed = threading.Condition()  # guards what follows
        self._pairs: set[_Pair] = set()
        self._threads: list[threading.Thread] = []
        self._frozen = False
        self._bytes_per_second: float | None = None
        self._closed = False
        self._listener: socket.socket | None = None
        self.port = self._listen(0)

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"{ADDRESS}:{self.port}"

    # -- what it does to connections -----------------------------------------------------------

    def cut(self) -> int:
        """End all connections there are; new ones are served. How many there were."""
        with self._changed:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()
        return len(pairs)

    def refuse(self) -> None:
        """Refuse new connections, as a port does that nobody listens on."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            listener.close()

    def freeze(self) -> None:
        """Accept connections and take what is sent, as far as buffers go, but forward nothing."""
        with self._changed:
            self._frozen = True

    def slow_down(self, bytes_per_second: float) -> None:
        """Forward so much per connection and direction."""
        with self._changed:
            self._bytes_per_second = bytes_per_second

    def resume(self) -> None:
        """Serve as in the beginning; what was held back while frozen goes on its way."""
        with self._changed:
            self._frozen = False
            self._bytes_per_second = None
            self._changed.notify_all()
        if self._listener is None:
            self._listen(self.port)

    def close(self) -> None:
        self.refuse()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.cut()
        while self._threads:  # a connection that was being accepted adds one more
            self._threads.pop().join()

    # -- its threads ---------------------------------------------------------------------------

    def _listen(self, port: int) -> int:
        listener = socket.create_server((ADDRESS, port))
        self._listener = listener
        self._start(self._accept, listener)
        return int(listener.getsockname()[1])

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="tcp proxy", daemon=True)
        thread.start()
        with self._changed:
            self._threads = [*(other for other in self._threads if other.is_alive()), thread]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed by refuse()
                return
            try:
                server = socket.create_connection((ADDRESS, self.target_port))
            except OSError:
                client.close()
                continue
            pair = _Pair(client, server)
            with self._changed:
                self._pairs.add(pair)
                if self._closed:
                    pair.cut()
            self._start(self._forward_both, pair)

    def _forward_both(self, pair: _Pair) -> None:
        client, server = pair.sides
        back = threading.Thread(target=self._forward, args=(pair, server, client), name="tcp proxy back", daemon=True)
        back.start()
        self._forward(pair, client, server)
        back.join()
        with self._changed:
            self._pairs.discard(pair)
        client.close()
        server.close()

    def _forward(self, pair: _Pair, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                self._hold_back(len(chunk))
                to.sendall(chunk)
        pair.cut()

    def _hold_back(self, size: int) -> None:
        """Return once so many bytes may go on: at once, after the time that they take, or after ``resume()``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._frozen)
            begun = time.monotonic()
            while not self._closed and self._bytes_per_second is not None:
                left = begun + size / self._bytes_per_second - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)
