"""Files as a sink: NDJSON or length-prefixed MessagePack, appended by one thread a file.

    publish() ─▶ queue ─▶ writer thread: all that waits ─▶ one write ─▶ one fsync ─▶ deliveries()

Records are written from the shared memory that holds them, and count as delivered once they are as safe as
``fsync`` promises. A write or sync that fails is cut back to the last good end and done again, for ever: a record
is in the file whole or not at all, and after a failed sync its pages may be gone, so nothing is trusted to be there.
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
from pythia_fast.errors import SinkError
from pythia_fast.options import named_options

FileSinkFormat = Literal["ndjson", "msgpack-frames"]
Fsync = Literal["batch", "interval", "never"]
FSYNC_INTERVAL_S = 1.0
#: Does not wait for times of change; macOS has fsync only.
sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
#: Of a file that is made; the process's umask takes away from it.
SHARED_MODE = 0o644
PRIVATE_MODE = 0o600  #: of dead letters: whole messages, of which others need not know


class FileLockedError(SinkError):
    """Another sink or run writes the file."""


class FileProducer(Sink):
    """Appends to a file.

    ``format``: ``"ndjson"`` (each payload a line) or ``"msgpack-frames"`` (payload size u32 little endian, payload).
    Keys and headers have no place in either and are dropped.
    ``fsync``: ``"batch"``: a record is delivered once it is on the disk (one fsync for all that waits);
    ``"interval"``: once it is written, with an fsync every second, so a crash of the machine, not of the process, can
    lose the last second; ``"never"``: the system decides when.

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
        options.choice("FileProducer", "format", format, get_args(FileSinkFormat))
        options.choice("FileProducer", "fsync", fsync, get_args(Fsync))
        self.format = format
        self.fsync = fsync

    def open(self, context: PublisherContext) -> FilePublisher:
        return FilePublisher(self, context.log)

    def describe(self) -> str:
        return f"file {self.path}"

    def encoding(self) -> Literal["json", "msgpack"]:
        return "json" if self.format == "ndjson" else "msgpack"


class _Batch(NamedTuple):
    records: memoryview
    n_records: int
    ticket: int


class FilePublisher(Publisher):
    def __init__(self, producer: FileProducer, log: Callable[[str], None], mode: int = SHARED_MODE) -> None:
        """``mode``: of the file, where it is made. Raises SinkError, FileLockedError."""
        self._path = producer.path
        self._mode = mode
        self._lines = producer.format == "ndjson"
        self._fsync = producer.fsync
        self._log = log
        self._fd, self._end = self._open()
        self._synced = self._end
        self._next_sync = time.monotonic() + FSYNC_INTERVAL_S
        self._changed = threading.Condition()  # guards what is below
        self._queue: deque[_Batch] = deque()
        self._in_hand = False
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

    def close(self, timeout: float) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failure or not (self._queue or self._in_hand), timeout)
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
            if self._fsync != "never":
                self._retried(self._sync)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _turn(self) -> bool:
        """Write what waits, or sync what is due; False once there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, self._sync_wait())
            batches = list(self._queue)
            self._queue.clear()
            self._in_hand = bool(batches)
            if not batches and self._closing:
                return False
        if batches:
            delivered = self._write(batches)
        else:
            delivered = []
            self._retried(self._sync)
        with self._changed:
            self._delivered += delivered
            self._in_hand = False
            self._changed.notify_all()
        return bool(delivered) or not self._giving_up.is_set()

    def _sync_wait(self) -> float | None:
        """Seconds until written bytes are to be synced; None: there are none."""
        if self._fsync != "interval" or self._synced == self._end:
            return None
        return max(0.0, self._next_sync - time.monotonic())

    def _write(self, batches: Sequence[_Batch]) -> list[Delivery]:
        """Write all of them with one sync; nothing is delivered when the run ends before the trouble does."""
        parts, delivered = [], []
        for batch in batches:
            written, refused = payload_bytes(batch.records, batch.n_records, self._lines)
            parts.append(written)
            failed = tuple(FailedRecord(index, reason) for index, reason in refused)
            delivered.append(Delivery(batch.ticket, failed))

        def append() -> None:
            end = self._end
            for part in parts:
                end += self._write_at(memoryview(part), end)
            if self._fsync == "batch" and end > self._end:
                sync_data(self._fd)
                self._synced = end
            self._end = end

        if not self._retried(append):
            return []
        if self._fsync == "interval" and time.monotonic() >= self._next_sync:
            self._retried(self._sync)
        return delivered

    def _write_at(self, part: memoryview, at: int) -> int:
        done = 0
        while done < len(part):
            done += os.pwrite(self._fd, part[done:], at + done)
        return done

    def _sync(self) -> None:
        self._next_sync = time.monotonic() + FSYNC_INTERVAL_S
        if self._synced != self._end:
            sync_data(self._fd)
            self._synced = self._end

    def _retried(self, action: Callable[[], None]) -> bool:
        """Do it until it works; False: the run ended first. What failed leaves the file as it was before."""
        wait = RETRY_FIRST_S
        while True:
            try:
                action()
            except OSError as error:
                self._trouble = self._sentence(error)
            else:
                self._trouble = None
                return True
            self._cut_back()
            if self._giving_up.wait(wait):
                return False
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
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None
        fd = open_locked(self._path, self._mode)
        try:
            return fd, self._cut_to_whole(fd)
        except BaseException:
            os.close(fd)
            raise

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
                f"{self._path} ended with half a record, left by a run that was killed: its {half:,} bytes were "
                f"moved to {partial}, and its rows are written again"
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
