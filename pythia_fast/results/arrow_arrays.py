"""Arrays of pyarrow as one array in a plain layout, which its own functions and the writer of columns know.

``pa`` is the module, which whoever has such an array has imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_fast.results.arrow_types import types_inside
from pythia_fast.results.plain_values import in_utc


def plain_array(pa: Any, column: Any) -> Any:
    """An array or a ChunkedArray as one array of the values that it stands for.

    Of an extension type that is its storage; dictionaries and runs are decoded, views become offsets and data. What is
    inside of lists and structs stays as it is.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if isinstance(column, pa.ExtensionArray):
        return plain_array(pa, column.storage)
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _decoded(pa, column, column.dictionary, column.indices)
    if pa.types.is_run_end_encoded(kind):
        rows = np.arange(column.offset, column.offset + len(column))
        runs = np.searchsorted(column.run_ends.to_numpy(), rows, side="right")
        return _decoded(pa, column, column.values, pa.array(runs))
    if kind == pa.string_view():
        return column.cast(pa.large_string())
    if kind == pa.binary_view():
        return column.cast(pa.large_binary())
    return column


def _decoded(pa: Any, column: Any, values: Any, places: Any) -> Any:
    try:
        return plain_array(pa, values).take(places)
    except pa.ArrowNotImplementedError:  # values with views inside
        return column


def filtered(pa: Any, column: Any, keep: npt.NDArray[np.bool_]) -> Any:
    """The values of a column where ``keep`` holds, as one array."""
    column = plain_array(pa, column)
    try:
        return column.filter(pa.array(keep))
    except pa.ArrowNotImplementedError:  # views and runs inside; slices of them can be joined
        edges = np.flatnonzero(np.diff(keep, prepend=False, append=False)).tolist()
        kept = [column.slice(begin, end - begin) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
        return pa.concat_arrays(kept) if kept else column.slice(0, 0)


def python_values(pa: Any, column: Any) -> list[Any]:
    """One Python value a row, with the instants inside of lists, structs and maps in UTC, as in a column of them."""
    values: list[Any] = column.to_pylist()
    return in_utc(values) if _has_timestamps(pa, column.type) else values


def _has_timestamps(pa: Any, kind: Any) -> bool:
    return pa.types.is_timestamp(kind) or any(_has_timestamps(pa, inner) for inner in types_inside(pa, kind))
