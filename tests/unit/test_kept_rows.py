"""pythia_fast.runtime.kept_rows: what is sent on when a handler gave rows back."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pythia_fast.errors import HandlerError
from pythia_fast.runtime.kept_rows import without_rows
from pythia_fast.runtime.outputs import OutputEncoder

GIVEN_BACK = np.array([1, 3])
STRUCTURED = np.array([(i, i / 2) for i in range(5)], [("a", "i8"), ("b", "f8")])


def sent(result: Any) -> bytes:
    """The framed records of a result, as they would go to the sink."""
    region = bytearray(4096)
    encoded = OutputEncoder().encode(result, memoryview(region))
    assert encoded.done
    return bytes(region[: encoded.bytes])


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: {"a": np.array(rows), "b": np.array(rows) / 2},
        lambda rows: {"a": rows, "b": [row / 2 for row in rows]},
        lambda rows: {"a": pa.array(rows), "b": pa.chunked_array([[row / 2 for row in rows]])},
        lambda rows: {"a": pl.Series(rows), "b": pd.Series([row / 2 for row in rows])},
        lambda rows: pa.table({"a": rows, "b": [row / 2 for row in rows]}),
        lambda rows: pa.record_batch({"a": rows, "b": [row / 2 for row in rows]}),
        lambda rows: pl.DataFrame({"a": rows, "b": [row / 2 for row in rows]}),
        lambda rows: pd.DataFrame({"a": rows, "b": [row / 2 for row in rows]}, index=[9 - row for row in rows]),
        lambda rows: STRUCTURED[rows],
        lambda rows: [b"%d" % row for row in rows],
        lambda rows: tuple({"a": row} for row in rows),
    ],
)
def test_rows_given_back_are_not_sent(make: Any) -> None:
    assert sent(without_rows(make(list(range(5))), 5, GIVEN_BACK)) == sent(make([0, 2, 4]))


@pytest.mark.parametrize(
    "result",
    [None, {"a": np.arange(4)}, {"a": np.arange(6), "b": np.arange(6)}, [b"1", b"2"], {"a": np.arange(5), "b": [1]}],
)
def test_a_result_of_another_length_says_itself_what_is_sent(result: Any) -> None:
    assert without_rows(result, 5, GIVEN_BACK) is result


def test_nothing_given_back_changes_nothing() -> None:
    result = {"a": np.arange(5)}
    assert without_rows(result, 5, np.empty(0, np.int64)) is result


def test_masked_entries_stay_masked() -> None:
    column = np.ma.MaskedArray(np.arange(5), mask=[True, False, False, False, True])
    assert sent(without_rows({"a": column}, 5, GIVEN_BACK)).count(b"null") == 2


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(HandlerError, match="cannot return int"):
        without_rows(42, 5, GIVEN_BACK)
