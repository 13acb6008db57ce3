"""The search for the rows that raise, among rows of which it is known that some do. Pure: it knows rows by number.

Rows are handled in their order: what a call without an exception has seen is done. A span that raised is halved
until one row is left; where the first half goes well, the second is known to raise and is halved without being
called. Behind a row that raises, all the rest is tried in one call, since most such rows are alone in their batch;
where that raises too, in steps of twice the distance that there was between such rows so far, so that a batch of
nothing but such rows costs two calls a row and not a search each.
"""

from __future__ import annotations

from typing import Generic, TypeVar

E = TypeVar("E")


class Search(Generic[E]):
    """``next()`` says which rows to call, ``tell()`` what came of it, until ``next()`` says None.

    All rows together have raised already.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._done = 0  #: rows before this one are done, or found
        self._raises = rows  #: those from _done to here raise, or as many rows are to be tried next
        self._known = True  #: it is the former
        self._found = 0
        self._called = (0, 0)

    def next(self) -> tuple[int, int] | None:
        """The rows (begin, end) to call; None: all are done, or found."""
        if self._done == self._rows:
            return None
        size = self._raises - self._done
        end = self._done + max(1, size // 2) if self._known else self._raises
        self._called = (self._done, end)
        return self._called

    def tell(self, error: E | None) -> tuple[int, E] | None:
        """What the rows that ``next()`` named raised, None for nothing; a row that is found, and what it raised."""
        begin, end = self._called
        if error is not None:
            self._known, self._raises = True, end
            return self._find(begin, error) if end - begin == 1 else None
        self._done = end
        if self._known and end < self._raises:
            return None
        self._go_on()  # not what was known: it raised before, and does no more
        return None

    def _find(self, row: int, error: E) -> tuple[int, E]:
        self._found += 1
        self._done = row + 1
        self._go_on()
        return row, error

    def _go_on(self) -> None:
        step = self._rows if self._found <= 1 else max(1, 2 * self._done // self._found)
        self._raises = min(self._rows, self._done + step)
        self._known = False
