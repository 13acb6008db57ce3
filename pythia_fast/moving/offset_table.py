"""Which offset of the source became which offset of the target, kept on the disk.

Of each partition a list of runs: messages ``source_first`` .. ``source_last`` became ``target_first`` and so on. The
table is saved before the positions of the source are committed, so it knows of every message before them. Messages that
were mirrored twice, because a run was killed before it committed, are known by their later copy.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pythia_fast.brokers.checkpoint import sync_folder
from pythia_fast.brokers.locked_file import open_locked
from pythia_fast.brokers.sink_file import sync_data
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.private import make_private_folders
from pythia_fast.unreadable import UNREADABLE

Key = tuple[str, int]  #: topic and partition of the source
Told = tuple[str, int, int, int, int]  #: topic, partition, source_first, target_first, source_last

FROM_THE_START = -1
#: Runs of one partition that are kept; beyond them every second one of the older half is dropped, and what lay in it is
#: translated to the end of the run before it: a group then reads some messages again.
MOST_RUNS = 20_000
#: The file is written anew when it is so large, and twice as large as it was after that was done last.
REWRITE_BYTES = 4 << 20
PRIVATE_MODE = 0o600
#: In a line that says where a partition was begun; a topic's name has none.
BEGUN_COMMAS = 2


class Run(msgspec.Struct, array_like=True):
    """Consecutive messages, as far from each other in the target as in the source."""

    source_first: int
    target_first: int
    source_last: int

    @property
    def target_last(self) -> int:
        return self.target_first + self.source_last - self.source_first


@dataclass(slots=True)
class Translation:
    """What is known of one partition."""

    #: The position from which this table knows; what lies before it was mirrored without it.
    begun: int = FROM_THE_START
    runs: list[Run] = field(default_factory=list)

    def note(self, run: Run) -> None:
        """A run that is new, or an older one with another end."""
        runs = self.runs
        while runs and runs[-1].source_first >= run.source_first:
            runs.pop()
        if runs:
            last = runs[-1]
            last.source_last = min(last.source_last, run.source_first - 1)
            if run.target_first - run.source_first == last.target_first - last.source_first:
                last.source_last = run.source_last
                return
        runs.append(run)
        if len(runs) > MOST_RUNS:
            older = len(runs) // 2
            runs[:older] = runs[:older:2]

    def target(self, position: int) -> int | None:
        """Where a reader goes on that would go on at ``position`` in the source; None: the table does not know.

        No message at or behind ``position`` lies before it.
        """
        at = bisect_right(self.runs, position, key=lambda run: run.source_first) - 1
        if at < 0:
            known = self.runs and (self.begun == FROM_THE_START or position >= self.begun)
            return self.runs[0].target_first if known else None
        run = self.runs[at]
        return run.target_first + min(position, run.source_last + 1) - run.source_first


class OffsetTable:
    """The file at ``path``, held by this process alone. Any thread may call.

    Raises SinkError when the file cannot be written, or another mirror has it; SourceError for a file that is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._partitions: dict[Key, Translation] = {}
        #: What is to be written, in its order; of a run that was prolonged several times its last line.
        self._unsaved: dict[tuple[str, int, int | None], bytes] = {}
        try:
            make_private_folders(path.parent)
        except OSError as error:
            raise SinkError(
                f"cannot make {path.parent} for the table of offsets: {error.strerror}; choose another with --state-dir"
            ) from None
        self._fd = open_locked(str(path), PRIVATE_MODE)
        try:
            self._load()
        except BaseException:
            os.close(self._fd)
            raise
        self._rewrite()

    def knows(self, topic: str, partition: int) -> bool:
        """Whether anything is known of the partition."""
        with self._lock:
            return (topic, partition) in self._partitions

    def begin(self, topic: str, partition: int, position: int) -> None:
        """A partition that the table does not know is read from ``position`` on; FROM_THE_START: from its start."""
        with self._lock:
            self._partitions[topic, partition] = Translation(position)
            self._put((topic, partition, None), _line(topic, partition, position))

    def note(self, told: Iterable[Told]) -> None:
        """What was mirrored, oldest first."""
        with self._lock:
            for topic, partition, source_first, target_first, source_last in told:
                run = Run(source_first, target_first, source_last)
                line = _line(topic, partition, run.source_first, run.target_first, run.source_last)
                self._put((topic, partition, source_first), line)
                self._partitions.setdefault((topic, partition), Translation()).note(run)

    def target(self, topic: str, partition: int, position: int) -> int | None:
        """As Translation.target."""
        with self._lock:
            known = self._partitions.get((topic, partition))
            return known.target(position) if known is not None else None

    def save(self) -> None:
        """Return once everything that was noted is on the disk. Raises OSError."""
        with self._lock:
            if not self._unsaved:
                return
            content = b"".join(self._unsaved.values())
            try:
                _write(self._fd, content, self._end)
                sync_data(self._fd)
            except OSError:
                os.ftruncate(self._fd, self._end)
                raise
            self._end += len(content)
            self._unsaved.clear()
            if self._end > max(REWRITE_BYTES, 2 * self._rewritten):
                self._rewrite()

    def _put(self, key: tuple[str, int, int | None], line: bytes) -> None:
        self._unsaved.pop(key, None)  # what came between may have cut the run short
        self._unsaved[key] = line

    def close(self) -> None:
        """Let go of the file; what was not saved is not. May be called twice."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _load(self) -> None:
        content = _read(self._fd)
        whole = content.rfind(b"\n") + 1  # a killed run may have left half a line, of which nothing was committed
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                if line.count(b",") == BEGUN_COMMAS:
                    topic, partition, begun = msgspec.json.decode(line, type=tuple[str, int, int])
                    self._partitions[topic, partition] = Translation(begun)
                else:
                    topic, partition, *run = msgspec.json.decode(line, type=tuple[str, int, int, int, int])
                    self._partitions.setdefault((topic, partition), Translation()).note(Run(*run))
            except UNREADABLE as error:
                raise SourceError(
                    f"{self._path} line {number} is damaged ({error}): it says which offsets became which. Without the "
                    "file, groups are translated from here on only: move it away to go on so"
                ) from None

    def _rewrite(self) -> None:
        """Write the file as short as it can be: beside it first, since half of it would be a wrong table."""
        lines = []
        for (topic, partition), known in self._partitions.items():
            lines.append(_line(topic, partition, known.begun))
            lines += [
                _line(topic, partition, run.source_first, run.target_first, run.source_last) for run in known.runs
            ]
        content = b"".join(lines)
        beside = f"{self._path}.new"
        fd = open_locked(beside, PRIVATE_MODE)
        try:
            os.ftruncate(fd, 0)
            _write(fd, content, 0)
            sync_data(fd)
            os.replace(beside, self._path)
            sync_folder(str(self._path.parent))
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd
        self._end = self._rewritten = len(content)


def _line(*values: str | int) -> bytes:
    return msgspec.json.encode(values) + b"\n"


def _write(fd: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(fd, view, at)
        view = view[done:]
        at += done


def _read(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts = []
    at = 0
    while at < size and (part := os.pread(fd, min(size - at, 1 << 24), at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
