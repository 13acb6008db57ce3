"""What paths name: the files of a glob, streams, a file renamed in its folder; and opening a file to read it."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from pythia_fast._ext.file_reader import frames_end
from pythia_fast.brokers.checkpoint import Identity, identity_of
from pythia_fast.errors import SourceError

#: Formats whose records stand behind their size.
FRAMED = ("msgpack-frames", "records")
STDIN = "-"
_COMPRESSED = {
    b"\x1f\x8b": "gzip -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"BZh": "bzip2 -dc",
    b"\xfd7zXZ": "xz -dc",
    b"\x04\x22\x4d\x18": "lz4 -dc",
}


def matching_files(paths: Sequence[str]) -> list[str]:
    """The files there are now that the paths and globs name, absolute and in order of their names."""
    found: set[str] = set()
    for path in paths:
        literal = os.path.exists(path) or not glob.has_magic(path)
        names = [path] if literal else [name for name in glob.glob(path, recursive=True) if not os.path.isdir(name)]
        found.update(os.path.abspath(name) for name in names)
    return sorted(found)


def is_stream(path: str) -> bool:
    """Whether a path names something that cannot seek: a pipe, a socket, a terminal."""
    return stream_identity(path) is not None


def stream_identity(path: str | int) -> Identity | None:
    """Of what cannot seek, whichever of its names (or descriptors) is given; None: it can, or is not there."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    mode = facts.st_mode
    return identity_of(facts) if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode) else None


def find_in_folder(folder: str, identity: Identity) -> str | None:
    """The name in ``folder`` of the file with this identity."""
    with os.scandir(folder) as siblings:
        for sibling in siblings:
            if sibling.inode() == identity[1] and sibling.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    if identity_of(sibling.stat(follow_symlinks=False)) == identity:
                        return sibling.path
    return None


def open_regular(path: str) -> int:
    """A descriptor to read ``path``. Raises SourceError for anything but a plain, uncompressed file."""
    try:
        # Without O_NONBLOCK a named pipe would hold the run up, signals and all, until somebody writes to it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                raise SourceError(
                    f"cannot read {path} among other files: it is a named pipe; read it alone, by its name"
                )
            raise SourceError(f"cannot read {path}: it is not a file; to read a folder, write {path}/*")
        empty = not os.fstat(fd).st_size
        head = os.pread(fd, 6, 0)
        if empty and head and not os.fstat(fd).st_size:
            raise SourceError(
                f'cannot read {path}: it has bytes, but no size (as files in /proc have none); read it with path="-": '
                f"cat {path} | ..."
            )
        for magic, command in _COMPRESSED.items():
            if head.startswith(magic):
                raise SourceError(f'{path} is compressed: unpack it, or read it with path="-": {command} {path} | ...')
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def last_record_end(fd: int, format: str, record_bytes: int) -> int:  # noqa: A002
    """Position after the last whole record. Raises OSError."""
    size = os.fstat(fd).st_size
    if format in FRAMED:
        return frames_end(fd, size)  # from frame to frame: nothing but the sizes tells where one ends
    return record_start(fd, size, format, record_bytes)


def record_start(fd: int, at: int, format: str, record_bytes: int) -> int:  # noqa: A002
    """Where the record begins that byte ``at`` is in; a position among frames is taken for the beginning of one.

    A line's beginning is looked for backwards, in blocks. Raises OSError.
    """
    if format == "fixed":
        return at - at % record_bytes
    if format in FRAMED:
        return at
    while at > 0:
        block = min(at, 1 << 16)
        newline = os.pread(fd, block, at - block).rfind(b"\n")
        if newline >= 0:
            return at - block + newline + 1
        at -= block
    return 0
