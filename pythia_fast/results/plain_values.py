"""Values of NumPy, pandas, polars -> the Python values that msgspec knows; instants in UTC as in columns of them."""

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


def polars_values(pl: Any, column: Any) -> list[Any]:
    """One Python value a row, with the instants inside of lists and structs in UTC, as in a column of them."""
    values: list[Any] = column.to_list()
    return in_utc(values) if _has_datetimes(pl, column.dtype) else values


def _has_datetimes(pl: Any, dtype: Any) -> bool:
    inside = [field.dtype for field in dtype.fields] if dtype == pl.Struct else [getattr(dtype, "inner", None)]
    return dtype == pl.Datetime or any(_has_datetimes(pl, inner) for inner in inside if inner is not None)


def in_utc(value: Any) -> Any:
    """A Python value of Arrow or polars, whose datetimes, in lists and dicts too, are instants: in UTC."""
    if isinstance(value, (list, tuple)):
        return [in_utc(item) for item in value]
    if isinstance(value, dict):
        return {name: in_utc(item) for name, item in value.items()}
    return _datetime(value) if isinstance(value, datetime.datetime) else value


def _datetime(value: datetime.datetime) -> datetime.datetime | None:
    """A datetime of any class, as ``pandas.Timestamp``, as one of the standard library in UTC; NaT is None."""
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
