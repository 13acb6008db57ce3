"""Dead letters in a file: JSON lines, MessagePack frames or records, as DeadLetterWriter wrote them.

A letter that was dealt with is taken out: the others are written to a file beside, which then takes the place of the
first. All of it happens under the lock that a run takes to write the file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pythia_fast.brokers.locked_file import FileLockedError, open_locked
from pythia_fast.brokers.sink_file import whole_end
from pythia_fast.dlq.ranges import Ranges
from pythia_fast.dlq.store import DeadLetterStore, Entry, Place
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.private import PRIVATE_MODE
from pythia_fast.runtime.dead_letter import LocatedRecord, form_of, located_records

SCRATCH = ".new"  #: ends the name of what a file is replaced by


class FileStore(DeadLetterStore):
    """One file. Records that are no dead letters, and one at its end that is not whole (a run is writing it, or was
    killed), are left alone."""

    def __init__(self, path: Path) -> None:
        self._shown = path
        self._path = path.resolve()  # a link stays one when the file behind it is replaced
        self._fd = -1
        self._read = self._total = 0
        self._first_foreign: LocatedRecord | None = None

    def describe(self) -> str:
        return f"file {self._shown}"

    def locate(self, place: Place) -> str:
        return f"byte {place.start:,} of {self._shown}"

    def describe_foreign(self) -> str:
        first = self._first_foreign
        if first is None:
            return ""
        told = f"{first.name} of {self.describe()} is no dead letter, and left alone"
        others = f", as {self.foreign - 1:,} more" if self.foreign > 1 else ""
        return f"{told}{others}: {first.why}"

    def entries(self) -> Iterator[Entry]:
        self.foreign, self._first_foreign = 0, None
        try:
            with open(self._path, "rb") as file:
                self._total = whole_end(file.fileno(), lines=form_of(self._path) == "lines")
            for record in located_records(self._path, self._total):
                self._read = record.end
                if record.stored is None:
                    self.foreign += 1
                    self._first_foreign = self._first_foreign or record
                    continue
                yield Entry(record.stored, Place(0, record.start, record.end))
        except OSError as error:
            raise SourceError(f"cannot read {self._shown}: {error.strerror}") from None

    @property
    def archive(self) -> Path:
        """Where letters are kept that were taken out."""
        return Path(f"{self._path}.done")

    def progress(self) -> tuple[int, int]:
        return self._read, self._total

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        try:
            self._fd = open_locked(str(self._path), PRIVATE_MODE)
        except FileLockedError:
            raise SinkError(
                f"{self._shown} is being written by a run or another dlq command: stop that first "
                "(list, show and --dry-run work meanwhile)"
            ) from None
        try:
            yield
        finally:
            self.close()

    def settle(self, places: Iterable[Place], *, archive: bool) -> list[str]:
        taken = Ranges((place.start, place.end) for place in places)
        if not taken:
            return []
        try:
            with open(self._fd, "rb", closefd=False) as content:
                if archive:
                    self._append(content, taken)
                self._replace(content, taken)
        except OSError as error:
            raise SinkError(f"cannot take letters out of {self._shown}: {error.strerror}") from None
        # Beside the file that a link leads to, not beside the link.
        return [f"kept in {self._path if self._shown.is_symlink() else self._shown}.done"] if archive else []

    def _append(self, content: BinaryIO, taken: Ranges) -> None:
        fd = open_locked(str(self.archive), PRIVATE_MODE)
        with open(fd, "r+b") as archive:
            os.fchmod(fd, PRIVATE_MODE)
            # Half a letter, of a command that was killed, is whole in the file that it was to be taken out of.
            before = whole_end(fd, lines=form_of(self._path) == "lines")
            archive.truncate(before)
            archive.seek(before)
            try:
                for start, end in taken.pairs():
                    _copy(content, start, end, archive)
                archive.flush()
                os.fsync(fd)
            except OSError:
                # Half a letter would make the next one unreadable, too. What is still buffered goes the same way.
                with contextlib.suppress(OSError):
                    archive.close()
                os.truncate(self.archive, before)
                raise

    def _replace(self, content: BinaryIO, taken: Ranges) -> None:
        fresh = self._scratch()
        fd = open_locked(str(fresh), PRIVATE_MODE)
        try:
            with open(fd, "wb", closefd=False) as rest:
                at = 0
                for start, end in taken.pairs():
                    _copy(content, at, start, rest)
                    at = end
                _copy(content, at, os.fstat(self._fd).st_size, rest)
            self._keep_owner(fd)
            os.fsync(fd)
            os.replace(fresh, self._path)
        except BaseException:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        # The lock goes over to the file that has the name now, before the old one's is given up.
        os.close(self._fd)
        self._fd = fd
        folder_fd = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder_fd)
        finally:
            os.close(folder_fd)

    def _scratch(self) -> Path:
        """A new file beside this one, by a name that nobody else's has."""
        begins = f".dlq-{os.fstat(self._fd).st_ino}-"
        for left in self._path.parent.glob(f"{begins}*{SCRATCH}"):  # by a command that was killed: we have the lock
            left.unlink(missing_ok=True)
        fd, name = tempfile.mkstemp(SCRATCH, begins, self._path.parent)
        os.close(fd)
        return Path(name)

    def _keep_owner(self, fd: int) -> None:
        """The run must still be able to write the file, whoever calls the command."""
        old, new = os.fstat(self._fd), os.fstat(fd)
        if (old.st_uid, old.st_gid) == (new.st_uid, new.st_gid):
            return
        try:
            os.fchown(fd, old.st_uid, old.st_gid)
        except PermissionError:
            if old.st_uid != new.st_uid:
                raise SinkError(
                    f"{self._shown} belongs to user {old.st_uid}, who could not write it any more: "
                    "call dlq as that user"
                ) from None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _copy(source: BinaryIO, start: int, end: int, target: BinaryIO) -> None:
    source.seek(start)
    left = end - start
    while left > 0:
        block = source.read(min(left, shutil.COPY_BUFSIZE))  # type: ignore[attr-defined]
        if not block:
            raise SinkError(f"the file of dead letters became shorter while it was copied, at byte {source.tell():,}")
        target.write(block)
        left -= len(block)
