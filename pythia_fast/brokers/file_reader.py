"""What reads files: a native part over open descriptors, with a partition a file; and the one for streams.

Files whose positions are kept: brokers/checkpointed_reader.py.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pythia_fast._ext.file_reader import FileRecords
from pythia_fast.brokers.base import Partition, Reader, ReaderContext
from pythia_fast.brokers.file_place import file_place
from pythia_fast.brokers.named_files import STDIN
from pythia_fast.errors import SourceError
from pythia_fast.private import make_private_folders

if TYPE_CHECKING:
    from pythia_fast.brokers.file import FileConsumer


class FileReader(Reader):
    """What all three readers share: the native part, the partition table, failures."""

    native: FileRecords

    def __init__(self, consumer: FileConsumer, context: ReaderContext, *, follow: bool = False) -> None:
        self.consumer = consumer
        self.context = context
        try:
            self.native = FileRecords(
                consumer.format,
                max_payload_bytes=context.max_payload_bytes,
                record_bytes=consumer.record_bytes,
                follow=follow,
                pace=consumer.pace,
            )
        except OSError as error:  # no descriptor is left for what wakes it
            raise SourceError(f"cannot open {consumer.describe()}: {os.strerror(error.errno or 0)}") from None
        self.paths: list[str] = []  #: by partition index

    def announce(self, path: str) -> int:
        """Tell the runtime about one more file; returns its partition index."""
        index = len(self.paths)
        self.paths.append(path)
        self.context.listener.assigned([Partition(index, path, index)])
        return index

    def place(self, topic: str, partition: int, offset: int) -> str:
        return file_place(_shown(topic), offset, None)

    def failure(self) -> str:
        for index, position, _done, _shrunk, error in self.native.states():
            if error:
                return f"cannot read {_shown(self.paths[index])} at byte {position:,}: {os.strerror(error)}"
        return super().failure()

    def close(self) -> None:
        self.native.close()


def _shown(path: str) -> str:
    return "standard input" if path == STDIN else path


class StreamReader(FileReader):
    """Standard input, or a named pipe: read once, in order. Its position is not kept: a stream cannot go back."""

    def __init__(self, consumer: FileConsumer, context: ReaderContext) -> None:
        if len(consumer.paths) > 1:
            raise SourceError(f"{consumer.describe()}: a pipe cannot be read together with other files")
        super().__init__(consumer, context)
        spill_dir = context.state_dir / "spool"
        try:
            make_private_folders(spill_dir)
            with tempfile.TemporaryFile(dir=spill_dir) as spill:
                self.native.spill_to(os.dup(spill.fileno()))
        except OSError as error:
            self.native.close()
            raise SourceError(
                f"cannot keep oversize payloads in {spill_dir}: {error.strerror}; "
                "choose another folder with --state-dir"
            ) from None

    def spool_error(self) -> int:
        return self.native.spill_error()

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

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        """A stream has no position to come back to."""
        return ""
