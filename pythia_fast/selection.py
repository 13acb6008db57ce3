"""Which rows a mask, an index array or a validity bitmap names."""

from __future__ import annotations

import sys
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import MarkError, MarkIndexError

BoolArray = npt.NDArray[np.bool_]
L = TypeVar("L")


def bits_to_mask(bits: npt.NDArray[np.uint8] | None, n: int) -> BoolArray:
    """bool[n] of a validity bitmap; all True without one."""
    if bits is None:
        return np.ones(n, np.bool_)
    return np.unpackbits(bits, count=n, bitorder="little").view(np.bool_)


def bits_between(bits: npt.NDArray[np.uint8] | None, begin: int, end: int) -> npt.NDArray[np.uint8] | None:
    """The validity bitmap of the values from ``begin`` up to ``end``, as a new one."""
    if bits is None:
        return None
    first = begin >> 3
    values = np.unpackbits(bits[first:], count=end - 8 * first, bitorder="little")
    return np.packbits(values[begin & 7 :], bitorder="little")


def bits_at(bits: npt.NDArray[np.uint8] | None, n: int, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | None:
    """The validity bitmap of the values at ``indices`` of ``n``."""
    return None if bits is None else np.packbits(bits_to_mask(bits, n)[indices], bitorder="little")


def without_nulls(values: list[L], bits: npt.NDArray[np.uint8] | None) -> list[L]:
    """``values`` with None wherever the bitmap says null."""
    if bits is not None:
        for null in np.flatnonzero(~bits_to_mask(bits, len(values))).tolist():
            values[null] = cast("L", None)
    return values


def row_indices(rows: npt.ArrayLike, n: int, what: str = "a mask") -> npt.NDArray[np.int64]:
    """Indices of the rows that a bool mask of length n or an integer index array names; negative ones count from
    the end.

    Raises IndexError when mask or indices do not fit n rows, TypeError for anything else.
    """
    array = _unmasked(rows, what)
    if array.dtype == np.bool_:
        if array.shape != (n,):
            raise IndexError(f"{what} must be bool[{n}], one value a row, not {_shape(array)}")
        return np.flatnonzero(array)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise TypeError(f"{what} must be bool[{n}] or integer row indices, not {_shape(array)}")
    indices = np.atleast_1d(array)
    if (indices >= n).any() or (array.dtype.kind == "i" and (indices < -n).any()):
        raise IndexError(f"{what}: a row index is out of range for {n} rows")
    indices = indices.astype(np.int64)
    return np.where(indices < 0, indices + n, indices)


def marked_rows(rows: npt.ArrayLike, n: int, what: str) -> npt.NDArray[np.int64]:
    """``row_indices`` for rows that are given up or put off: numbers that look like a mask are none of the two.

    Indices that name each row once, as [0] does in a batch of one row, are taken for indices. Raises MarkIndexError in
    place of IndexError, MarkError in place of TypeError.
    """
    try:
        array = _unmasked(rows, what)
    except TypeError as error:
        raise MarkError(*error.args) from None
    numbers = array.shape == (n,) and array.dtype.kind in "iu"
    if numbers and ((array == 0) | (array == 1)).all() and not np.array_equal(np.sort(array), np.arange(n)):
        raise MarkError(
            f"{what} is {_shape(array)} of nothing but 0 and 1, which reads as a mask but would name rows 0 and 1: "
            "give bool values (.astype(bool)) for a mask, and each row once for indices"
        )
    try:
        return row_indices(array, n, what)
    except TypeError as error:
        raise MarkError(*error.args) from None
    except IndexError as error:
        raise MarkIndexError(*error.args) from None


def _unmasked(rows: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    """``rows`` as an array. Raises TypeError for a masked one that hides some: what they hold was not meant."""
    ma = sys.modules.get("numpy.ma")  # none can be masked where nobody has imported it, which takes its time
    if ma is not None and isinstance(rows, ma.MaskedArray) and ma.getmaskarray(rows).any():
        raise TypeError(f"{what} is a masked array that hides some of its values: .filled(False) takes those for False")
    return np.asarray(rows)


def _shape(array: npt.NDArray[Any]) -> str:
    if array.ndim:
        return f"{array.dtype}[{', '.join(map(str, array.shape))}]"
    return type(array.item()).__name__ if array.dtype == object else f"one {array.dtype}"
