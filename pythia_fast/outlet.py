"""Standard output and error that nobody may be reading: a full pipe, or a terminal stopped with Ctrl-S.

What the runtime says must not hold its work up. So an Outlet writes what is taken at once; the rest waits in a bounded
backlog for a thread, which is started when it is first needed; and what finds no room there is dropped, counted, and
told of when somebody reads again.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
import time
from collections import deque
from typing import TextIO

#: Of what waits, in bytes. A pipe holds 64 KiB more.
MOST_WAITING = 1 << 18
#: How long the last words of a command wait for somebody who reads them.
LAST_WORDS_S = 10.0
_NAMES = {1: "standard output", 2: "standard error"}


class Outlet:
    """A text stream in front of another one; writing to it never waits. Any thread.

    A stream without a descriptor (``io.StringIO``) is written to as it is. What a file does not take (its disk is full)
    is left out, and ``trouble`` says why.
    """

    def __init__(self, stream: TextIO, most_waiting: int = MOST_WAITING) -> None:
        self.stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self._most_waiting = most_waiting
        self.trouble: OSError | None = None  #: the last that kept something from being written
        self._fd = _descriptor(stream)
        self._own_fd: int | None = None  #: of the terminal, opened anew
        if self._fd is not None:
            self._own_fd = open_terminal(self._fd)
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def flush(self) -> None:
        """What can be written is written already."""
        if self._fd is None:
            self.stream.flush()

    def write(self, text: str) -> int:
        """Write, or keep for later, or drop it; the number of characters given."""
        if self._fd is None:
            return self.stream.write(text)
        data = text.encode(self.encoding, errors="backslashreplace")
        with self._changed:
            if not self._waiting and not self._closed:
                data = self._write_some(data)
            if data:
                self._keep(data)
        return len(text)

    def close(self, timeout: float) -> None:
        """Wait at most so long until what waits is written. What is written later is dropped."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._waiting and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._own_fd is not None:
            os.close(self._own_fd)
            self._own_fd = None

    def _keep(self, data: bytes) -> None:
        if self._closed or self._size + len(data) > self._most_waiting:
            self._dropped += 1
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._thread is None:
            thread = threading.Thread(target=self._write_later, name="outlet", daemon=True)
            thread.start()
            self._thread = thread  # now that it can be joined
        self._changed.notify_all()

    def _write_later(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                data = self._waiting.popleft()
                rest = self._write_some(data)
                self._size -= len(data) - len(rest)
                if rest:
                    self._waiting.appendleft(rest)
                elif not self._waiting:
                    if self._dropped:
                        note = f"\n({self._dropped:,} lines or redraws are left out here, which nobody read in time)\n"
                        self._dropped = 0
                        self._keep(note.encode())
                    self._changed.notify_all()
            if rest and self._fd is not None:
                select.select([], [self._fd], [], 0.1)

    def _write_some(self, data: bytes) -> bytes:
        """Write what is taken at once; the rest. Nothing is left for a reader that is gone for good."""
        assert self._fd is not None
        try:
            return write_now(self._fd, data, self._own_fd)
        except OSError as error:
            self.trouble = error
            return b""


def write_now(fd: int, data: bytes, terminal: int | None) -> bytes:
    """Write what is taken without waiting; the rest. ``terminal``: of ``open_terminal``, where it is one.

    Raises OSError where nobody can read it any more.
    """
    try:
        while data:
            if terminal is not None:
                data = data[os.write(terminal, data) :]
                continue
            if not select.select([], [fd], [], 0)[1]:
                break
            # A pipe that takes anything has room for so much, so this does not wait (pipe(7)).
            data = data[os.write(fd, data[: select.PIPE_BUF]) :]
    except BlockingIOError:
        return data
    return data


def say_last(stream: TextIO, text: str, timeout: float = LAST_WORDS_S) -> str:
    """Write the last words of a command: they wait for a reader, but not for ever.

    Why the stream does not take them, else an empty text; a reader who has gone wants no more of them.
    """
    trouble: OSError | None = None
    try:
        stream.flush()
    except OSError as error:
        trouble = error
    outlet = Outlet(stream)
    outlet.write(text)
    outlet.flush()
    outlet.close(timeout)
    trouble = outlet.trouble or trouble
    return "" if trouble is None or isinstance(trouble, BrokenPipeError) else str(trouble.strerror)


def hold_standard_streams() -> None:
    """Have standard input, output and error that are closed lead nowhere.

    Left closed, the next file, socket or arena gets the number of one, and a library's complaint or a crash's stacks
    are written into it, or who reads standard input reads the arena. Pool processes inherit what is opened here.
    Reading from standard input goes on being an error, as with none: it is no empty one.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != fd:
                os.dup2(nowhere, fd)
                os.close(nowhere)
            os.set_inheritable(fd, True)
    # Python has no stream for one that was closed when it started, and print() writes nothing then.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def unread() -> str:
    """Which of standard output and error nobody reads, as a sentence's end; empty where both take what is written."""
    full = [name for fd, name in _NAMES.items() if _may_wait(fd) and not select.select([], [fd], [], 0)[1]]
    if not full:
        return ""
    return f"nobody reads {' and '.join(full)} of this run, and a process that writes there waits"


def _may_wait(fd: int) -> bool:
    """Whether writing may wait for a reader: not to a file."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.isatty(fd))


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def open_terminal(fd: int) -> int | None:
    """The terminal once more, to be written to without waiting: others have the descriptor that there is. None: it is
    no terminal, or may not be opened."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
