"""The rows of a drill: the demo's orders, or samples of the user's own messages, repeated as often as is needed."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pythia_fast.brokers.file import FileConsumer
from pythia_fast.demo.order_file import write_order_file
from pythia_fast.drill.ledger import Keys, keys_of
from pythia_fast.drill.settings import InputFormat
from pythia_fast.errors import ConfigError
from pythia_fast.private import private_opener
from pythia_fast.registration import Handler

DEMO_ROWS = 200_000
LEAST_ROWS = 2_000  #: of a user's samples, which are repeated for it
REPEATED_BYTES = 64_000_000  #: of samples that are repeated, at most: few may be large
#: A batch is at most such a part of the rows: several must meet the fault, and more must go on beside them.
BATCHES = 32
_SIZE = struct.Struct("<I")


@contextlib.contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """What is written here goes there. Raises ConfigError where that is impossible: the disk is full, say."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write what a drill works with to {folder}: {error.strerror}; choose another folder with --output"
        ) from None


def demo_payloads(folder: Path, rows: int) -> list[bytes]:
    """Orders as the demo makes them, kept in the folder for the next drill. Raises ConfigError."""
    with written_to(folder):
        return write_order_file(folder, rows).read_bytes().splitlines()


def sample_payloads(handler: Handler, given: Path | None, given_format: InputFormat) -> list[bytes]:
    """The user's own messages: from the file that he gave, or those that the handler's source reads.

    Raises ConfigError where there are none.
    """
    if given is not None:
        if given_format == "ndjson" and not handler.decoding.reads_lines:
            raise ConfigError(
                f"handler {handler.name!r} decodes {handler.decoding.name}, whose payloads may hold newlines: give "
                "them as frames, with --input-format msgpack-frames"
            )
        paths, chosen = [str(given)], given_format
    elif isinstance(handler.source, FileConsumer) and handler.source.format in ("ndjson", "msgpack-frames"):
        paths = sorted(path for pattern in handler.source.paths for path in glob.glob(pattern, recursive=True))
        chosen = "ndjson" if handler.source.format == "ndjson" else "msgpack-frames"
    else:
        raise ConfigError(
            f"handler {handler.name!r} reads {handler.source.describe()}, which a drill leaves alone: give it messages "
            "of that kind with --input FILE, one a line (or --input-format msgpack-frames)"
        )
    try:
        found = [payload for path in paths for payload in payloads_of(Path(path).read_bytes(), chosen)]
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from None
    if not found:
        where = ", ".join(paths) or handler.source.describe()
        raise ConfigError(f"there is no message in {where}: give some with --input FILE")
    return found


def payloads_of(content: bytes, form: InputFormat) -> list[bytes]:
    """The messages in a file. Raises ConfigError for half a frame."""
    if form == "ndjson":
        return [line for line in content.split(b"\n") if line.strip()]
    found, at = [], 0
    while at < len(content):
        end = at + _SIZE.size
        size = _SIZE.unpack(content[at:end])[0] if end <= len(content) else 0
        if end + size > len(content):
            raise ConfigError(f"the input is no msgpack-frames: it ends within the frame at byte {at:,}")
        found.append(content[end : end + size])
        at = end + size
    return found


def rows_of_samples(payloads: Sequence[bytes]) -> int:
    """Rows of a drill for which nobody gave a number: each sample once, or more often."""
    mean_bytes = max(1.0, sum(map(len, payloads)) / len(payloads))
    return max(len(payloads), min(LEAST_ROWS, int(REPEATED_BYTES / mean_bytes)))


def repeated(payloads: Sequence[bytes], rows: int) -> Iterator[bytes]:
    """So many messages, the samples over and over."""
    return itertools.islice(itertools.cycle(payloads), rows)


def write_input(path: Path, payloads: Sequence[bytes], rows: int, form: InputFormat) -> Keys:
    """Write the rows to a file and return the position of each: the byte at which its record begins."""
    sizes = np.fromiter(map(len, repeated(payloads, rows)), np.int64, rows)
    with open(path, "wb", buffering=1 << 20, opener=private_opener) as file:
        for payload in repeated(payloads, rows):
            file.write(payload + b"\n" if form == "ndjson" else _SIZE.pack(len(payload)) + payload)
        file.flush()
        os.fsync(file.fileno())
    ends = np.cumsum(sizes + (1 if form == "ndjson" else _SIZE.size))
    return keys_of(0, np.concatenate([np.zeros(1, np.int64), ends[:-1]]))


def batch_size_for(handler: Handler, rows: int) -> int:
    """The handler's own, or less, so that there are batches enough."""
    return max(1, min(handler.batch_size, rows // BATCHES))
