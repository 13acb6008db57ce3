"""What of a handler's result is sent on, and for which rows of its batch.

The records of rows that the handler itself gave back by ``batch.reject`` or ``batch.retry`` are left out: those of
rejected rows belong to the dead letters only, and those of rows to be handled again come with their next attempt.

| output_rows | a result as long as the batch      | a result of another length                                  |
|-------------|------------------------------------|-------------------------------------------------------------|
| "same"      | without the rows given back        | ResultError: nothing says which rows its records are of     |
| "any"       | without the rows given back        | as it is: the handler says itself what is to be sent        |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pythia_fast.columns import BytesColumn, StringColumn
from pythia_fast.errors import NoSinkError, ResultError
from pythia_fast.nested_columns import ListColumn, StructColumn
from pythia_fast.results.arrow_arrays import filtered
from pythia_fast.results.forwarding import Forwarded
from pythia_fast.results.given_items import given_items
from pythia_fast.results.outputs import columns_of, is_list, length_of
from pythia_fast.selection import BoolArray

if TYPE_CHECKING:
    from pythia_fast.registration import Handler


def rows_to_send(
    handler: Handler, result: Any, rows: int, given_back: npt.NDArray[np.integer[Any]]
) -> tuple[Any, BoolArray | None]:
    """(what is sent on of a result for ``rows`` rows, the rows of the batch that its records are of, in order).

    ``given_back``: indices of the rows that the handler rejected or asked for again. The rows are None where a
    record may be of any row. Raises ResultError for what cannot be a result, NoSinkError where there is no sink.
    """
    if result is None:
        return None, None
    if handler.sink is None:
        raise NoSinkError(
            f"handler {handler.name!r} returned a {type(result).__name__} but has no sink: "
            "give it one with sink=, or return None"
        )
    if isinstance(result, Forwarded):
        return result, np.ones(rows, np.bool_)
    listed = is_list(result)
    if isinstance(result, (list, tuple)) and type(result) not in (list, tuple):
        result = given_items(f"the returned {type(result).__name__}", result)  # once: it may differ from time to time
    columns = {} if listed else columns_of(result)
    length = len(result) if listed else length_of(columns)
    same = handler.output_rows == "same"
    if length != rows:
        if same:
            raise ResultError(
                f"handler {handler.name!r} got a batch of {rows} rows and returned {length}; return one row for each, "
                'or register it with output_rows="any" if it filters or explodes'
            )
        return (result if listed else columns), None
    keep = np.ones(rows, np.bool_)
    keep[given_back] = False
    if not listed:
        result = {name: _kept(column, keep) for name, column in columns.items()} if len(given_back) else columns
    elif len(given_back):
        result = _kept(result, keep)
    return result, keep if same else None


def _kept(column: Any, keep: npt.NDArray[np.bool_]) -> Any:
    """The entries of one column where ``keep`` holds, as a column of the same library."""
    library = type(column).__module__.partition(".")[0]
    if isinstance(column, np.ndarray) or library == "pandas":
        return column[keep]
    if isinstance(column, (StringColumn, BytesColumn, ListColumn, StructColumn)):
        return column.take(keep)
    if library == "polars":
        import polars as pl

        return column.filter(pl.Series(keep))
    if library == "pyarrow":
        import pyarrow as pa

        return filtered(pa, column, keep)
    if hasattr(column, "__array__") and not isinstance(column, Sequence):
        return np.asarray(column)[keep]
    return [item for item, kept in zip(column, keep.tolist(), strict=True) if kept]
