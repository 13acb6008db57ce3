"""A result without the records of rows that the handler itself gave back.

A handler marks rows by ``batch.reject`` or ``batch.retry`` and returns columns as long as the batch. The records of
rejected rows belong to the dead letters only, and those of rows to be handled again come with their next attempt.
A result of another length (handlers filter and explode) says itself what is to be sent, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_fast.runtime.outputs import columns_of


def without_rows(result: Any, rows: int, given_back: npt.NDArray[np.integer[Any]]) -> Any:
    """The result of a batch of ``rows`` rows without those whose indices are in ``given_back``.

    Raises HandlerError for what cannot be a result.
    """
    if result is None or not len(given_back):
        return result
    keep = np.ones(rows, np.bool_)
    keep[given_back] = False
    if isinstance(result, list | tuple):
        return _kept(result, keep) if len(result) == rows else result
    columns = columns_of(result)
    if any(not hasattr(column, "__len__") or len(column) != rows for column in columns.values()):
        return result
    return {name: _kept(column, keep) for name, column in columns.items()}


def _kept(column: Any, keep: npt.NDArray[np.bool_]) -> Any:
    """The entries of one column where ``keep`` holds, as a column of the same library."""
    library = type(column).__module__.partition(".")[0]
    if isinstance(column, np.ndarray) or library == "pandas":
        return column[keep]
    if library == "polars":
        import polars as pl

        return column.filter(pl.Series(keep))
    if library == "pyarrow":
        import pyarrow as pa

        return column.filter(pa.array(keep))
    if hasattr(column, "__array__") and not isinstance(column, Sequence):
        return np.asarray(column)[keep]
    return [item for item, kept in zip(column, keep.tolist(), strict=True) if kept]
