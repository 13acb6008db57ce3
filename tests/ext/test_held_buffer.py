"""ext/held_buffer.pyx: which memory is taken, and which is refused."""

from __future__ import annotations

import array

import numpy as np
import pytest

from pythia_fast._ext.held_buffer import HeldBuffer


@pytest.mark.parametrize(
    ("source", "item_bytes", "writable"),
    [
        (b"", 1, False),
        (b"abc", 1, False),
        (memoryview(b"abc")[1:], 1, False),
        (bytearray(3), 1, True),
        (np.zeros(0, np.uint32), 4, False),
        (np.arange(3, dtype=np.uint64), 8, True),
        (array.array("I", [1, 2]), 4, False),
    ],
)
def test_memory_in_one_piece_is_held(source: object, item_bytes: int, writable: bool) -> None:
    HeldBuffer(source, item_bytes, writable)  # type: ignore[arg-type]


def test_it_is_held_for_as_long_as_it_is_looked_at() -> None:
    source = bytearray(3)
    held = HeldBuffer(source)
    with pytest.raises(BufferError):
        source.append(0)
    del held
    source.append(0)


@pytest.mark.parametrize(
    ("source", "item_bytes", "writable", "error", "message"),
    [
        (np.zeros(3, np.uint32), 8, False, ValueError, "items of 4 bytes, where 8 are needed"),
        (np.zeros(3, np.uint32), 1, False, ValueError, "items of 4 bytes, where 1 are needed"),
        (np.zeros(6, np.uint8)[::2], 1, False, ValueError, "contiguous"),
        (b"abc", 1, True, BufferError, "not writable"),
        (None, 1, False, TypeError, "bytes-like object is required"),
        ("abc", 1, False, TypeError, "bytes-like object is required"),
    ],
)
def test_other_memory_is_refused(
    source: object, item_bytes: int, writable: bool, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        HeldBuffer(source, item_bytes, writable)  # type: ignore[arg-type]
