"""Files whose positions are kept: where to go on in each, found again under whatever name it has now."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_fast.brokers.base import ReaderContext
from pythia_fast.brokers.checkpoint import (
    HEAD_BYTES,
    Checkpoint,
    FilePosition,
    Identity,
    Tail,
    identify,
    identity_of,
    not_found,
    tail_of,
    written_anew,
)
from pythia_fast.brokers.file_place import file_place
from pythia_fast.brokers.file_reader import FileReader
from pythia_fast.brokers.known_files import KnownFiles, known_position
from pythia_fast.brokers.named_files import find_in_folder, last_record_end, open_regular, record_start
from pythia_fast.brokers.own_letters import OwnLetters
from pythia_fast.errors import SourceError

if TYPE_CHECKING:
    from pythia_fast.brokers.file import FileConsumer, Start

NO_LIMIT = 2**63 - 1


@dataclass(slots=True)
class Planned:
    """A file to read, open already."""

    path: str
    name: str  #: path in the list of files: where a rotated file was before
    fd: int
    position: int
    replaced: bool  #: another file bears its name: nothing more will be written to it


class CheckpointedReader(FileReader):
    """Files whose positions are kept."""

    def __init__(self, consumer: FileConsumer, context: ReaderContext, *, follow: bool = False) -> None:
        super().__init__(consumer, context, follow=follow)
        forget = consumer.start != "checkpoint"
        self.checkpoint = Checkpoint(context.state_dir, consumer.group(context.app, context.handler), forget=forget)
        self.lock = threading.Lock()  #: what is below: the intake thread, and the thread that commits
        self.known = KnownFiles(self.checkpoint.files)
        self.positions: dict[int, FilePosition] = {}  #: by partition index
        self.waiting: list[FilePosition] = []  #: files whose turn has not come
        self.listed: AbstractSet[Identity] = frozenset()
        self.last_tails: dict[int, Tail | None] = {}  #: of files that were closed: before the end of the last record
        self.told: set[str] = set()
        self._own_letters = OwnLetters(consumer.paths, context.letters)
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
            if own in self.context.written:
                raise SourceError(
                    f"{path} is written by a sink of the handler that would read it, for results or dead letters: it "
                    "would feed itself: write to a file that the source does not match"
                )
            for entry in self.known.named(path):
                if entry.identity == own:
                    if position is None:
                        self._pass_over(entry, "was written anew", written_anew)
                elif entry.identity in listed:
                    continue
                elif (rest := self._find(entry)) is not None:
                    rests.append(rest)
                    self._tell_between(entry, rest, own, listed)
                elif position is None and entry.position <= facts.st_size and entry.has_same_bytes(fd):
                    position = entry.position  # copied back, or another mount of the same files
                else:
                    self._pass_over(entry, "is another file now", not_found)
        except BaseException:
            for opened in (fd, *(rest.fd for rest in rests)):
                os.close(opened)
            raise
        return [*rests, Planned(path, path, fd, position or 0, replaced=False)]

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
        if entry.has_same_bytes(fd) and os.fstat(fd).st_size >= entry.position:
            return Planned(path, entry.path, fd, entry.position, replaced=True)
        os.close(fd)
        return None

    def _tell_between(self, entry: FilePosition, rest: Planned, own: Identity, listed: AbstractSet[Identity]) -> None:
        """Name the files that may have borne the name, and been renamed too, since the one that was read."""
        changed_ns = os.fstat(rest.fd).st_mtime_ns
        folder, name = os.path.split(entry.path)
        stem = name.partition(".")[0]
        between = []
        with os.scandir(folder) as siblings:
            for sibling in siblings:
                if sibling.name.startswith(stem) and sibling.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # it was removed meanwhile
                        facts = sibling.stat(follow_symlinks=False)
                        identity = identity_of(facts)
                        known = identity == own or identity in listed or identity in self.known
                        if facts.st_mtime_ns >= changed_ns and not known:
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
        for path in self.consumer.files():
            if path in self._own_letters:
                self.tell(f"{path} is left out: dead letters of this app are written there, and would feed themselves")
                continue
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

    def take_up(self, file: Planned, *, last: bool, limit: int = NO_LIMIT) -> int:
        """Announce the open file and read it from its position; its descriptor changes hands.

        A position within a record is behind one that was a row before it was whole: a line without a newline, or half a
        fixed record, which once was one. It is read from its beginning, and is a row again if it has grown.
        """
        try:
            begin = record_start(file.fd, file.position, self.consumer.format, self.consumer.record_bytes)
            # Under its name in the list: a run that ends before this file does must make the next one look for it.
            entry = identify(file.name, file.fd, file.position)
            index = self.announce(file.path)
            superseded = file.name if file.path == file.name else None
            with self.lock:
                self.known.forget(entry.identity, superseded)
                self.positions[index] = entry
                self.native.add(
                    file.fd, index, begin, last=last, final=file.replaced, limit=limit, handled=file.position
                )
        except BaseException:
            os.close(file.fd)
            raise
        return index

    def place(self, topic: str, partition: int, offset: int) -> str:
        entry = self.positions.get(partition) if self.consumer.format == "ndjson" else None
        return file_place(topic, offset, entry.identity if entry is not None else None)

    def release(self, index: int, *, damaged: bool = False) -> tuple[int, int, int]:
        """Close a file of which rows may still be in hand. ``damaged``: what was not read of it is yet to be mended.

        Returns the position that was read to, the end of the last record, and the bytes of an incomplete one behind it.
        """
        position, end, waiting = self.native.ends(index)
        with self.lock:
            fd = self.native.fd(index)
            entry = self.positions[index]
            entry.learn_head(fd, position if damaged else HEAD_BYTES)
            entry.size = os.fstat(fd).st_size
            self.last_tails[index] = tail_of(fd, end)
            self.native.remove(index)
        return position, end, waiting

    def _learn_tail(self, index: int, entry: FilePosition) -> None:
        """Know the file by the bytes before the position that is stored now."""
        if entry.tail is not None and entry.tail.end == entry.position:
            return
        if index not in self.last_tails:
            entry.learn_tail(self.native.fd(index))
        elif (last := self.last_tails[index]) is not None and last.end == entry.position:
            entry.tail = last

    def save_soon(self) -> None:
        """The next commit stores the positions, moved or not."""
        with self.lock:
            self._unsaved = True

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        with self.lock:
            for index, position in positions.items():
                entry = self.positions.get(index)
                if entry is not None and position > entry.position:
                    entry.position = position
                    self._unsaved = True
            for index, entry in list(self.positions.items()):
                if entry.finished and entry.identity not in self.listed:  # its position serves nobody
                    del self.positions[index]
                    self.last_tails.pop(index, None)
            if not self._unsaved:
                return ""
            for index, entry in self.positions.items():
                self._learn_tail(index, entry)
            try:
                self.checkpoint.save([*self.known, *self.positions.values(), *self.waiting])
            except SourceError as error:
                if wait:
                    raise
                if not self._save_fails:  # nothing is lost by waiting: a run that ends now reads some rows again
                    self.context.log(f"{error}; trying again")
                self._save_fails = True
            else:
                self._unsaved = self._save_fails = False
        return ""

    def close(self) -> None:
        super().close()
        self.checkpoint.close()
