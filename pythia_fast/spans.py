"""Spans: what each row of a batch has in the raw region, one value a row, made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy.typing as npt

S = TypeVar("S")


def nothing() -> None:
    """Where a row has none."""


class Spans(Sequence[S]):
    """Something that each row has in the raw region, made when it is asked for.

    ``size``: below 0 where a row has none, for which ``null`` makes the value.
    """

    __slots__ = ("_at", "_make", "_null", "_raw", "_size")

    def __init__(
        self,
        raw: memoryview,
        at: npt.NDArray[Any],
        size: npt.NDArray[Any],
        make: Callable[[memoryview], S],
        null: Callable[[], S],
    ) -> None:
        self._raw = raw
        self._at = at.tolist()
        self._size = size.tolist()
        self._make = make
        self._null = null

    def __len__(self) -> int:
        return len(self._at)

    @overload
    def __getitem__(self, index: int) -> S: ...
    @overload
    def __getitem__(self, index: slice) -> list[S]: ...
    def __getitem__(self, index: int | slice) -> S | list[S]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._span(self._at[index], self._size[index])

    def _span(self, at: int, size: int) -> S:
        return self._null() if size < 0 else self._make(self._raw[at : at + size])

    def __iter__(self) -> Iterator[S]:
        for at, size in zip(self._at, self._size, strict=True):
            yield self._span(at, size)

    def __repr__(self) -> str:
        return f"<{len(self)} values, made when asked for>"
