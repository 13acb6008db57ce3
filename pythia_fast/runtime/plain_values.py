"""Values of NumPy and pandas -> the Python values that msgspec knows, with instants in UTC as in columns of them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

OUT_OF_RANGE = "the datetime lies outside the years 1 to 9999"


def plain(value: Any) -> Any:
    """The ``enc_hook`` of msgspec. Raises TypeError for what has no form, ValueError for datetimes out of range."""
    if isinstance(value, (np.generic, np.ndarray)):
        if value.dtype.kind != "M" or value is np.ma.masked:
            return value.tolist()
        # The values of an array come here again, one by one.
        return list(cast("Iterable[Any]", value)) if value.ndim else _instant(np.asarray(value))
    if isinstance(value, datetime.datetime):  # of a subclass: msgspec knows datetime itself
        return _datetime(value)
    raise TypeError(f"{type(value).__name__} has no JSON or MessagePack form")


def to_microseconds(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """(datetime64 of any unit as ``datetime64[us]``, where it is another instant).

    NumPy wraps silently where a coarse unit reaches further than microseconds do; the way back shows it.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    converted = values.astype("datetime64[us]")
    if np.datetime_data(values.dtype)[0] in ("us", "ns", "ps", "fs", "as", "generic"):
        return converted, np.zeros(values.shape, np.bool_)
    return converted, converted.astype(values.dtype).view(np.int64) != values.view(np.int64)


def _instant(value: npt.NDArray[Any]) -> datetime.datetime | None:
    converted, wrapped = to_microseconds(value)
    found: datetime.datetime | int | None = converted.item()
    if wrapped or isinstance(found, int):  # what Python's datetime does not reach
        raise ValueError(OUT_OF_RANGE)
    return found and found.replace(tzinfo=datetime.UTC)


def _datetime(value: datetime.datetime) -> datetime.datetime | None:
    """A ``pandas.Timestamp`` as one of the standard library; its NaT is None."""
    if value != value:
        return None
    try:
        same = datetime.datetime(
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond,
            value.tzinfo or datetime.UTC, fold=value.fold,
        )  # fmt: skip
        return same.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise ValueError(OUT_OF_RANGE) from None
