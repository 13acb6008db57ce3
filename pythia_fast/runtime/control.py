"""ControlServer: lets other processes of the same user ask a run how it stands, and pause or resume it.

A Unix socket ``control-PID.sock`` in the state folder, which is its user's alone. One request a connection: a JSON
object in a line (``{"do": "pause", "handlers": ["score"]}``), answered by one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pythia_fast.errors import ConfigError
from pythia_fast.unreadable import UNREADABLE

PATIENCE_S = 5.0  #: for a request, or an answer
MOST_BYTES = 1 << 20


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked for. ``handlers``: names; empty: all."""

    do: str
    handlers: list[str] = []


class Answer(msgspec.Struct):
    """``refused``: why nothing was done, a sentence; empty where it was. ``result``: what was asked for."""

    refused: str = ""
    result: object = None


class ControlServer:
    """Answers on a thread of its own until ``close``.

    Parameters:
        folder: where the socket is made.
        answer: called with each request; what it raises as ConfigError is told to whoever asked.
        patience_s: for the request of a connection, which holds up the others.
    """

    def __init__(self, folder: Path, answer: Callable[[Request], object], *, patience_s: float = PATIENCE_S) -> None:
        """Raises OSError where there can be no socket."""
        self._answer = answer
        self._patience_s = patience_s
        self._folder = folder
        self._path = socket_path(folder, os.getpid())
        self._closing = False
        remove_stale(folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(folder) as short:
                self._socket.bind(str(short / self._path.name))
            self._path.chmod(0o600)
            self._socket.listen(8)
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove the socket and end the thread."""
        self._closing = True
        with contextlib.suppress(OSError):
            ask(self._folder, os.getpid(), Request("wake"))  # whoever waits for a connection gets one
        self._thread.join(PATIENCE_S)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # no descriptor is left, say: whoever asks finds nobody
                threading.Event().wait(0.1)
                continue
            with connection, contextlib.suppress(OSError):
                connection.settimeout(self._patience_s)
                connection.sendall(msgspec.json.encode(self._reply(read_line(connection))) + b"\n")

    def _reply(self, line: bytes) -> Answer:
        try:
            return Answer(result=self._answer(msgspec.json.decode(line, type=Request)))
        except UNREADABLE as error:
            return Answer(refused=f"no request: {error}")
        except ConfigError as error:
            return Answer(refused=str(error))


def ask(folder: Path, pid: int, request: Request) -> Answer:
    """Ask the run that is process ``pid``. Raises OSError where nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE_S)
        with short_path(folder) as short:
            connection.connect(str(short / socket_path(folder, pid).name))
        connection.sendall(msgspec.json.encode(request) + b"\n")
        line = read_line(connection)
    try:
        return msgspec.json.decode(line, type=Answer)
    except msgspec.MsgspecError as error:
        raise OSError(f"process {pid} gave no answer: {error}") from None


def running(folder: Path) -> list[int]:
    """The processes of the runs that have a socket there, in the order of their numbers."""
    found = []
    for path in folder.glob("control-*.sock"):
        number = path.stem.removeprefix("control-")
        if number.isascii() and number.isdigit():
            found.append(int(number))
    return sorted(found)


def remove_stale(folder: Path) -> None:
    """Remove what runs that were killed left behind: sockets that nobody listens at."""
    for pid in running(folder):
        path = socket_path(folder, pid)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial, short_path(folder) as short:
            trial.settimeout(PATIENCE_S)
            try:
                trial.connect(str(short / path.name))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue  # full, or not ours to reach: somebody's


def socket_path(folder: Path, pid: int) -> Path:
    """Of the run that is process ``pid``."""
    return folder / f"control-{pid}.sock"


def read_line(connection: socket.socket) -> bytes:
    """Up to the end of a line, or what there is. Raises OSError when it takes too long, or is too much."""
    line = bytearray()
    while b"\n" not in line:
        part = connection.recv(1 << 16)
        if not part:
            break
        line += part
        if len(line) > MOST_BYTES:
            raise OSError("more than a request has")
    return bytes(line)


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[Path]:
    """A way to the folder that is short enough for the address of a socket, which has room for about 100 bytes."""
    if not os.path.isdir("/proc/self/fd"):
        yield folder
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
