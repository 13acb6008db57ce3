"""Files as a sink: NDJSON, length-prefixed MessagePack or whole records, appended by one thread a file.

    publish() ─▶ queue ─▶ writer thread: all that waits ─▶ one write ─▶ one fsync ─▶ deliveries()

Records are written from the shared memory that holds them, and count as delivered once they are as safe as
``fsync`` promises. A write or sync that fails is done again, for ever (sink_file.py).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from pythia_fast import options
from pythia_fast._ext.file_writer import payload_bytes
from pythia_fast.brokers.base import Delivery, FailedRecord, Publisher, PublisherContext, Sink
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.locked_file import SHARED_MODE
from pythia_fast.brokers.named_files import STDIN
from pythia_fast.brokers.sink_file import Fsync, SinkFile
from pythia_fast.errors import ConfigError, SinkError
from pythia_fast.options import named_options

FileSinkFormat = Literal["ndjson", "msgpack-frames", "records"]
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0


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
        self._form = producer.format
        self._log = log
        self._file = SinkFile(self._path, lines=producer.format == "ndjson", fsync=producer.fsync, mode=mode, log=log)
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
        facts = self._file.facts()
        return frozenset([(facts.st_dev, facts.st_ino)])

    def close(self, timeout: float) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)  # it ends by itself once all is written, and synced
        self._giving_up.set()
        self._thread.join(max(timeout, RETRY_MOST_S))
        if not self._thread.is_alive():
            self._file.close()

    # -- the writer thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        if self._file.unsynced_bytes and (trouble := self._retried(self._file.sync)) is not None:
            self._log(
                f"the last {self._file.unsynced_bytes:,} bytes of {self._path}, which count as delivered, could not be "
                f"synced before the run ended, so they can be lost: {trouble}"
            )

    def _turn(self) -> bool:
        """Write what waits, or sync what is due; False once there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, self._file.sync_wait())
            batches = list(self._queue)
            self._queue.clear()
            if not batches and self._closing:
                return False
        if batches:
            delivered = self._write(batches)
        else:
            delivered = []
            self._retried(self._file.sync)
        with self._changed:
            self._delivered += delivered
            self._changed.notify_all()
        return bool(delivered) or not self._giving_up.is_set()

    def _write(self, batches: Sequence[_Batch]) -> list[Delivery]:
        """Write all of them with one sync; nothing is delivered when the run ends before the trouble does."""
        parts, delivered = [], []
        for batch in batches:
            written, refused = payload_bytes(batch.records, batch.n_records, self._form)
            parts.append(written)
            failed = tuple(FailedRecord(index, reason) for index, reason in refused)
            delivered.append(Delivery(batch.ticket, failed))

        return delivered if self._retried(lambda: self._file.append(parts)) is None else []

    def _retried(self, action: Callable[[], None]) -> str | None:
        """Do it until it works, or until the run ends: then why it did not. What failed leaves the file as it was."""
        wait = RETRY_FIRST_S
        while True:
            try:
                action()
            except (OSError, SinkError) as error:
                failure = _reason(error)
                self._trouble = self._sentence(error)
            else:
                self._trouble = None
                return None
            try:
                self._file.cut_back()
            except OSError as error:
                self._log(f"{self._path} has half a record at its end: {error.strerror}")
            if self._giving_up.wait(wait):
                return failure
            wait = min(wait * 2, RETRY_MOST_S)

    def _sentence(self, error: OSError | SinkError) -> str:
        if isinstance(error, SinkError):  # it was moved away, and what has its name now cannot be opened
            return f"{error}; trying again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"disk full: {self._path} cannot grow; trying again until there is room"
        return f"cannot write {self._path}: {error.strerror}; trying again"


def _reason(error: OSError | SinkError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
