"""Files that are read as they grow, as ``tail -F`` does, through every common way of rotating them.

    renamed, new file under the old name   the old one is read until it has not grown for ROTATION_GRACE_S, then the new
    ... and again before that              each new file is opened when it is seen, and read in its turn
    renamed within the glob                both are followed: a file is known by device and inode, not by name
    copied and truncated                   read again from the start, as a new partition index
    deleted                                read to its end, then let go

What a writer truncates away before it was read is lost to every reader; rename is the way to rotate without loss.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pythia_fast.brokers.base import ReaderContext
from pythia_fast.brokers.checkpoint import FilePosition, Identity, identify, identity_of
from pythia_fast.brokers.checkpointed_reader import CheckpointedReader, Planned
from pythia_fast.brokers.named_files import open_regular
from pythia_fast.descriptors import how_to_raise, room_for_files
from pythia_fast.errors import SourceError
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.brokers.file import FileConsumer, Start

ROTATION_GRACE_S = 1.0  #: a writer may keep writing to the renamed file until it has opened the new one


@dataclass(slots=True)
class _Followed:
    path: str
    identity: Identity
    size: int = -1  #: when last looked at
    grew_at: float = 0.0
    finishing: bool = False


@dataclass(frozen=True, slots=True)
class _Successor:
    """A file that is read once the one before it under its name is.

    ``entry``: for the checkpoint, so that the next run reads it in its turn, whatever its name is then.
    """

    fd: int
    entry: FilePosition

    @property
    def identity(self) -> Identity:
        return self.entry.identity


class TailReader(CheckpointedReader):
    """Every file kept open and read as it grows; serve() looks after names, every 100 ms when nothing comes.

    It does so less often where there are many files (ext/file_source.h), and saves the checkpoint once a look.
    """

    def __init__(self, consumer: FileConsumer, context: ReaderContext) -> None:
        super().__init__(consumer, context, follow=True)
        self._followed: dict[int, _Followed] = {}
        self._read: deque[FilePosition] = deque(maxlen=1000)  # files let go in this run, at the position that was read
        self._planned: list[Planned] = []
        self._behind: dict[str, deque[_Successor]] = {}  #: name -> files that bore it after the one that is followed
        try:
            found = self.look()
            listed = set(found.values())
            if room_for_files(len(found)) < len(found):
                raise SourceError(
                    f"{consumer.describe()}: {len(found):,} files are to be kept open while they are followed, and "
                    f"{how_to_raise(len(found))}"
                )
            for path in found:
                self._planned += self._plan(path, listed, consumer.start)
        except BaseException:
            self.close()
            raise

    def _plan(self, path: str, listed: AbstractSet[Identity], start: Start = "checkpoint") -> list[Planned]:
        """What to read for a name not met before: the file, and before it those it replaced while nobody watched."""
        try:
            fd = open_regular(path)
        except SourceError as error:
            self.tell(f"{error}; not followed")
            return []
        return self.plan(path, fd, start, listed, self._position_read(fd))

    def _position_read(self, fd: int) -> int | None:
        facts = os.fstat(fd)
        for entry in self._read:
            same = entry.identity == identity_of(facts)
            if same and facts.st_size >= entry.position and entry.has_same_bytes(fd):
                return entry.position
        return None

    def serve(self) -> None:
        for planned in self._take_planned():
            self._follow(planned)
        for index, position, done, shrunk, _error in self.native.states():
            if done:
                self._let_go(index)
            elif shrunk or not self.positions[index].has_same_bytes(self.native.fd(index)):
                self._read_again(index, position)
        found = self.look()
        self._recognise(found)
        now = time.monotonic()
        for index, file in self._followed.items():
            self._watch_rotation(index, file, found, now)
        self.listed = listed = set(found.values())
        self._keep_successors(found)
        names = {file.path for file in self._followed.values()}
        new = [path for path in dict.fromkeys((*self._behind, *found)) if path not in names]
        for path in new[: self._room(len(new), len(found))]:
            for planned in self._next(path, listed):
                self._follow(planned)
        # Before a row of a new file is read, let alone committed: after a kill the next run must know the files by more
        # than their names, and those whose turn has not come.
        self.commit({})
        self.native.attended()

    def _room(self, new: int, files: int) -> int:
        """How many of so many new files can be followed now; the others are when descriptors are free."""
        room = room_for_files(new) if new else 0
        if room < new:
            self.tell(f"new files are not followed until others are gone, for {how_to_raise(files)}")
        return room

    def _keep_successors(self, found: dict[str, Identity]) -> None:
        """Open what bears the name of a file that is still read: it may be renamed, too, before its turn comes."""
        followed = {file.identity for file in self._followed.values()}
        changed = False
        for path, waiting in list(self._behind.items()):
            others = {identity for name, identity in found.items() if name != path}
            for successor in [
                one for one in waiting if one.identity in others
            ]:  # renamed within the list: read as that
                waiting.remove(successor)
                os.close(successor.fd)
                changed = True
            if not waiting:
                del self._behind[path]
        for file in self._followed.values():
            identity = found.get(file.path)
            behind = self._behind.get(file.path, ())
            if identity is None or identity in followed or any(other.identity == identity for other in behind):
                continue
            try:
                fd = open_regular(file.path)
            except SourceError as error:
                self.tell(f"{error}; not followed")
                continue
            # What it is now, should it have been renamed since the look.
            successor = _Successor(fd, identify(file.path, fd, 0))
            if successor.identity in followed or any(other.identity == successor.identity for other in behind):
                os.close(fd)
            else:
                self._behind.setdefault(file.path, deque()).append(successor)
                changed = True
        if changed:  # the checkpoint is to know the successors: this run may be killed before their turn
            with self.lock:
                self.waiting = [one.entry for behind in self._behind.values() for one in behind]
            self.save_soon()

    def _next(self, path: str, listed: AbstractSet[Identity]) -> list[Planned]:
        """What to read next under this name: the file that came after the last one, or the one that bears it now."""
        behind = self._behind.get(path)
        if not behind:
            return self._plan(path, listed)
        fd = behind.popleft().fd
        if not behind:
            del self._behind[path]
        with self.lock:  # saved again once this one is taken up: until then its old entry counts
            self.waiting = [one.entry for others in self._behind.values() for one in others]
        return self.plan(path, fd, "checkpoint", listed, self._position_read(fd))

    def _take_planned(self) -> list[Planned]:
        planned, self._planned = self._planned, []
        return planned

    def _follow(self, planned: Planned) -> None:
        index = self.take_up(planned, last=planned.replaced)
        entry = self.positions[index]
        self.save_soon()
        self._followed[index] = _Followed(planned.path, entry.identity, finishing=planned.replaced)
        self.told.discard(f"waiting for {planned.path}")

    def missing(self, path: str) -> None:
        self.tell(Routine(f"waiting for {path}"))

    def _recognise(self, found: dict[str, Identity]) -> None:
        """Files that were renamed within the list keep their place under the new name."""
        names = {identity: path for path, identity in found.items()}
        for index, file in self._followed.items():
            if found.get(file.path) != file.identity and file.identity in names and not file.finishing:
                file.path = names[file.identity]
                with self.lock:
                    self.positions[index].path = file.path

    def _watch_rotation(self, index: int, file: _Followed, found: dict[str, Identity], now: float) -> None:
        facts = os.fstat(self.native.fd(index))
        if facts.st_size != file.size:
            file.size, file.grew_at = facts.st_size, now
            with self.lock:
                self.positions[index].size = facts.st_size
                self.positions[index].learn_head(self.native.fd(index))
        name_taken = file.path in found and found[file.path] != file.identity
        if (name_taken or facts.st_nlink == 0) and not file.finishing and now - file.grew_at >= ROTATION_GRACE_S:
            file.finishing = True
            self.native.finish(index)

    def _let_go(self, index: int) -> None:
        """Its last record was appended: close it, and remember it should its name turn up in the list."""
        position, end, _waiting = self.release(index)
        with self.lock:
            entry = self.positions[index]
            entry.end = end
            self._read.append(msgspec.structs.replace(entry, position=position, tail=self.last_tails[index]))
        self.save_soon()
        del self._followed[index]

    def _read_again(self, index: int, position: int) -> None:
        """The file was truncated and written anew."""
        file = self._followed.pop(index)
        self.context.log(
            Routine(f"{file.path} was truncated after byte {position:,} was read; reading it from its beginning")
        )
        fd = os.dup(self.native.fd(index))
        with self.lock:
            self.native.remove(index)
            del self.positions[index]
        self._follow(Planned(file.path, file.path, fd, 0, replaced=False))

    def close(self) -> None:
        for planned in self._take_planned():
            os.close(planned.fd)
        for successor in (one for behind in self._behind.values() for one in behind):
            os.close(successor.fd)
        self._behind.clear()
        super().close()
