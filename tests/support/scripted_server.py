"""Servers that answer as a script says: for what no real server gives, such as garbage and half replies."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Script = Callable[[list[bytes]], bytes | None]


class LocalServer:
    """Listens on a port of its own and serves each connection on a thread of its own, until the ``with`` block ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        """One connection; it is closed with the server."""
        raise NotImplementedError


class ScriptedServer(LocalServer):
    """Reads RESP commands and sends what ``script`` returns for each; None: it ends the connection."""

    def __init__(self, script: Script) -> None:
        self._script = script
        super().__init__()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as reading:
            while line := reading.readline():
                parts = []
                for _ in range(int(line[1:])):
                    size = int(reading.readline()[1:])
                    parts.append(reading.read(size + 2)[:-2])
                answer = self._script(parts)
                if answer is None:
                    break
                connection.sendall(answer)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
