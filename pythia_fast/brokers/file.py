"""Files as a source: NDJSON, length-prefixed MessagePack or fixed records; globs, standard input, tailing.

A file is a partition, a byte offset a position. Files are read in the order of their names, one after the other;
with ``follow`` they are all kept open and read as they grow (brokers/tail.py).
"""

from __future__ import annotations

import glob
import os
import stat
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pythia_fast import options
from pythia_fast._ext.file_reader import FORMATS, FileRecords
from pythia_fast.brokers.base import Partition, Reader, ReaderContext, Source
from pythia_fast.brokers.checkpoint import (
    Checkpoint,
    FilePosition,
    Identity,
    identify,
    identity_of,
    known_position,
    not_found,
    written_anew,
)
from pythia_fast.brokers.file_place import file_place
from pythia_fast.brokers.file_sink import FileProducer
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.options import named_options

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["FileConsumer", "FileProducer"]

STDIN = "-"
NO_LIMIT = 2**63 - 1
MAX_RECORD_BYTES = 2**32 - 1
Start = Literal["checkpoint", "beginning", "end"]
_COMPRESSED = {
    b"\x1f\x8b": "gzip -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"BZh": "bzip2 -dc",
    b"\xfd7zXZ": "xz -dc",
    b"\x04\x22\x4d\x18": "lz4 -dc",
}


class FileConsumer(Source):
    """Reads files, or standard input.

    ``path``: a path, a glob (``**`` too), a list of them, or ``"-"`` for standard input.
    ``consumer_group``: whose positions these are; default: app and handler name.
    ``format``: ``"ndjson"`` (one payload a line; empty lines are skipped), ``"msgpack-frames"`` (payload size u32
    little endian, payload) or ``"fixed"`` (``record_size`` bytes each, or as long as ``dtype``).
    ``follow``: wait for what is appended, through rotation; new files of a glob are picked up.
    ``start``: ``"checkpoint"``: where the group stopped, a file it does not know from its beginning;
    ``"beginning"`` and ``"end"`` forget the checkpoint.

    Raises ConfigError, UnknownOptionError.
    """

    @named_options("FileConsumer")
    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        consumer_group: str | None = None,
        format: Literal["ndjson", "msgpack-frames", "fixed"] = "ndjson",  # noqa: A002 - the word for it
        record_size: int | None = None,
        dtype: DTypeLike | None = None,
        follow: bool = False,
        start: Start = "checkpoint",
    ) -> None:
        where = "FileConsumer"
        takes = 'a path, a glob, a list of them, or "-" for standard input'
        paths = [path] if isinstance(path, str | os.PathLike) else list(options.items(where, "path", path, takes))
        self.paths = [options.path(where, "path", each, takes) for each in paths]
        if not self.paths:
            raise options.refusal(where, "path", path, takes)
        if STDIN in self.paths and len(self.paths) > 1:
            raise ConfigError('standard input, "-", cannot be read together with files')
        options.choice(where, "format", format, FORMATS)
        options.choice(where, "start", start, get_args(Start))
        options.flag(where, "follow", follow)
        if consumer_group is not None:
            options.text(where, "consumer_group", consumer_group, "1 to 200 characters", longest=200)
        self.consumer_group = consumer_group
        self.format = format
        self.record_bytes = _record_bytes(format, record_size, dtype)
        self.follow = follow
        self.start = start

    def open(self, context: ReaderContext) -> FileReader:
        if self.record_bytes > context.max_payload_bytes:
            raise SourceError(
                f"{self.describe()}: a record of {self.record_bytes:,} bytes does not fit a batch of at most "
                f"{context.max_payload_bytes:,}; raise max_batch_bytes of the handler"
            )
        if self._reads_stream():
            return StreamReader(self, context)
        if self.follow and context.until == "forever":
            from pythia_fast.brokers.tail import TailReader

            return TailReader(self, context)
        return ListReader(self, context)

    def _reads_stream(self) -> bool:
        return self.paths == [STDIN] or any(is_stream(path) for path in self.paths)

    def group(self, app: str, handler: str) -> str:
        return self.consumer_group or f"{app}.{handler}"

    def checkpoint_group(self, app: str, handler: str) -> str | None:
        return None if self._reads_stream() else self.group(app, handler)

    def describe(self) -> str:
        what = "standard input" if self.paths == [STDIN] else ", ".join(self.paths[:3])
        more = f" and {len(self.paths) - 3} more" if len(self.paths) > 3 else ""
        return f"file {what}{more}" + (f" as group {self.consumer_group}" if self.consumer_group else "")

    def list_files(self) -> list[str]:
        """The files there are now, absolute and in order of their names."""
        found: set[str] = set()
        for path in self.paths:
            literal = os.path.exists(path) or not glob.has_magic(path)
            names = [path] if literal else [name for name in glob.glob(path, recursive=True) if not os.path.isdir(name)]
            found.update(os.path.abspath(name) for name in names)
        return sorted(found)


def _record_bytes(format: str, record_size: int | None, dtype: DTypeLike | None) -> int:  # noqa: A002
    if format != "fixed":
        if record_size is not None or dtype is not None:
            raise ConfigError(f'record_size and dtype belong to format="fixed", not to format={format!r}')
        return 0
    if (record_size is None) == (dtype is None):
        raise ConfigError('format="fixed" needs either record_size= (bytes) or dtype=')
    if dtype is not None:
        try:
            record_size = np.dtype(dtype).itemsize
        except Exception as error:  # NumPy looks into what it is given, and raises whatever it finds there
            takes = f"what numpy.dtype takes ({error})"
            raise options.refusal("FileConsumer", "dtype", dtype, takes) from None
    return options.whole("FileConsumer", "record_size", record_size, 1, MAX_RECORD_BYTES, "bytes")


def find_in_folder(folder: str, identity: Identity) -> str | None:
    """The name in ``folder`` of the file with this identity."""
    with os.scandir(folder) as siblings:
        for sibling in siblings:
            if sibling.inode() == identity[1] and sibling.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    if identity_of(sibling.stat(follow_symlinks=False)) == identity:
                        return sibling.path
    return None


def is_stream(path: str) -> bool:
    """Whether a path names something that cannot seek: a pipe, a socket, a terminal."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def open_regular(path: str) -> int:
    """A descriptor to read ``path``. Raises SourceError for anything but a plain, uncompressed file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SourceError(f"cannot read {path}: it is not a file; to read a folder, write {path}/*")
        head = os.pread(fd, 6, 0)
        for magic, command in _COMPRESSED.items():
            if head.startswith(magic):
                raise SourceError(f'{path} is compressed: unpack it, or read it with path="-": {command} {path} | ...')
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


class FileReader(Reader):
    """What all three readers share: the native part, the partition table, failures."""

    native: FileRecords

    def __init__(self, consumer: FileConsumer, context: ReaderContext, *, follow: bool = False) -> None:
        self.consumer = consumer
        self.context = context
        self.native = FileRecords(
            consumer.format,
            max_payload_bytes=context.max_payload_bytes,
            record_bytes=consumer.record_bytes,
            follow=follow,
        )
        self.paths: list[str] = []  #: by partition index

    def announce(self, path: str) -> int:
        """Tell the runtime about one more file; returns its partition index."""
        index = len(self.paths)
        self.paths.append(path)
        self.context.listener.assigned([Partition(index, path, index)])
        return index

    def place(self, topic: str, partition: int, offset: int) -> str:
        return file_place("standard input" if topic == STDIN else topic, offset, None)

    def failure(self) -> str:
        for index, position, _done, _shrunk, error in self.native.states():
            if error:
                return f"cannot read {self.paths[index]} at byte {position:,}: {os.strerror(error)}"
        return super().failure()

    def close(self) -> None:
        self.native.close()


class StreamReader(FileReader):
    """Standard input, or a named pipe: read once, in order. Its position is not kept: a stream cannot go back."""

    def __init__(self, consumer: FileConsumer, context: ReaderContext) -> None:
        if len(consumer.paths) > 1:
            raise SourceError(f"{consumer.describe()}: a pipe cannot be read together with other files")
        super().__init__(consumer, context)
        spill_dir = context.state_dir / "spool"
        try:
            spill_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=spill_dir) as spill:
                self.native.spill_to(os.dup(spill.fileno()))
        except OSError as error:
            self.native.close()
            raise SourceError(
                f"cannot keep oversize payloads in {spill_dir}: {error.strerror}; "
                "choose another folder with --state-dir"
            ) from None

    def serve(self) -> None:
        if self.paths:
            self.native.exhausted()
            return
        path = self.consumer.paths[0]
        try:
            # A pipe opens without waiting for a writer, so that a run can be stopped meanwhile; poll() waits for one.
            fd = os.dup(0) if path == STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot read {self.consumer.describe()}: {error.strerror}") from None
        self.native.add(fd, self.announce(path), 0, stream=True)

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> None:
        """A stream has no position to come back to."""


@dataclass(slots=True)
class Planned:
    """A file to read, open already."""

    path: str
    name: str  #: path in the list of files: where a rotated file was before
    fd: int
    position: int
    last: bool  #: read it to its end, and wait for no more


class CheckpointedReader(FileReader):
    """Files whose positions are kept."""

    def __init__(self, consumer: FileConsumer, context: ReaderContext, *, follow: bool = False) -> None:
        super().__init__(consumer, context, follow=follow)
        forget = consumer.start != "checkpoint"
        self.checkpoint = Checkpoint(context.state_dir, consumer.group(context.app, context.handler), forget=forget)
        self.lock = threading.Lock()  #: what is below: the intake thread, and the thread that commits
        self.known: list[FilePosition] = self.checkpoint.files
        self.positions: dict[int, FilePosition] = {}  #: by partition index
        self.listed: AbstractSet[Identity] = frozenset()
        self.told: set[str] = set()
        self._unsaved = False
        self._save_fails = False

    def tell(self, line: str) -> None:
        """Log a line, once."""
        if line not in self.told:
            self.told.add(line)
            self.context.log(line)

    def plan(
        self, path: str, fd: int, start: Start, listed: AbstractSet[Identity], position: int | None = None
    ) -> list[Planned]:
        """What to read for a name not met before: the rests of files it stood for earlier, then the open file.

        ``listed``: the files there are; one that was renamed among them is read under its new name.
        ``position``: where to go on in the open file, if that is known. ``fd`` changes hands.
        Raises SourceError where rows that were not read can be read no more.
        """
        rests: list[Planned] = []
        try:
            if start == "end":
                position = last_record_end(fd, self.consumer.format, self.consumer.record_bytes)
            elif position is None:
                position = known_position(path, fd, self.known)
            facts = os.fstat(fd)
            own = identity_of(facts)
            for entry in self.known:
                if entry.path != path or entry.identity in listed - {own}:
                    continue
                if entry.identity == own:
                    if position is None:
                        self._pass_over(entry, "was written anew", written_anew)
                elif (rest := self._find(entry)) is not None:
                    rests.append(rest)
                    self._tell_between(entry, rest, listed | {own})
                elif position is None and entry.position <= facts.st_size and entry.has_same_head(fd):
                    position = entry.position  # copied back, or another mount of the same files
                else:
                    self._pass_over(entry, "is another file now", not_found)
        except BaseException:
            for opened in (fd, *(rest.fd for rest in rests)):
                os.close(opened)
            raise
        return [*rests, Planned(path, path, fd, position or 0, last=False)]

    def _pass_over(self, entry: FilePosition, what: str, refusal: Callable[[FilePosition], SourceError]) -> None:
        """The file of ``entry`` cannot be read on: no loss when it was read to its end, as far as anybody can know."""
        if not entry.finished:
            raise refusal(entry)
        self.tell(
            f"{entry.path} {what}; the one before was read to its end, byte {entry.position:,}, and is not in its "
            "folder any more: reading the new one from its beginning"
        )

    def _find(self, entry: FilePosition) -> Planned | None:
        """The file of ``entry``, wherever it is in its folder now."""
        path = find_in_folder(os.path.dirname(entry.path), entry.identity)
        if path is None:
            return None
        fd = open_regular(path)
        if entry.has_same_head(fd) and os.fstat(fd).st_size >= entry.position:
            return Planned(path, entry.path, fd, entry.position, last=True)
        os.close(fd)
        return None

    def _tell_between(self, entry: FilePosition, rest: Planned, listed: AbstractSet[Identity]) -> None:
        """Name the files that may have borne the name, and been renamed too, since the one that was read."""
        changed_ns = os.fstat(rest.fd).st_mtime_ns
        folder, name = os.path.split(entry.path)
        stem = name.partition(".")[0]
        known = {other.identity for other in self.known} | listed
        between = []
        with os.scandir(folder) as siblings:
            for sibling in siblings:
                if sibling.name.startswith(stem) and sibling.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # it was removed meanwhile
                        facts = sibling.stat(follow_symlinks=False)
                        if facts.st_mtime_ns >= changed_ns and identity_of(facts) not in known:
                            between.append(sibling.path)
        if between:
            self.tell(
                f"{entry.path} was rotated more than once while no run was up, so this run does not read "
                f"{', '.join(sorted(between))}; if they are its, read them with a glob or a run of their own"
            )

    def look(self) -> dict[str, Identity]:
        """The files there are now, in order of their names; of one with several names (links) the first."""
        found: dict[str, Identity] = {}
        names: dict[Identity, str] = {}
        for path in self.consumer.list_files():
            try:
                facts = os.stat(path)
            except OSError:
                if os.path.islink(path) and path not in {os.path.abspath(named) for named in self.consumer.paths}:
                    self.tell(f"{path} is left out: it is a link to a file that is not there")
                else:
                    self.missing(path)
                continue
            identity = identity_of(facts)
            first = names.setdefault(identity, path)
            if first == path:
                found[path] = identity
            else:
                self.tell(f"{path} is left out: it is another name of {first}, and is read once")
        return found

    def missing(self, path: str) -> None:
        raise SourceError(f"cannot read {path}: no such file")

    def take_up(self, file: Planned, *, limit: int = NO_LIMIT) -> int:
        """Announce the open file and read it from its position; its descriptor changes hands."""
        try:
            # Under its name in the list: a run that ends before this file does must make the next one look for it.
            entry = identify(file.name, file.fd, file.position)
            index = self.announce(file.path)
            superseded = file.name if file.path == file.name else None
            with self.lock:
                self.known = [old for old in self.known if old.path != superseded and old.identity != entry.identity]
                self.positions[index] = entry
        except BaseException:
            os.close(file.fd)
            raise
        self.native.add(file.fd, index, file.position, last=file.last, limit=limit)
        return index

    def place(self, topic: str, partition: int, offset: int) -> str:
        entry = self.positions.get(partition) if self.consumer.format == "ndjson" else None
        return file_place(topic, offset, entry.identity if entry is not None else None)

    def save_soon(self) -> None:
        """The next commit stores the positions, moved or not."""
        with self.lock:
            self._unsaved = True

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> None:
        with self.lock:
            for index, position in positions.items():
                entry = self.positions.get(index)
                if entry is not None and position > entry.position:
                    entry.position = position
                    self._unsaved = True
            for index, entry in list(self.positions.items()):
                if entry.finished and entry.identity not in self.listed:  # its position serves nobody
                    del self.positions[index]
            if not self._unsaved:
                return
            try:
                self.checkpoint.save([*self.known, *self.positions.values()])
            except SourceError as error:
                if wait:
                    raise
                if not self._save_fails:  # nothing is lost by waiting: a run that ends now reads some rows again
                    self.context.log(f"{error}; trying again")
                self._save_fails = True
            else:
                self._unsaved = self._save_fails = False

    def close(self) -> None:
        super().close()
        self.checkpoint.close()


@dataclass(slots=True)
class _Waiting:
    """A file that is read later; it is not kept open, for there may be more of them than descriptors."""

    path: str
    name: str
    identity: Identity
    position: int
    size: int

    def open(self) -> Planned:
        """The file that was planned, which may have been rotated since."""
        fd = open_regular(self._path_now())
        if identity_of(os.fstat(fd)) != self.identity:
            os.close(fd)
            raise self._gone()
        return Planned(self.path, self.name, fd, self.position, last=True)

    def _path_now(self) -> str:
        with suppress(FileNotFoundError):
            if identity_of(os.stat(self.path)) == self.identity:
                return self.path
        path = find_in_folder(os.path.dirname(self.path), self.identity)
        if path is None:
            raise self._gone()
        return path

    def _gone(self) -> SourceError:
        return SourceError(
            f"{self.path} was moved away before this run came to it, and could not be found in "
            f"{os.path.dirname(self.path)}: {self.size - self.position:,} bytes of it were not read. Move it back into "
            "that folder, under any name, and start again"
        )


class ListReader(CheckpointedReader):
    """Files to their ends, one after the other: the list, and the ends, are those when the reader is opened."""

    def __init__(self, consumer: FileConsumer, context: ReaderContext) -> None:
        super().__init__(consumer, context)
        try:
            self._waiting = deque(self._plan())
        except BaseException:
            self.checkpoint.close()
            raise
        self._total = sum(waiting.size for waiting in self._waiting)
        self._skipped = sum(waiting.position for waiting in self._waiting)

    def _plan(self) -> list[_Waiting]:
        """Every file is checked before the first is read."""
        waiting = []
        found = self.look()
        self.listed = set(found.values())
        for path in found:
            for file in self.plan(path, open_regular(path), self.consumer.start, self.listed):
                facts = os.fstat(file.fd)
                waiting.append(_Waiting(file.path, file.name, identity_of(facts), file.position, facts.st_size))
                os.close(file.fd)
        if not waiting:
            raise SourceError(f"no file matches {', '.join(self.consumer.paths)}")
        return waiting

    def serve(self) -> None:
        for index, position, done, shrunk, _error in self.native.states():
            if shrunk:
                raise SourceError(f"{self.paths[index]} shrank while it was read: it ends before byte {position:,} now")
            if done:
                self._let_go(index)
        if not self._waiting:
            self.native.exhausted()
            return
        waiting = self._waiting.popleft()
        self.take_up(waiting.open(), limit=waiting.size)

    def _let_go(self, index: int) -> None:
        """Its last record was appended: close it, and remember whether that was its end."""
        size = os.fstat(self.native.fd(index)).st_size
        position, end = self.native.remove(index)
        with self.lock:
            entry = self.positions[index]
            entry.size = size
            if position == size:
                entry.end = end
        self.save_soon()

    def progress(self) -> tuple[int, int]:
        return min(self._skipped + self.native.bytes_read, self._total), self._total


def last_record_end(fd: int, format: str, record_bytes: int) -> int:  # noqa: A002
    """Position after the last whole record: of lines the last newline, of frames the end of the file."""
    size = os.fstat(fd).st_size
    if format == "fixed":
        return size - size % record_bytes
    if format != "ndjson":
        return size
    at = size
    while at > 0:
        block = min(at, 1 << 16)
        newline = os.pread(fd, block, at - block).rfind(b"\n")
        if newline >= 0:
            return at - block + newline + 1
        at -= block
    return 0
