"""Files that one process writes at a time: locked as long as they are open."""

from __future__ import annotations

import fcntl
import os
import stat

from pythia_fast.errors import SinkError

#: Of a file that is made; the process's umask takes away from it.
SHARED_MODE = 0o644


class FileLockedError(SinkError):
    """Another sink or run writes the file."""


def open_locked(path: str, mode: int = SHARED_MODE) -> int:
    """A descriptor of the file, made where there is none, and locked against every other writer until it is closed.

    Raises FileLockedError when another has it, SinkError when it cannot be written.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SinkError(f"cannot write {path}: it is not a plain file")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileLockedError(
                    f"{path} is being written by another sink or run: give each its own file"
                ) from None
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        # Between open and lock the last holder put another file in its place: what is written to this one is lost.
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
