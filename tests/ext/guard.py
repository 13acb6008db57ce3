"""Payloads that end where readable memory ends: one byte too far is a segmentation fault."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_PROT_NONE = 0


class GuardedPages:
    """Pages of which the last may not be touched; ``place`` puts a payload right before it."""

    def __init__(self, pages: int = 2) -> None:
        self._size = (pages - 1) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._size + mmap.PAGESIZE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._protect(_PROT_NONE)

    def _protect(self, protection: int) -> None:
        if _libc.mprotect(self._address + self._size, mmap.PAGESIZE, protection):
            raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, payload: bytes) -> memoryview:
        """The payload as its last byte touches the guard. It stays until the next call."""
        at = self._size - len(payload)
        self._map[at : self._size] = payload
        return memoryview(self._map)[at : self._size]

    def open(self) -> None:
        """Make the last page readable again, so that the mapping can be freed."""
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)


@contextmanager
def guarded_pages(pages: int = 2) -> Iterator[GuardedPages]:
    guarded = GuardedPages(pages)
    try:
        yield guarded
    finally:
        guarded.open()
