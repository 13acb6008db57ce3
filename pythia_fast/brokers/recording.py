"""Files of records as a whole: what is one, and which time they begin with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from pythia_fast.brokers.base import PLACED, RECORD_HEADER_BYTES
from pythia_fast.brokers.framing import FramedRecord, iterate_records

SIZE_BYTES = 4
#: A first record that is larger is not looked at as a whole.
LOOKED_AT_BYTES = 1 << 20


def begins_with_record(path: Path) -> bool:
    """Whether a file's first record is one, as far as can be told. Raises OSError."""
    with path.open("rb") as file:
        size = _size(file)
        if size is None or size < RECORD_HEADER_BYTES:
            return False
        if size > LOOKED_AT_BYTES or size > os.fstat(file.fileno()).st_size - SIZE_BYTES:
            # Too much to be looked at, or cut by a kill: a recording says in the head of each record that it is placed.
            head = file.read(RECORD_HEADER_BYTES)
            return len(head) == RECORD_HEADER_BYTES and bool(int.from_bytes(head[4:8], "little") & PLACED)
        return _record(file, size) is not None


def first_time_ms(path: Path) -> int:
    """The time of the first message that has one; -1: none of the first thousand has. Raises OSError."""
    with path.open("rb") as file:
        for _ in range(1000):
            size = _size(file)
            if size is None:
                return -1
            record = _record(file, size)
            if record is not None and record.place is not None and record.place.timestamp_ms >= 0:
                return record.place.timestamp_ms
    return -1


def _size(file: BinaryIO) -> int | None:
    head = file.read(SIZE_BYTES)
    return int.from_bytes(head, "little") if len(head) == SIZE_BYTES else None


def _record(file: BinaryIO, size: int) -> FramedRecord | None:
    """The record of so many bytes that follows; None where it is none, or too large to be looked at."""
    if size > LOOKED_AT_BYTES:
        file.seek(size, os.SEEK_CUR)
        return None
    content = file.read(size)
    if len(content) != size:
        return None
    try:
        records = list(iterate_records(content))
    except ValueError:
        return None
    return records[0] if len(records) == 1 else None
