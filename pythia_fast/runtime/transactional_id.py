"""The transactional id of a handler that was given none: the same after a restart, another one for every copy.

A run that was killed leaves a transaction open, which holds readers up until somebody begins with the same id, or it
times out. So the id must not change with a restart; and two runs at once must not share one, or they end each other.
It is made of the consumer group, the handler, the machine (or ``group.instance.id``), and the lowest number whose lock
nobody on this machine holds. A lock goes with its process, however that ends. Its file is removed by whoever holds it;
where that one was killed, by whoever comes next, under whatever name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pythia_fast.errors import SinkError

MAX_COPIES = 1000
PREFIX = "transactions-"


@contextlib.contextmanager
def claimed_id(group: str, handler: str, instance: str | None, folder: Path | None = None) -> Iterator[str]:
    """The id, which is this process's for the time of the block.

    Parameters:
        group: consumer group of the source.
        handler: name of the handler.
        instance: ``group.instance.id`` where the source has one, or None.
        folder: of the locks; default: one of the user's own in the folder for temporary files.

    Raises SinkError: no lock can be had.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"pythia-fast-{os.getuid()}"
    name = f"{group}.{handler}.{instance or socket.gethostname()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid() or folder.is_symlink():
            raise SinkError(f"{folder} belongs to somebody else; give the handler a transactional_id")
        with _alone(folder):
            number, lock, fd = _lowest_free(folder, name)
            _sweep(folder)
    except OSError as error:
        raise SinkError(
            f"cannot lock a transactional id in {folder}: {error.strerror}; give the handler a transactional_id"
        ) from None
    try:
        yield f"{name}.{number}"
    finally:
        if _is_at(fd, lock):
            lock.unlink(missing_ok=True)  # while it is locked: whoever opened it before sees that it is gone
        os.close(fd)


def _lowest_free(folder: Path, name: str) -> tuple[int, Path, int]:
    """(number, its file, the descriptor that has the lock). Raises OSError, SinkError."""
    for number in range(MAX_COPIES):
        # A group may have characters that no file's name has, and be longer.
        lock = folder / f"{PREFIX}{hashlib.sha256(f'{name}.{number}'.encode()).hexdigest()[:32]}"
        fd = _locked(lock)
        if fd is not None:
            return number, lock, fd
    raise SinkError(f"{MAX_COPIES} copies of {name} run on this machine; give the handler a transactional_id")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else claims an id, or sweeps, meanwhile: else a sweep would keep a copy from the id that it had."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove the files that runs left which were killed."""
    for path in folder.glob(f"{PREFIX}*"):
        fd = _locked(path)
        if fd is not None:
            path.unlink(missing_ok=True)
            os.close(fd)


def _locked(path: Path) -> int | None:
    """A descriptor of the file, which nobody else has locked; None: somebody has. Raises OSError."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its holder removed it before we had the lock: under this name is another file now, or none


def _is_at(fd: int, path: Path) -> bool:
    """Whether this open file is the one of that name."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)
