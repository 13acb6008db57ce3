"""Files as a source: NDJSON, length-prefixed MessagePack or fixed records; globs, standard input, tailing.

A file is a partition, a byte offset a position. Files are read in the order of their names, one after the other
(brokers/file_list.py); with ``follow`` they are all kept open and read as they grow (brokers/tail.py).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pythia_fast import options
from pythia_fast._ext.file_reader import FORMATS
from pythia_fast.brokers.base import ReaderContext, Source
from pythia_fast.brokers.checkpoint import MOST_NAME_BYTES, too_long
from pythia_fast.brokers.checkup import CheckupContext, Findings
from pythia_fast.brokers.file_list import ListReader
from pythia_fast.brokers.file_reader import FileReader, StreamReader
from pythia_fast.brokers.file_sink import FileProducer
from pythia_fast.brokers.named_files import STDIN, is_stream, matching_files, stream_identity
from pythia_fast.brokers.tail import TailReader
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.options import named_options

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from pythia_fast.decoders import Decoding

__all__ = ["FileConsumer", "FileProducer"]

MAX_RECORD_BYTES = 2**32 - 1
Start = Literal["checkpoint", "beginning", "end"]


class FileConsumer(Source):
    """Reads files, or standard input.

    ``path``: a path, a glob (``**`` too), a list of them, or ``"-"`` for standard input.
    ``consumer_group``: whose positions these are; default: app and handler name.
    ``format``: ``"ndjson"`` (one payload a line; empty lines are skipped), ``"msgpack-frames"`` (payload size u32
    little endian, payload), ``"records"`` (what the command ``record`` writes: payload, key, headers and timestamp of a
    message each) or ``"fixed"`` (``record_size`` bytes each, or as long as ``dtype``).
    ``follow``: wait for what is appended, through rotation; new files of a glob are picked up.
    ``start``: ``"checkpoint"``: where the group stopped, a file it does not know from its beginning;
    ``"beginning"`` and ``"end"`` forget the checkpoint.

    Raises ConfigError, UnknownOptionError.
    """

    @named_options("FileConsumer")
    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        consumer_group: str | None = None,
        format: Literal["ndjson", "msgpack-frames", "fixed", "records"] = "ndjson",  # noqa: A002 - the word for it
        record_size: int | None = None,
        dtype: DTypeLike | None = None,
        follow: bool = False,
        start: Start = "checkpoint",
    ) -> None:
        where = "FileConsumer"
        takes = 'a path, a glob, a list of them, or "-" for standard input'
        paths = [path] if isinstance(path, str | os.PathLike) else list(options.items(where, "path", path, takes))
        self.paths = [options.path(where, "path", each, takes) for each in paths]
        if not self.paths:
            raise options.refusal(where, "path", path, takes)
        if STDIN in self.paths and len(self.paths) > 1:
            raise ConfigError('standard input, "-", cannot be read together with files')
        options.choice(where, "format", format, FORMATS)
        options.choice(where, "start", start, get_args(Start))
        options.flag(where, "follow", follow)
        if follow and STDIN in self.paths:
            raise ConfigError(
                'standard input, "-", is read until it ends, so there is nothing to follow: leave follow=True out'
            )
        if consumer_group is not None:
            takes = f"a name of 1 to {MOST_NAME_BYTES} bytes, percent-encoded"
            options.text(where, "consumer_group", consumer_group, takes, longest=MOST_NAME_BYTES)
        self.consumer_group = None if consumer_group is None else _file_group(consumer_group)
        self.format = format
        self.record_bytes, self._dtype = _record_layout(format, record_size, dtype)
        self.follow = follow
        self.start = start
        self.pace = 0.0  #: of records: times the speed at which their messages came; 0: as fast as they are taken

    def open(self, context: ReaderContext) -> FileReader:
        if self.record_bytes > context.max_payload_bytes:
            raise SourceError(
                f"{self.describe()}: a record of {self.record_bytes:,} bytes does not fit a batch of at most "
                f"{context.max_payload_bytes:,}; raise max_batch_bytes of the handler"
            )
        if self._reads_stream():
            if self.follow:
                raise SourceError(
                    f"{self.describe()}: a pipe is read until its writers close it, so there is nothing to follow: "
                    "leave follow=True out"
                )
            return StreamReader(self, context)
        if self.follow and context.until == "forever":
            return TailReader(self, context)
        return ListReader(self, context)

    def _reads_stream(self) -> bool:
        return self.paths == [STDIN] or any(is_stream(path) for path in self.paths)

    def group(self, app: str, handler: str) -> str:
        return self.consumer_group or f"{app}.{handler}"

    def as_group(self, group: str) -> FileConsumer:
        other = copy.copy(self)
        other.consumer_group = _file_group(group)
        return other

    def checkpoint_group(self, app: str, handler: str) -> str | None:
        return None if self._reads_stream() else self.group(app, handler)

    def byte_stream(self) -> tuple[Hashable, str] | None:
        if self.paths == [STDIN]:
            return stream_identity(0) or STDIN, "standard input"
        known_by = stream_identity(self.paths[0]) if len(self.paths) == 1 else None
        return None if known_by is None else (known_by, self.paths[0])

    def checkup(self, context: CheckupContext) -> Findings:
        from pythia_fast.brokers.file_checkup import check_consumer

        return check_consumer(self, context)

    def record_dtype(self) -> np.dtype[Any] | None:
        return self._dtype

    def misread_by(self, decoding: Decoding) -> str | None:
        if self.format == "ndjson" and not decoding.reads_lines:
            right = 'format="fixed", dtype=' if decoding.name == "fixed" else 'format="msgpack-frames"'
            return (
                f'{self.describe()} is cut into payloads at newlines (format="ndjson"), which those of its decoder '
                f"({decoding.name}) may hold: give FileConsumer the format that the file has, {right}"
            )
        if self.format != "fixed" or decoding.name in ("raw", "verbatim"):
            return None
        told = decoding.schema.source if decoding.name == "fixed" else None
        if self._dtype is not None and told != self._dtype:
            read = f"decoder={told}" if told is not None else f"the decoder is {decoding.name}"
            return f"{self.describe()} has records of dtype={self._dtype}, and {read}: make them the same"
        if isinstance(told, np.dtype) and told.itemsize != self.record_bytes:
            return (
                f"{self.describe()} has records of record_size={self.record_bytes} bytes, and those of decoder= have "
                f"{told.itemsize}: make them the same"
            )
        return None

    def describe(self) -> str:
        what = "standard input" if self.paths == [STDIN] else ", ".join(self.paths[:3])
        more = f" and {len(self.paths) - 3} more" if len(self.paths) > 3 else ""
        return f"file {what}{more}" + (f" as group {self.consumer_group}" if self.consumer_group else "")

    def files(self) -> list[str]:
        """The files there are now, absolute and in order of their names."""
        return matching_files(self.paths)


def _file_group(name: str) -> str:
    """The name of a group, which must be able to name a file, too."""
    if why := too_long(name):
        raise options.refusal("FileConsumer", "consumer_group", name, why)
    return name


def _record_layout(
    format: str,  # noqa: A002
    record_size: int | None,
    dtype: DTypeLike | None,
) -> tuple[int, np.dtype[Any] | None]:
    """(bytes of a record, its layout if that is told)."""
    if format != "fixed":
        if record_size is not None or dtype is not None:
            raise ConfigError(f'record_size and dtype belong to format="fixed", not to format={format!r}')
        return 0, None
    if (record_size is None) == (dtype is None):
        raise ConfigError('format="fixed" needs either record_size= (bytes) or dtype=')
    layout = None
    if dtype is not None:
        try:
            layout = np.dtype(dtype)
        except Exception as error:  # NumPy looks into what it is given, and raises whatever it finds there
            takes = f"what numpy.dtype takes ({error})"
            raise options.refusal("FileConsumer", "dtype", dtype, takes) from None
        record_size = layout.itemsize
    size = options.whole("FileConsumer", "record_size", record_size, 1, MAX_RECORD_BYTES, "bytes")
    return size, layout
