"""The transactional id of a handler that was given none: the same after a restart, another one for every copy.

A run that was killed leaves a transaction open, which holds readers up until somebody begins with the same id, or it
times out. So the id must not change with a restart; and two runs at once must not share one, or they end each other.
It is made of the consumer group, the handler, the machine (or ``group.instance.id``), and the lowest number whose lock
nobody on this machine holds. A lock goes with its process, however that ends.
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
        for number in range(MAX_COPIES):
            # A group may have characters that no file's name has, and be longer.
            lock = folder / f"transactions-{hashlib.sha256(f'{name}.{number}'.encode()).hexdigest()[:32]}"
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            try:
                yield f"{name}.{number}"
            finally:
                os.close(fd)
            return
    except OSError as error:
        raise SinkError(
            f"cannot lock a transactional id in {folder}: {error.strerror}; give the handler a transactional_id"
        ) from None
    raise SinkError(f"{MAX_COPIES} copies of {name} run on this machine; give the handler a transactional_id")
