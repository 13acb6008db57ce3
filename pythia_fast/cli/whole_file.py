"""Files that a command writes where it was told: never seen half written, and nothing that is no file is replaced."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path


def check_writable(path: Path) -> None:
    """Raise OSError where ``write_whole`` could not write. A file that is there keeps its content."""
    status = _status(path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        # Not opened: who reads a pipe would take that for all of it.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return
    real = Path(os.path.realpath(path))
    fresh = _beside(real)
    os.close(_create(fresh))
    fresh.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Have ``content`` at ``path``; a symbolic link is followed.

    A file is replaced when the new one is whole, and keeps its mode and owner. A device, a pipe and what standard
    output or error lead to are written into. Raises OSError.
    """
    status = _status(path)
    own = _own_stream(status)
    if own is not None:
        sys.stdout.flush()
        _write(os.dup(own), content)
    elif status is not None and not stat.S_ISREG(status.st_mode):
        # Opening a pipe that nobody reads would wait for ever; so it is an error.
        fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        _write(fd, content)
    else:
        _replace(Path(os.path.realpath(path)), content, status)


def _replace(path: Path, content: bytes, status: os.stat_result | None) -> None:
    fresh = _beside(path)
    fd = _create(fresh)
    try:
        if status is not None:
            with contextlib.suppress(PermissionError):
                os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
        _write(fd, content)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody else has."""
    return path.with_name(f".pythia-{secrets.token_hex(8)}.new")


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _write(fd: int, content: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(content)


def _status(path: Path) -> os.stat_result | None:
    """Of what the path leads to; None: there is nothing yet."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _own_stream(status: os.stat_result | None) -> int | None:
    """Standard output's or error's number where one leads there: replaced, or cut, its file would lose what is told."""
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            if status is not None and os.path.samestat(status, os.fstat(fd)):
                return fd
    return None
