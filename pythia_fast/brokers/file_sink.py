"""Files as a sink: NDJSON, length-prefixed MessagePack or whole records, appended by one thread a file.

    publish() ─▶ queue ─▶ writer thread: all that waits ─▶ one write ─▶ one fsync ─▶ deliveries()

Records are written from the shared memory that holds them, and count as delivered once they are as safe as
``fsync`` promises. A write or sync that fails is cut back to the last good end and done again, for ever: a record
is in the file whole or not at all, and after a failed sync its pages may be gone, so nothing is trusted to be there:
what was written since the last good one is written again, for which ``fsync="interval"`` keeps it in memory.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from pythia_fast import options
from pythia_fast._ext.file_writer import payload_bytes, whole_frames
from pythia_fast.brokers.base import Delivery, FailedRecord, Publisher, PublisherContext, Sink
from pythia_fast.brokers.checkpoint import sync_folder
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.named_files import STDIN
from pythia_fast.errors import ConfigError, SinkError
from pythia_fast.options import named_options

FileSinkFormat = Literal["ndjson", "msgpack-frames", "records"]
Fsync = Literal["batch", "interval", "never"]
FSYNC_INTERVAL_S = 1.0
UNSYNCED_MOST_BYTES = 64 << 20  #: what is kept in memory until it is synced; beyond it a sync comes early
#: Does not wait for times of change; macOS has fsync only.
sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
#: Of a file that is made; the process's umask takes away from it.
SHARED_MODE = 0o644


class FileLockedError(SinkError):
    """Another sink or run writes the file."""


class FileProducer(Sink):
    """Appends to a file.

    ``format``: ``"ndjson"`` (each payload a line), ``"msgpack-frames"`` (payload size u32 little endian, payload) or
    ``"records"`` (key, headers and payload; a null payload too). Keys and headers have no place in the first two and
    are dropped.
    ``fsync``: ``"batch"``: a record is delivered once it is on the disk (one fsync for all that waits);
    ``"interval"``: once it is written; an fsync follows within a second (sooner after 64 MiB), and while it fails what
    was written since the last one is kept, written again and synced before anything else, so a crash of the machine,
    not of the process, can lose what was written since the last good fsync; ``"never"``: the system decides when.

    Raises ConfigError, UnknownOptionError; open() raises SinkError when the file cannot be written by this run alone.
    """

    @named_options("FileProducer")
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: FileSinkFormat = "ndjson",  # noqa: A002 - the word for it
        fsync: Fsync = "batch",
    ) -> None:
        self.path = options.path("FileProducer", "path", path)
        if self.path == STDIN:
            raise ConfigError(
                'FileProducer: path="-" means standard input where files are read, and a run prints its own lines on '
                'standard output: name a file ("./-" is a file called "-")'
            )
        options.choice("FileProducer", "format", format, get_args(FileSinkFormat))
        options.choice("FileProducer", "fsync", fsync, get_args(Fsync))
        self.format = format
        self.fsync = fsync
        self.takes_places = format == "records"

    def open(self, context: PublisherContext) -> FilePublisher:
        return FilePublisher(self, context.log)

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.file_checkup import check_producer

        return check_producer(self, context)

    def describe(self) -> str:
        return f"file {self.path}"

    def file(self) -> str | None:
        return self.path

    def encoding(self) -> Literal["json", "msgpack"]:
        return "msgpack" if self.format == "msgpack-frames" else "json"


class _Batch(NamedTuple):
    records: memoryview
    n_records: int
    ticket: int


class FilePublisher(Publisher):
    def __init__(self, producer: FileProducer, log: Callable[[str], None], mode: int = SHARED_MODE) -> None:
        """``mode``: of the file, where it is made. Raises SinkError, FileLockedError."""
        self._path = producer.path
        self._mode = mode
        self._form = producer.format
        self._lines = producer.format == "ndjson"
        self._fsync = producer.fsync
        self._log = log
        self._fd, self._end = self._open()
        self._synced = self._end
        self._unsynced: list[bytearray] = []  # fsync="interval": the bytes from _synced to _end
        self._distrusted = False  # a sync failed: the file may not hold them
        self._next_sync = time.monotonic() + FSYNC_INTERVAL_S
        self._changed = threading.Condition()  # guards what is below
        self._queue: deque[_Batch] = deque()
        self._delivered: list[Delivery] = []
        self._trouble: str | None = None
        self._failure: BaseException | None = None
        self._closing = False
        self._giving_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink {self._path}", daemon=True)
        self._thread.start()

    # -- the completion thread -------------------------------------------------------------------

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        with self._changed:
            self._queue.append(_Batch(records, count, ticket))
            self._changed.notify_all()

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        with self._changed:
            if timeout > 0:
                self._changed.wait_for(lambda: self._delivered or self._failure, timeout)
            if self._failure is not None:
                raise SinkError(f"the writer of {self._path} stopped: {self._failure}") from self._failure
            delivered, self._delivered = self._delivered, []
            return delivered

    def trouble(self) -> str | None:
        return self._trouble

    def files(self) -> frozenset[tuple[int, int]]:
        facts = os.fstat(self._fd)
        return frozenset([(facts.st_dev, facts.st_ino)])

    def close(self, timeout: float) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)  # it ends by itself once all is written, and synced
        self._giving_up.set()
        self._thread.join(max(timeout, RETRY_MOST_S))
        if not self._thread.is_alive() and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- the writer thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        if self._fsync == "interval" and (trouble := self._retried(self._sync)) is not None:
            self._log(
                f"the last {self._end - self._synced:,} bytes of {self._path}, which count as delivered, could not be "
                f"synced before the run ended, so they can be lost: {trouble.strerror}"
            )

    def _turn(self) -> bool:
        """Write what waits, or sync what is due; False once there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, self._sync_wait())
            batches = list(self._queue)
            self._queue.clear()
            if not batches and self._closing:
                return False
        if batches:
            delivered = self._write(batches)
        else:
            delivered = []
            self._retried(self._sync)
        with self._changed:
            self._delivered += delivered
            self._changed.notify_all()
        return bool(delivered) or not self._giving_up.is_set()

    def _sync_wait(self) -> float | None:
        """Seconds until written bytes are to be synced; None: there are none."""
        if self._fsync != "interval" or self._synced == self._end:
            return None
        if self._end - self._synced >= UNSYNCED_MOST_BYTES:
            return 0.0
        return max(0.0, self._next_sync - time.monotonic())

    def _write(self, batches: Sequence[_Batch]) -> list[Delivery]:
        """Write all of them with one sync; nothing is delivered when the run ends before the trouble does."""
        parts, delivered = [], []
        for batch in batches:
            written, refused = payload_bytes(batch.records, batch.n_records, self._form)
            parts.append(written)
            failed = tuple(FailedRecord(index, reason) for index, reason in refused)
            delivered.append(Delivery(batch.ticket, failed))

        def append() -> None:
            self._heed_truncation()
            if self._sync_wait() == 0.0:  # also while the disk is full: what was written before is to be synced
                self._sync()
            end = self._end
            for part in parts:
                end += self._write_at(memoryview(part), end)
            if self._fsync == "batch" and end > self._end:
                sync_data(self._fd)
                self._synced = end
            elif self._fsync == "interval" and end > self._end:
                self._unsynced += parts
            self._end = end

        return delivered if self._retried(append) is None else []

    def _heed_truncation(self) -> None:
        """Somebody may have cut the file, as "copy and truncate" does when it rotates: behind what is left it goes on,
        and not at the old end, with a hole before it."""
        if (size := os.fstat(self._fd).st_size) >= self._end:
            return
        before, end = self._end, self._cut_to_whole(self._fd)
        self._end = self._synced = end
        self._unsynced.clear()
        self._distrusted = False
        self._log(f"{self._path} was cut from {before:,} to {size:,} bytes by somebody else; writing goes on there")

    def _write_at(self, part: memoryview, at: int) -> int:
        done = 0
        while done < len(part):
            done += os.pwrite(self._fd, part[done:], at + done)
        return done

    def _sync(self) -> None:
        """Bring what is written to the disk; after a failure the next call writes it again first."""
        if self._synced == self._end:
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

    def _retried(self, action: Callable[[], None]) -> OSError | None:
        """Do it until it works, or until the run ends: then its last error. What failed leaves the file as it was."""
        wait = RETRY_FIRST_S
        while True:
            try:
                action()
            except OSError as error:
                failure = error
                self._trouble = self._sentence(error)
            else:
                self._trouble = None
                return None
            self._cut_back()
            if self._giving_up.wait(wait):
                return failure
            wait = min(wait * 2, RETRY_MOST_S)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._end)
        except OSError as error:
            self._log(f"{self._path} has half a record behind byte {self._end:,}: {error.strerror}")

    def _sentence(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"disk full: {self._path} cannot grow; trying again until there is room"
        return f"cannot write {self._path}: {error.strerror}; trying again"

    # -- opening ---------------------------------------------------------------------------------

    def _open(self) -> tuple[int, int]:
        """The file, locked, and the end of its last whole record."""
        made_in = []  # folders that get a name
        at = os.path.abspath(self._path)
        while not os.path.exists(at):
            at = os.path.dirname(at)
            made_in.append(at)
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None
        fd = open_locked(self._path, self._mode)
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

    def _cut_to_whole(self, fd: int) -> int:
        """Cut off half a record that a killed run left; its bytes are kept beside the file."""
        end = whole_end(fd, lines=self._lines)
        half = os.fstat(fd).st_size - end
        if half:
            partial = f"{self._path}.partial"
            partial_fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, self._mode)
            with open(fd, "rb", closefd=False) as content, open(partial_fd, "ab") as aside:
                content.seek(end)
                shutil.copyfileobj(content, aside)
            os.ftruncate(fd, end)
            self._log(
                f"{self._path} ended with half a record, left by a run that was killed or by who truncated it: its "
                f"{half:,} bytes were moved to {partial}; rows that were not delivered are written again"
            )
        return end


def open_locked(path: str, mode: int = SHARED_MODE) -> int:
    """A descriptor of the file, made where there is none, and locked against every other writer until it is closed.

    Raises FileLockedError when another has it, SinkError when it cannot be written.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SinkError(f"cannot write {path}: it is not a plain file")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileLockedError(
                    f"{path} is being written by another sink or run: give each its own file"
                ) from None
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        # Between open and lock the last holder put another file in its place: what is written to this one is lost.
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def whole_end(fd: int, *, lines: bool) -> int:
    """Where the last whole record of an open file ends."""
    size = os.fstat(fd).st_size
    if size == 0:
        return 0
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as content:
        if lines:
            return content.rfind(b"\n") + 1
        with memoryview(content) as view:
            return whole_frames(view)
