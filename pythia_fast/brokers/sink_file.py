"""The file that a sink appends to: whole records only, whatever becomes of it meanwhile.

    look ─▶ write behind the end ─▶ sync ─▶ look again ─▶ the end moves on: the caller may report

A write or sync that fails leaves the end where it was, and is done again: a record is in the file whole or not at all,
and after a failed sync its pages may be gone, so nothing is trusted to be there: what was written since the last good
one is written again, for which ``fsync="interval"`` keeps it in memory.

Others may do to the file what they like. Where its name leads elsewhere (removed, renamed by who rotates, replaced),
the sink goes on in a file of that name; where it was cut, behind what is left; where it grew, behind that. The second
look is for what happens during the write: bytes that nobody finds under the name are never reported.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pythia_fast._ext.file_writer import whole_frames
from pythia_fast.brokers.checkpoint import sync_folder
from pythia_fast.brokers.locked_file import open_locked
from pythia_fast.errors import SinkError
from pythia_fast.private import PRIVATE_MODE, make_private_folders

Fsync = Literal["batch", "interval", "never"]
FSYNC_INTERVAL_S = 1.0
COPIED_BYTES = 1 << 20  #: of half a record, at a time
UNSYNCED_MOST_BYTES = 64 << 20  #: what is kept in memory until it is synced; beyond it a sync comes early
#: Does not wait for times of change; macOS has fsync only.
sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class SinkFile:
    """Used by one thread at a time. Its calls raise OSError, and SinkError where a file cannot be opened."""

    def __init__(self, path: str, *, lines: bool, fsync: Fsync, mode: int, log: Callable[[str], None]) -> None:
        """``lines``: NDJSON, not frames. ``mode``: of the file, where it is made. Raises SinkError, FileLockedError."""
        self._path = path
        self._absolute = os.path.abspath(path)  # looks go there, wherever the process has changed to
        self._lines = lines
        self._fsync = fsync
        self._mode = mode
        self._log = log
        self._fd, self._end = self._open(path)
        self._reach = self._end  # how far bytes of ours may stand: beyond _end while they are not whole or not synced
        self._identity = self.facts()
        self._synced = self._end
        self._unsynced: list[bytearray] = []  # fsync="interval": the bytes from _synced to _end
        self._distrusted = False  # a sync failed: the file may not hold them
        self._next_sync = time.monotonic() + FSYNC_INTERVAL_S
        self._told_growth = False

    def facts(self) -> os.stat_result:
        """Of the open file."""
        return os.fstat(self._fd)

    @property
    def unsynced_bytes(self) -> int:
        """What was written with ``fsync="interval"`` and is not synced yet."""
        return self._end - self._synced if self._fsync == "interval" else 0

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- writing ---------------------------------------------------------------------------------

    def append(self, parts: Sequence[bytearray]) -> None:
        """Write them; on return they stand under the file's name, and are as safe as ``fsync`` promises."""
        while True:
            self._heed_others()
            if self.sync_wait() == 0.0:  # also while the disk is full: what was written before is to be synced
                self.sync()
            end = self._end
            for part in parts:
                end += self._write_at(memoryview(part), end)
            if end == self._end:
                return
            if self._fsync == "batch":
                sync_data(self._fd)
            facts = self._facts_of_name()
            if facts is not None and os.path.samestat(facts, self._identity) and facts.st_size >= end:
                break
        if self._fsync == "interval":
            self._unsynced += parts
        self._end = end

    def sync_wait(self) -> float | None:
        """Seconds until written bytes are to be synced; None: there are none."""
        if self.unsynced_bytes == 0:
            return None
        if self.unsynced_bytes >= UNSYNCED_MOST_BYTES:
            return 0.0
        return max(0.0, self._next_sync - time.monotonic())

    def sync(self) -> None:
        """Bring what is written to the disk; after a failure the next call writes it again first."""
        if self.unsynced_bytes == 0:
            return
        if self._distrusted:
            at = self._synced
            for part in self._unsynced:
                at += self._write_at(memoryview(part), at)
        self._distrusted = True
        sync_data(self._fd)
        self._distrusted = False
        self._synced = self._end
        self._unsynced.clear()
        self._next_sync = time.monotonic() + FSYNC_INTERVAL_S

    def cut_back(self) -> None:
        """Take away what a failed call left behind the end. What others appended behind it is kept beside the file."""
        if self._reach == self._end:
            return
        if self.facts().st_size > self._reach:
            self._set_aside(self._fd, self._reach, "holds bytes of somebody else behind a write that failed")
        if self.facts().st_size > self._end:
            os.ftruncate(self._fd, self._end)
        self._reach = self._end

    def _write_at(self, part: memoryview, at: int) -> int:
        done = 0
        while done < len(part):
            done += os.pwrite(self._fd, part[done:], at + done)
            self._reach = max(self._reach, at + done)
        return done

    # -- what others do to the file ----------------------------------------------------------------

    def _facts_of_name(self) -> os.stat_result | None:
        """Of what bears the file's name now; None: nothing does."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.stat(self._absolute)
        return None

    def _heed_others(self) -> None:
        facts = self._facts_of_name()
        if facts is None or not os.path.samestat(facts, self._identity):
            self._go_on_under_the_name()
            return
        if self._reach > self._end:  # cutting back has failed, too
            self.cut_back()
            facts = self.facts()
        if facts.st_size > self._end:
            self._go_on_behind(facts.st_size)
        elif facts.st_size < self._end:
            self._heed_truncation(facts.st_size)

    def _go_on_under_the_name(self) -> None:
        """What is written to a file without a name is lost, and one that was renamed may be packed and removed."""
        self.sync()
        fd, end = self._open(self._absolute)
        where = f"the file that has it now, behind its {end:,} bytes" if end else "a new file"
        self._log(
            f"{self._path} was removed, renamed or replaced while it was written: the {self._end:,} bytes written "
            f"before are no longer under that name; writing goes on in {where}"
        )
        os.close(self._fd)
        self._fd = fd
        self._identity = self.facts()
        self._distrusted = False
        self._begin_at(end)

    def _go_on_behind(self, size: int) -> None:
        """Somebody else appended: their bytes stay, and are made whole, or the next record would be part of them."""
        before = self._end
        self.sync()  # what is not synced stands in one piece
        if not self._lines:
            end = self._cut_to_whole(self._fd, before)
        elif os.pread(self._fd, 1, size - 1) == b"\n":
            end = size
        else:
            end = size + self._write_at(memoryview(b"\n"), size)
        self._begin_at(end)
        if not self._told_growth:
            self._told_growth = True
            self._log(
                f"{self._path} grew from {before:,} to {size:,} bytes by somebody else while it was written; writing "
                "goes on behind that, now and whenever it happens again: give each writer its own file"
            )

    def _heed_truncation(self, size: int) -> None:
        """Somebody cut the file, as "copy and truncate" does when it rotates: behind what is left it goes on, and not
        at the old end, with a hole before it."""
        before, end = self._end, self._cut_to_whole(self._fd)
        self._unsynced.clear()
        self._distrusted = False
        self._begin_at(end)
        self._log(f"{self._path} was cut from {before:,} to {size:,} bytes by somebody else; writing goes on there")

    def _begin_at(self, end: int) -> None:
        self._end = self._reach = self._synced = end

    # -- opening ---------------------------------------------------------------------------------

    def _open(self, path: str) -> tuple[int, int]:
        """The file, locked, and the end of its last whole record."""
        made_in = []  # folders that get a name
        at = self._absolute
        while not os.path.exists(at):
            at = os.path.dirname(at)
            made_in.append(at)
        try:
            folder = Path(self._absolute).parent
            if self._mode == PRIVATE_MODE:
                make_private_folders(folder)
            else:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None
        fd = open_locked(path, self._mode)
        try:
            end = self._cut_to_whole(fd)
            if self._fsync != "never":
                self._sync_opened(fd, end, made_in)
            return fd, end
        except BaseException:
            os.close(fd)
            raise

    def _sync_opened(self, fd: int, end: int, made_in: Sequence[str]) -> None:
        for folder in made_in:
            try:
                sync_folder(folder)
            except OSError as error:  # not allowed to read it, or a file system that cannot: written it can be
                self._log(
                    f"cannot sync the folder {folder}: {error.strerror}; a crash of the machine soon after this can "
                    f"lose the name of {self._path}"
                )
        try:
            if self._fsync == "interval" and end:  # a killed run may have left what it had not synced yet
                sync_data(fd)
        except OSError as error:
            raise SinkError(
                f"cannot sync {self._path}: {error.strerror}; an earlier run's last second of it may be lost"
            ) from None

    def _cut_to_whole(self, fd: int, start: int = 0) -> int:
        """Where the last whole record ends, looked for from ``start`` on; half a one behind it is set aside."""
        end = whole_end(fd, lines=self._lines, start=start)
        if os.fstat(fd).st_size > end:
            self._set_aside(fd, end, "ended with half a record, left by a run that was killed or by somebody else")
        return end

    def _set_aside(self, fd: int, start: int, why: str) -> None:
        """Move the bytes from ``start`` on to another file beside this one: all of them, or none."""
        try:
            moved = _copy_behind(fd, start, f"{self._absolute}.partial", self._mode)
        except OSError as error:
            raise SinkError(
                f"cannot write {self._path}: it {why}, which cannot be moved to {self._path}.partial: {error.strerror}"
            ) from None
        os.ftruncate(fd, start)
        self._log(
            f"{self._path} {why}: {moved:,} bytes were moved to {self._path}.partial; "
            "rows that were not delivered are written again"
        )


def _copy_behind(fd: int, start: int, path: str, mode: int) -> int:
    """Append the bytes from ``start`` on to the file of that name: all of them, or none; how many they are."""
    aside = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    try:
        before, at = os.fstat(aside).st_size, start
        try:
            while chunk := os.pread(fd, COPIED_BYTES, at):
                at += os.write(aside, chunk)
            os.fsync(aside)  # before they are cut off where they stand
            if before == 0:
                with suppress(OSError):  # not allowed, or a file system that cannot: written they are
                    sync_folder(os.path.dirname(path))
        except OSError:
            os.ftruncate(aside, before)  # the next attempt copies all of them again
            raise
        return at - start
    finally:
        os.close(aside)


def whole_end(fd: int, *, lines: bool, start: int = 0) -> int:
    """Where the last whole record of an open file ends; ``start``: where one begins that is not looked at behind."""
    size = os.fstat(fd).st_size
    if size <= start:
        return size
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as content:
        if lines:
            return content.rfind(b"\n", start) + 1 or start
        with memoryview(content) as view, view[start:] as rest:
            return start + whole_frames(rest)
