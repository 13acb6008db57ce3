"""How far each file has been read, kept on disk for one consumer group.

``<state dir>/checkpoints/<group>.json`` is replaced as a whole (written beside, synced, renamed, folder synced), so a
run killed at any instant leaves the old positions or the new ones. ``<group>.lock`` is locked while a run uses it.

A file is known by device, inode, the hash of its first bytes and that of the last ones before the position: a renamed
file is recognised, and another file under an old name, or one written anew in its place, is not taken for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec

from pythia_fast.errors import SourceError
from pythia_fast.private import PRIVATE_MODE, make_private_folders
from pythia_fast.unreadable import UNREADABLE

HEAD_BYTES = 1024
TAIL_BYTES = 1024
#: Of a group's name, percent-encoded: file systems take names of 255 bytes, and ".json.new" stands behind it.
MOST_NAME_BYTES = 240

#: What the kernel takes for a place in a file.
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Identity = tuple[int, int]  #: device, inode


def identity_of(facts: os.stat_result) -> Identity:
    return facts.st_dev, facts.st_ino


class Tail(msgspec.Struct, frozen=True):
    """The last bytes before a position, at most TAIL_BYTES of them."""

    end: Offset
    sha256: str


def tail_of(fd: int, end: int) -> Tail | None:
    """The bytes of an open file before ``end``; None where they are not all there."""
    begin = max(0, end - TAIL_BYTES)
    with suppress(OSError):
        tail = os.pread(fd, end - begin, begin)
        if len(tail) == end - begin:
            return Tail(end, _sha256(tail))
    return None


_NO_TAIL = Tail(0, "")  #: of no file: the hash of no bytes is not empty


def _sha256(some: bytes) -> str:
    return hashlib.sha256(some).hexdigest()


class FilePosition(msgspec.Struct):
    """Where to go on in one file."""

    path: str
    device: int
    inode: int
    #: Length of the head that was hashed: the file may have been short.
    head_bytes: Annotated[int, msgspec.Meta(ge=0, le=HEAD_BYTES)]
    head_sha256: str
    position: Offset
    end: Offset | None = None  #: where its last record ends, once it was read to its end
    size: Offset = 0  #: bytes it had when it was last looked at
    tail: Tail | None = None  #: at the position or before it; None: none was stored, as once was the rule
    path_bytes: bytes | None = None  #: a stored path that is not UTF-8, of which ``path`` is a likeness

    @property
    def finished(self) -> bool:
        """It was read to its end, and all of it is done. Should something have been appended since, it is longer."""
        return self.end is not None and self.position >= self.end

    @property
    def extent(self) -> str:
        """How much of it was read, for a sentence about the rest."""
        if self.size <= self.position:
            return f"it was read up to byte {self.position:,}, its end then; what was appended since was not read"
        unread = self.size - self.position
        return f"it was read up to byte {self.position:,} of {self.size:,}; {unread:,} bytes were not read"

    @property
    def identity(self) -> Identity:
        return self.device, self.inode

    def has_same_head(self, fd: int) -> bool:
        """Whether the open file begins with the bytes that this position was recorded for."""
        head = os.pread(fd, self.head_bytes, 0)
        return len(head) == self.head_bytes and _sha256(head) == self.head_sha256

    def has_same_tail(self, fd: int) -> bool:
        """Whether the open file has, before the position, the bytes that were read there."""
        tail = self.tail  # another thread may learn the next one
        return tail is None or tail_of(fd, tail.end) == tail

    def has_same_bytes(self, fd: int) -> bool:
        """Whether the open file is the one that was read, as far as two small looks can tell."""
        return self.has_same_head(fd) and self.has_same_tail(fd)

    def learn_tail(self, fd: int) -> None:
        """Know the file by the bytes before the position, unless it was written anew and has other ones there now."""
        tail = tail_of(fd, self.position)
        if tail is not None and self.has_same_bytes(fd):  # in this order: then it still had the bytes that were read
            self.tail = tail

    def forget_bytes(self) -> None:
        """No file is to be taken for this one, which was written anew."""
        self.tail = _NO_TAIL

    def learn_head(self, fd: int, most: int = HEAD_BYTES) -> None:
        """Hash more of the head, once the file has grown to it, or less: ``most`` bytes are what will stay."""
        if self.head_bytes < HEAD_BYTES or self.head_bytes > most:
            head = os.pread(fd, min(most, HEAD_BYTES), 0)
            self.head_bytes, self.head_sha256 = len(head), _sha256(head)


def identify(path: str, fd: int, position: int) -> FilePosition:
    """The open file as a position that begins now."""
    facts = os.fstat(fd)
    head = os.pread(fd, HEAD_BYTES, 0)
    return FilePosition(
        path,
        facts.st_dev,
        facts.st_ino,
        len(head),
        _sha256(head),
        position,
        size=facts.st_size,
        tail=tail_of(fd, position),
    )


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Bring the names in a folder to the disk: a file that was synced is lost with its name."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Stored(msgspec.Struct):
    version: int
    group: str
    files: list[FilePosition]


def too_long(group: str) -> str:
    """Why no file can be named after the group, as half a sentence; empty where one can be."""
    size = len(_file_name(group))
    if size <= MOST_NAME_BYTES:
        return ""
    return (
        f"it names the file of positions, where it takes {size} bytes of at most {MOST_NAME_BYTES} (each byte beyond "
        "ASCII, and each sign such as '/' or ':', takes three): give a shorter consumer_group"
    )


def checkpoint_path(state_dir: Path, group: str) -> Path:
    """Where the positions of a group are kept. Raises SourceError for one that is too long to name a file."""
    if why := too_long(group):
        raise SourceError(f"consumer group {group!r}: {why}")
    return state_dir / "checkpoints" / f"{_file_name(group)}.json"


def _file_name(group: str) -> str:
    return quote(group, safe=" @+=,")


def lock_path(path: Path) -> Path:
    """The file that a run locks while it has the positions kept in ``path``."""
    return path.with_name(path.name.removesuffix(".json") + ".lock")


def stored_positions(path: Path) -> list[FilePosition]:
    """What a checkpoint holds; nothing where there is none. Raises SourceError for one that cannot be understood."""
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceError(
            f"the checkpoint {path} cannot be read: {error.strerror}; mend that, or choose another folder with "
            "--state-dir"
        ) from None
    except UNREADABLE as error:
        raise SourceError(f"the checkpoint {path} cannot be read ({error}); {_RESTART}") from None
    if stored.version != 1:
        raise SourceError(f"the checkpoint {path} has version {stored.version}, this program knows version 1")
    for entry in stored.files:
        if entry.path_bytes is not None:
            entry.path, entry.path_bytes = os.fsdecode(entry.path_bytes), None
    return stored.files


def _storable(entry: FilePosition) -> FilePosition:
    """The same as JSON can hold it: names of files are bytes, and need not be UTF-8."""
    if not any("\ud800" <= sign <= "\udfff" for sign in entry.path):
        return entry
    name = os.fsencode(entry.path)
    return msgspec.structs.replace(entry, path=name.decode(errors="backslashreplace"), path_bytes=name)


class Checkpoint:
    """The positions of one group, held by one run at a time."""

    def __init__(self, state_dir: Path, group: str, *, forget: bool = False) -> None:
        """Lock and load (``forget``: lock only).

        Raises SourceError when another run holds the group or the stored positions cannot be understood.
        """
        self.path = checkpoint_path(state_dir, group)
        folder = self.path.parent
        self._group = group
        self._folder = folder
        try:
            make_private_folders(folder)
            self._lock_fd = self._lock(lock_path(self.path))
        except OSError as error:
            raise SourceError(
                f"cannot keep positions in {folder}: {error.strerror}; choose another folder with --state-dir"
            ) from None
        try:
            self.files = [] if forget else stored_positions(self.path)
        except BaseException:
            self.close()
            raise

    def _lock(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise SourceError(
                f"consumer group {self._group!r} is being read by process {holder} already ({path} is locked): "
                "stop that run, or give this one another consumer_group or --state-dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def save(self, files: Iterable[FilePosition]) -> None:
        """Replace what is stored; durable on return. Raises SourceError when the disk refuses."""
        stored = _Stored(1, self._group, [_storable(entry) for entry in files])
        text = msgspec.json.format(msgspec.json.encode(stored), indent=1)
        try:
            try:
                self._write(text)
            except FileNotFoundError:  # somebody has removed the folder
                self._make_folder_anew()
                self._write(text)
        except OSError as error:
            raise SourceError(f"cannot write the checkpoint {self.path}: {error.strerror}") from error

    def _write(self, text: bytes) -> None:
        beside = self.path.with_suffix(".json.new")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_MODE), "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)
        sync_folder(self._folder)

    def _make_folder_anew(self) -> None:
        """With the lock, whose file is gone, too: raises SourceError where another run has taken it meanwhile."""
        make_private_folders(self._folder)
        lock_fd = self._lock(lock_path(self.path))
        os.close(self._lock_fd)
        self._lock_fd = lock_fd

    def close(self) -> None:
        """Give the group free. The lock file stays: removing it would let two runs lock two different files."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


_RESTART = 'remove it, or read everything again with start="beginning"'


_GIVE_UP = 'give it up with start="beginning", which reads every file of the run from its beginning'


def written_anew(entry: FilePosition) -> SourceError:
    """The refusal to pass over the rows that were not read before the file got other bytes."""
    return SourceError(
        f"{entry.path} is not the file that this group read: it was written anew, bytes that were read have changed. "
        f"Of what was in it: {entry.extent}. If there is a copy of that, let another consumer_group read the copy "
        f"first; then {_GIVE_UP}"
    )


def not_found(entry: FilePosition) -> SourceError:
    """The refusal to pass over the rows of a file that was moved away."""
    folder = os.path.dirname(entry.path)
    return SourceError(
        f"{entry.path} is not the file that this group read, and that file could not be found in {folder}: "
        f"{entry.extent}. Move it back into that folder, under any name, and its rest is read first (moved, not "
        f"copied: it is known by its inode); or {_GIVE_UP}"
    )
