"""Values of NumPy and pandas -> the Python values that msgspec knows, with instants in UTC as in columns of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

OUT_OF_RANGE = "the datetime lies outside the years 1 to 9999"
NO_LENGTH = "timedelta64 without a unit, or of months or years, has no fixed length"

#: What makes of a value of a subclass, which msgspec does not know, the same one of the class itself, whatever its own
#: methods say.
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
    (bytes, lambda value: b"".join((value,))),
)


def plain(value: Any) -> Any:
    """The ``enc_hook`` of msgspec. Raises TypeError for what has no form, ValueError for datetimes out of range."""
    if isinstance(value, (np.generic, np.ndarray)):
        names = value.dtype.names
        if (value.dtype.kind not in "mM" and names is None) or value is np.ma.masked:
            listed = value.tolist()
            if type(listed) is type(value):  # of more digits than a float of Python: it would come here for ever
                raise TypeError(f"{value.dtype} has no JSON or MessagePack form; a float64 has")
            return listed
        # The values of an array, and of a record, come here again, one by one.
        if value.ndim:
            return list(cast("Iterable[Any]", value))
        if names is not None:
            return {name: cast("Any", value)[name] for name in names}
        return (_instant if value.dtype.kind == "M" else _duration)(np.asarray(value))
    if isinstance(value, datetime.datetime):  # of a subclass: msgspec knows datetime itself
        return _datetime(value)
    if isinstance(value, datetime.timedelta):  # as of pandas
        return datetime.timedelta(value.days, value.seconds, value.microseconds)
    for kind, exact in _EXACT:
        if isinstance(value, kind):
            return exact(value)
    if type(value).__name__ == "NAType" and type(value).__module__.startswith("pandas."):
        return None
    raise TypeError(f"{type(value).__name__} has no JSON or MessagePack form")


def to_microseconds(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """(datetime64 of any unit as ``datetime64[us]``, where it is another instant); the same of timedelta64.

    NumPy wraps silently where a coarse unit reaches further than microseconds do; the way back shows it.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    converted = values.astype(f"{values.dtype.kind}8[us]")
    if np.datetime_data(values.dtype)[0] in ("us", "ns", "ps", "fs", "as", "generic"):
        return converted, np.zeros(values.shape, np.bool_)
    return converted, converted.astype(values.dtype).view(np.int64) != values.view(np.int64)


def _instant(value: npt.NDArray[Any]) -> datetime.datetime | None:
    converted, wrapped = to_microseconds(value)
    found: datetime.datetime | int | None = converted.item()
    if wrapped or isinstance(found, int):  # what Python's datetime does not reach
        raise ValueError(OUT_OF_RANGE)
    return found and found.replace(tzinfo=datetime.UTC)


def has_length(dtype: np.dtype[Any]) -> bool:
    """Whether a number of the timedelta64's unit says how long it is."""
    return np.datetime_data(dtype)[0] not in ("Y", "M", "generic")


def _duration(value: npt.NDArray[Any]) -> datetime.timedelta | None:
    if np.isnat(value):
        return None
    if not has_length(value.dtype):
        raise TypeError(NO_LENGTH)
    converted, wrapped = to_microseconds(value)
    if wrapped:
        raise ValueError("the timedelta is longer than 292,000 years")
    found: datetime.timedelta = converted.item()
    return found


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
