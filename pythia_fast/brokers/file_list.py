"""Files that are read to their ends, one after the other, in the order of their names."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_fast._ext.file_reader import ANEW
from pythia_fast.brokers.base import ReaderContext, Unread
from pythia_fast.brokers.checkpoint import FilePosition, identify, identity_of
from pythia_fast.brokers.checkpointed_reader import CheckpointedReader, Planned
from pythia_fast.brokers.file_rest import damage
from pythia_fast.brokers.named_files import find_in_folder, open_regular
from pythia_fast.errors import SourceError

if TYPE_CHECKING:
    from pythia_fast.brokers.file import FileConsumer


@dataclass(slots=True)
class _Waiting:
    """A file that is read later; it is not kept open, for there may be more of them than descriptors."""

    path: str
    entry: FilePosition  #: as it was planned: its name in the list, where to go on, and the bytes that it is known by
    replaced: bool

    def open(self) -> tuple[Planned, int]:
        """The file that was planned, which may have been rotated since, and the limit of what is read of it."""
        fd = open_regular(self._path_now())
        try:
            facts = os.fstat(fd)
            if identity_of(facts) != self.entry.identity:
                raise self._gone()
            position, limit = self.entry.position, self.entry.size
            if facts.st_size < limit or not self.entry.has_same_bytes(fd):
                if position < limit:
                    if facts.st_size < limit:
                        raise _shrank(self.path, limit)
                    raise _written_anew(self.path, self._unread, "before this run came to it")
                position, limit = 0, facts.st_size
        except BaseException:
            os.close(fd)
            raise
        return Planned(self.path, self.entry.path, fd, position, replaced=self.replaced), limit

    def _path_now(self) -> str:
        with suppress(FileNotFoundError):
            if identity_of(os.stat(self.path)) == self.entry.identity:
                return self.path
        path = find_in_folder(os.path.dirname(self.path), self.entry.identity)
        if path is None:
            raise self._gone()
        return path

    @property
    def _unread(self) -> int:
        return self.entry.size - self.entry.position

    def _gone(self) -> SourceError:
        return SourceError(
            f"{self.path} was moved away before this run came to it, and could not be found in "
            f"{os.path.dirname(self.path)}: {self._unread:,} bytes of it were not read. Move it back into "
            "that folder, under any name, and start again"
        )


def _written_anew(path: str, unread: int, when: str) -> SourceError:
    return SourceError(
        f"{path} was written anew {when}: {unread:,} bytes that it had were not read. If there is a copy of them, let "
        "another consumer_group read the copy; then start again"
    )


def _shrank(path: str, end: int) -> SourceError:
    return SourceError(f"{path} shrank while it was read: it ends before byte {end:,} now")


class ListReader(CheckpointedReader):
    """Files to their ends, one after the other: the list, and the ends, are those when the reader is opened."""

    def __init__(self, consumer: FileConsumer, context: ReaderContext) -> None:
        super().__init__(consumer, context)
        try:
            self._waiting = deque(self._plan())
        except BaseException:
            self.checkpoint.close()
            raise
        self._limit = 0  #: bytes that the file which is read had when the run began
        self._unread: tuple[Unread, ...] = ()
        self._total = sum(waiting.entry.size for waiting in self._waiting)
        self._skipped = sum(waiting.entry.position for waiting in self._waiting)

    def _plan(self) -> list[_Waiting]:
        """Every file is checked before the first is read."""
        waiting = []
        found = self.look()
        self.listed = set(found.values())
        for path in found:
            for file in self.plan(path, open_regular(path), self.consumer.start, self.listed):
                try:
                    entry = identify(file.name, file.fd, file.position)
                finally:
                    os.close(file.fd)
                waiting.append(_Waiting(file.path, entry, replaced=file.replaced))
        if not waiting:
            raise SourceError(f"no file matches {', '.join(self.consumer.paths)}")
        return waiting

    def serve(self) -> None:
        for index, position, done, shrunk, _error in self.native.states():
            if shrunk == ANEW:
                with self.lock:  # of what is in hand the position still moves on: it is from the file as it was
                    self.positions[index].forget_bytes()
                self.save_soon()
                raise _written_anew(self.paths[index], self._limit - position, "while it was read")
            if shrunk:
                raise _shrank(self.paths[index], max(position, self._limit))
            if done:
                self._let_go(index)
        if not self._waiting:
            self.native.exhausted()
            return
        waiting = self._waiting.popleft()
        file, self._limit = waiting.open()
        if file.position < waiting.entry.position:
            self.tell(
                f"{file.path} was written anew; the one before was read to its end, byte {waiting.entry.position:,}: "
                "reading the new one from its beginning"
            )
        self.take_up(file, last=True, limit=self._limit)

    def _let_go(self, index: int) -> None:
        """Its last record was appended: close it, and remember whether that was its end."""
        path, form = self.paths[index], self.consumer.format
        position, end, waiting = self.native.ends(index)
        damaged = damage(path, self.native.fd(index), position, waiting, form, self.context.max_payload_bytes)
        self.release(index, damaged=bool(damaged))
        with self.lock:
            entry = self.positions[index]
            if position == entry.size:
                entry.end = end
        self.save_soon()
        if damaged:
            self._unread = (*self._unread, Unread(waiting, damaged))
            self.tell(damaged)
        elif waiting:
            self.tell(
                f"{path} ends within a record: {waiting:,} bytes from byte {position:,} on wait for the "
                "rest of it, and are read by the next run that finds it whole"
            )

    def unread(self) -> Sequence[Unread]:
        return self._unread

    def progress(self) -> tuple[int, int]:
        return min(self._skipped + self.native.bytes_read, self._total), self._total
