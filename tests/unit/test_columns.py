"""columns.py: strings and bytes as columns."""

from __future__ import annotations

import operator
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.columns import BytesColumn, StringColumn

TEXTS = st.lists(st.none() | st.text(max_size=6), max_size=40)


def string_column(values: list[str | None]) -> StringColumn:
    encoded = [(value or "").encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    bits = np.packbits([value is not None for value in values], bitorder="little") if None in values else None
    return StringColumn(offsets, np.frombuffer(b"".join(encoded) or b"\0", np.uint8), bits)


def bytes_column(*values: bytes) -> BytesColumn:
    return BytesColumn(np.cumsum([0, *map(len, values)], dtype=np.int32), np.frombuffer(b"".join(values), np.uint8))


@given(TEXTS)
def test_values_come_back(values: list[str | None]) -> None:
    column = string_column(values)
    assert len(column) == len(values)
    assert column.tolist() == values
    assert list(column) == values
    assert [column[i] for i in range(len(values))] == values
    assert [column[i - len(values)] for i in range(len(values))] == values
    assert column.valid.tolist() == [value is not None for value in values]
    assert column.lengths.tolist() == [len((value or "").encode()) for value in values]


@given(TEXTS, st.text(max_size=3))
def test_comparing_with_one_value(values: list[str | None], wanted: str) -> None:
    column = string_column(values)
    assert (column == wanted).tolist() == [value == wanted for value in values]
    assert (column != wanted).tolist() == [value != wanted for value in values]


@given(TEXTS, st.lists(st.text(max_size=2), max_size=20))
def test_isin_scans_for_few_and_hashes_for_many(values: list[str | None], wanted: list[str]) -> None:
    assert string_column(values).isin(wanted).tolist() == [value is not None and value in wanted for value in values]


@given(st.lists(st.tuples(st.none() | st.text(max_size=2), st.none() | st.text(max_size=2)), max_size=40))
def test_comparing_row_by_row(pairs: list[tuple[str | None, str | None]]) -> None:
    left, right = string_column([pair[0] for pair in pairs]), string_column([pair[1] for pair in pairs])
    assert (left == right).tolist() == [a is not None and a == b for a, b in pairs]
    assert (left != right).tolist() == [a is None or a != b for a, b in pairs]


@given(TEXTS, st.data())
def test_taking_rows(values: list[str | None], data: st.DataObject) -> None:
    column = string_column(values)
    mask = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    taken = column[np.array(mask, bool)]
    assert taken.tolist() == [value for value, wanted in zip(values, mask, strict=True) if wanted]
    assert column[::-2].tolist() == values[::-2]
    if values:
        indices = data.draw(st.lists(st.integers(-len(values), len(values) - 1), max_size=20))
        assert column.take(indices).tolist() == [values[i] for i in indices]


@given(TEXTS, st.data())
def test_a_window_looks_at_the_same_data(values: list[str | None], data: st.DataObject) -> None:
    column = string_column(values)
    begin = data.draw(st.integers(0, len(values)))
    end = data.draw(st.integers(begin, len(values)))
    window = column.window(begin, end)
    assert window.tolist() == values[begin:end]
    assert window.valid.tolist() == column.valid[begin:end].tolist()
    assert window.offsets[0] == 0
    assert len(window.data) == window.offsets[-1]
    assert not len(window.data) or np.shares_memory(window.data, column.data)


def test_what_does_not_fit_is_refused() -> None:
    column = string_column(["a", None])
    for index in (2, -3):
        with pytest.raises(IndexError):
            column[index]
        with pytest.raises(IndexError):
            column[[index]]
    with pytest.raises(IndexError):
        column[np.array([True])]
    with pytest.raises(TypeError):
        column[np.array(["a"])]
    with pytest.raises(ValueError, match="columns of 2 and 1 rows"):
        _ = column == string_column(["a"])
    with pytest.raises(TypeError, match="holds str, not bytes"):
        column.isin([b"a"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a list of values, not one str: put it in a list"):
        column.isin("a")
    with pytest.raises(TypeError):
        hash(column)


def test_comparing_with_none_tells_the_nulls() -> None:
    column = string_column(["a", None, ""])
    assert operator.eq(column, None).tolist() == [False, True, False]
    assert operator.ne(column, None).tolist() == [True, False, True]
    assert operator.eq(bytes_column(b"", b"a"), None).tolist() == [False, False]


@pytest.mark.parametrize("other", [5, np.int64(5), b"a", ["a", "b", ""], ("a",), pl.Series(["a", None, ""]), object()])
@pytest.mark.parametrize("compare", [operator.eq, operator.ne])
def test_comparing_with_what_is_no_text_is_refused(compare: Any, other: Any) -> None:
    told = f"a StringColumn is compared with str, None or a column of its kind, not with {type(other).__name__}; isin"
    with pytest.raises(TypeError, match=re.escape(told)):
        compare(string_column(["a", None, ""]), other)


def test_comparing_kinds_is_refused() -> None:
    for left, right in ((string_column(["a"]), bytes_column(b"a")), (bytes_column(b"a"), "a")):
        with pytest.raises(TypeError, match="a column of its kind, not with"):
            _ = left == right


def test_comparing_with_an_array_is_numpys() -> None:
    column = string_column(["a", None, ""])
    assert (column == np.array(["a", "b", "c"])).tolist() == [True, False, False]
    assert (column != np.array(["a", "b", ""], object)).tolist() == [False, True, False]


def test_numpy_forms() -> None:
    column = string_column(["a", None, ""])
    assert column.to_numpy().tolist() == ["a", None, ""]
    assert column.to_numpy().dtype == object
    assert np.asarray(column).tolist() == ["a", None, ""]
    assert np.asarray(string_column(["a", "bc"]), dtype="U2").tolist() == ["a", "bc"]
    if hasattr(np.dtypes, "StringDType"):
        texts = column.to_numpy(np.dtypes.StringDType(na_object=None))
        assert texts.tolist() == ["a", None, ""]
    with pytest.raises(ValueError, match="without a copy"):
        column.__array__(copy=False)
    assert repr(string_column(["a"] * 6)) == "<StringColumn of 6: ['a', 'a', 'a', 'a', 'a', ...]>"


def test_bytes() -> None:
    column = bytes_column(b"\0", b"", b"ab", b"\0")
    assert column.tolist() == [b"\0", b"", b"ab", b"\0"]
    assert (column == b"\0").tolist() == [True, False, False, True]
    assert (column == bytearray(b"ab")).tolist() == [False, False, True, False]
    assert (column != memoryview(b"")).tolist() == [True, False, True, True]
    assert column.isin([bytearray(b"ab"), memoryview(b"")]).tolist() == [False, True, True, False]  # type: ignore[list-item]
    assert column[1:3].tolist() == [b"", b"ab"]
    assert column[2] == b"ab"
    with pytest.raises(TypeError, match="holds bytes, not str"):
        column.isin(["a"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a list of values, not one bytes: put it in a list"):
        column.isin(b"ab")  # type: ignore[arg-type]
