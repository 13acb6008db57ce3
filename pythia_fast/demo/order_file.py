"""Writes the demo's input: JSON orders, one a line, nine fields, 177 bytes on average.

Rows are made a chunk at a time. A chunk is a matrix of bytes with one line in each row, assembled column by
column; text of varying length is padded with NUL, and dropping the NULs leaves the lines. A chunk depends on
the seed and its own number only, so a run that was stopped goes on after the last whole chunk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes2D = NDArray[np.uint8]

#: Rows made at once. A chunk's matrix of some 19 MB stays in reach of the processor's caches.
CHUNK_ROWS = 100_000
LONGEST_LINE_BYTES = 1024  #: and more than that

FIRST_ORDER_ID = 900_000_001
FIRST_TS = 1_767_225_600_000  # 2026-01-01T00:00:00Z in milliseconds

SYMBOLS = ("AAPL", "MSFT", "NVDA", "AMZN", "GOOG", "META", "TSLA", "ORCL", "SAP", "ASML", "V", "MA", "JPM", "KO")
SIDES = ("buy", "sell")
VENUES = ("XNAS", "XNYS", "XLON", "XPAR", "XETR", "XTKS", "BATS")
NOTE_WORDS = ("limit", "day order", "desk 7", "client algo", "vwap", "iceberg", "rebalance", "hedge", "dark pool")
NOTES = tuple(" / ".join(words) for words in permutations(NOTE_WORDS, 3))

_DIGITS = np.arange(48, 58, dtype=np.uint8)


def _text(value: str, rows: int) -> Bytes2D:
    """The same text in every row."""
    return np.broadcast_to(np.frombuffer(value.encode(), np.uint8), (rows, len(value)))


def _choice(values: tuple[str, ...], picks: NDArray[np.integer]) -> Bytes2D:
    """One of several texts in each row, padded with NUL."""
    width = max(map(len, values))
    table = np.frombuffer(b"".join(value.encode().ljust(width, b"\0") for value in values), np.uint8)
    rows: Bytes2D = table.reshape(len(values), width)[picks]
    return rows


def _number(values: NDArray[np.integer], width: int, least: int = 1) -> Bytes2D:
    """Decimal digits, ``width`` of them; leading zeros beyond ``least`` digits become NUL."""
    digits = np.empty((len(values), width), np.uint8)
    rest = values.astype(np.uint64)
    for column in range(width - 1, -1, -1):
        quotient = rest // 10
        digits[:, column] = _DIGITS[rest - quotient * 10]
        rest = quotient
    for column in range(width - least):
        digits[values < 10 ** (width - 1 - column), column] = 0
    return digits


def order_lines(chunk: int, rows: int, seed: int) -> bytes:
    """The lines of one chunk, ``rows`` of them, at most `CHUNK_ROWS`; fewer rows are a prefix of more."""
    rng = np.random.default_rng((seed, chunk))
    full = CHUNK_ROWS
    first = chunk * CHUNK_ROWS
    # Steps are at most 4 ms, so a chunk that starts 4 ms a row later never goes back in time.
    ts = FIRST_TS + first * 4 + np.cumsum(rng.integers(0, 5, full))
    decimals = rng.integers(2, 5, full)
    fraction = _number(rng.integers(0, 10_000, full), 4, least=4)
    for kept in (2, 3):
        fraction[decimals == kept, kept:] = 0
    parts = [
        _text('{"order_id":', full),
        _number(FIRST_ORDER_ID + first + np.arange(full), 10),
        _text(',"customer_id":', full),
        _number(rng.integers(10_000, 10_000_000, full), 7),
        _text(',"symbol":"', full),
        _choice(SYMBOLS, rng.integers(0, len(SYMBOLS), full)),
        _text('","side":"', full),
        _choice(SIDES, rng.integers(0, len(SIDES), full)),
        _text('","price":', full),
        _number(rng.integers(5, 2500, full), 4),
        _text(".", full),
        fraction,
        _text(',"qty":', full),
        _number(rng.integers(1, 20_000, full), 5),
        _text(',"ts":', full),
        _number(ts, 13),
        _text(',"venue":"', full),
        _choice(VENUES, rng.integers(0, len(VENUES), full)),
        _text('","note":"', full),
        _choice(NOTES, rng.integers(0, len(NOTES), full)),
        _text(" #", full),
        _number(rng.integers(100, 1000, full), 3),
        _text('"}\n', full),
    ]
    padded = np.concatenate([part[:rows] for part in parts], axis=1).ravel()
    lines: bytes = padded[padded != 0].tobytes()
    return lines


def order_file_name(rows: int, seed: int) -> str:
    """The name under which the file of these rows is kept."""
    return f"orders-{rows}-seed{seed}.ndjson"


def is_whole(path: Path, rows: int) -> bool:
    """Whether the file ends with the last of so many orders: one that was cut does not.

    Raises OSError.
    """
    begins = b'{"order_id":%d,' % (FIRST_ORDER_ID + rows - 1)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_LINE_BYTES))
        lines = file.read().split(b"\n")
    return len(lines) > 1 and lines[-1] == b"" and lines[-2].startswith(begins)


def write_order_file(folder: Path, rows: int, seed: int = 1, tell: Callable[[int], None] | None = None) -> Path:
    """Make sure that the file of ``rows`` orders is in ``folder``, and return its path.

    A whole file is kept as it is, one that was cut is made anew, and one that another process is making is waited for.
    A part that an interrupted call left is continued. The file gets its name only when it is whole.

    Parameters:
        folder: where the file is kept; made when missing.
        rows: orders, at least 1.
        seed: the same seed and rows give the same bytes.
        tell: called with the rows written so far, after every chunk.

    Raises:
        ValueError: ``rows`` is less than 1.
        OSError: the folder cannot be written, or its disk is full; the part is kept.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / order_file_name(rows, seed)
    if whole.exists() and is_whole(whole, rows):
        return whole
    with _alone_in(folder):
        if not (whole.exists() and is_whole(whole, rows)):  # another process may have made it meanwhile
            _write_whole(whole, rows, seed, tell)
    return whole


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time makes files of orders in the folder: they would write into one part."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems of a network may lock no folder
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write_whole(whole: Path, rows: int, seed: int, tell: Callable[[int], None] | None) -> None:
    part, mark = whole.with_suffix(".part"), whole.with_suffix(".part-mark")
    chunks, size = _resume_point(part, mark)
    with part.open("r+b" if size else "wb") as file:
        file.truncate(size)
        file.seek(size)
        for chunk in range(chunks, -(-rows // CHUNK_ROWS)):
            count = min(CHUNK_ROWS, rows - chunk * CHUNK_ROWS)
            file.write(order_lines(chunk, count, seed))
            file.flush()
            # The mark follows the bytes that it vouches for, and is never seen half written.
            _replace_text(mark, json.dumps({"chunks": chunk + 1, "bytes": file.tell()}))
            if tell is not None:
                tell(chunk * CHUNK_ROWS + count)
        os.fsync(file.fileno())
    part.replace(whole)
    mark.unlink(missing_ok=True)


def _resume_point(part: Path, mark: Path) -> tuple[int, int]:
    """(whole chunks, their bytes) of the part, or (0, 0) when nothing of it can be trusted."""
    try:
        state = json.loads(mark.read_text())
        chunks, size = int(state["chunks"]), int(state["bytes"])
        return (chunks, size) if part.stat().st_size >= size else (0, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _replace_text(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
