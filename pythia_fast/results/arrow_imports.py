"""What pyarrow imports when it is first used, which is no part of the call whose result needs it.

A first table has pyarrow import pandas, where that is installed, and a first filter its compute functions. On a busy
machine that takes seconds, in each process anew: counted for the call, it would cost rows that have done nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

#: Written without pyarrow (results/output_columns.py).
_OTHERS = ("numpy", "pandas", "polars")


def needs_arrow(result: Any) -> bool:
    """Whether pyarrow has a part in writing this result, as far as its type and those of a dict's columns tell."""
    values = result.values() if type(result) is dict else (result,)
    return any(_is_of_arrow(type(value)) for value in values)


def _is_of_arrow(kind: type) -> bool:
    library = kind.__module__.partition(".")[0]
    if library in _OTHERS:
        return False
    return library == "pyarrow" or hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")


def load_arrow() -> None:
    """Have it all imported. Where there is no pyarrow, whoever writes the result says so."""
    with contextlib.suppress(ImportError):
        import pyarrow as pa
        import pyarrow.compute

        pa.array([None])
