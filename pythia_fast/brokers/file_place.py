"""Where in a file a byte is, as a person finds it."""

from __future__ import annotations

import os
from contextlib import suppress

from pythia_fast.brokers.checkpoint import Identity, identity_of

#: Lines are counted up to here: that takes about a hundredth of a second. Further on the byte has to do.
COUNTED_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20


def file_place(path: str, offset: int, lines_of: Identity | None) -> str:
    """``orders.ndjson:21 (byte 190)``; without the line where there are none, or too many before it.

    ``lines_of``: the file whose lines are counted, if it still has that name; None: it has none.
    """
    line = _line_at(path, offset, lines_of) if lines_of is not None else None
    return f"{path} byte {offset:,}" if line is None else f"{path}:{line:,} (byte {offset:,})"


def _line_at(path: str, offset: int, identity: Identity) -> int | None:
    if offset > COUNTED_BYTES:
        return None
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        if identity_of(os.fstat(file.fileno())) != identity:
            return None
        line = 1
        while offset > 0 and (block := file.read(min(offset, BLOCK_BYTES))):
            line += block.count(b"\n")
            offset -= len(block)
        return line
    return None
