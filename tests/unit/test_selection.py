"""selection.py: which rows a mask or an index array names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.errors import MarkError, MarkIndexError, ResultError
from pythia_fast.selection import bits_at, bits_between, bits_to_mask, marked_rows, row_indices


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([True, False, True], [0, 2]), ([-1, 0], [2, 0]), (1, [1]), ([], []), (np.array([2], np.uint64), [2])],
)
def test_row_indices(rows: Any, expected: list[int]) -> None:
    indices = row_indices(rows, 3)
    assert indices.tolist() == expected
    assert indices.dtype == np.int64


@pytest.mark.parametrize(
    "mask", [[0, 1, 0], np.array([1, 1, 1], np.uint8), [0, 0, 0, 1], [0, 0], np.array([1, 1]), [1]], ids=str
)
def test_numbers_that_look_like_a_mask_are_no_rows(mask: Any) -> None:
    with pytest.raises(MarkError, match=r"rows is .* of nothing but 0 and 1.*astype\(bool\)"):
        marked_rows(mask, len(mask), "rows")
    assert marked_rows(mask, 10, "rows").tolist() == list(mask)
    assert marked_rows(np.array(mask, bool), len(mask), "rows").tolist() == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("rows", [[True], [False] * 4, np.ones((3, 1), bool), [3], [0, -4]], ids=str)
def test_rows_that_do_not_fit_are_no_rows_of_a_part_either(rows: Any) -> None:
    with pytest.raises(
        MarkIndexError, match=r"rows.* must be bool\[3\]|rows: a row index is out of range for 3 rows"
    ) as no:
        marked_rows(rows, 3, "rows")
    assert isinstance(no.value, IndexError)
    assert isinstance(no.value, ResultError)


@pytest.mark.parametrize("rows", [[True, True, False], [0, 1, 1]], ids=["mask", "indices"])
def test_what_a_masked_array_hides_names_no_rows(rows: list[Any]) -> None:
    hidden = np.ma.masked_array(rows, [False, True, False])
    with pytest.raises(MarkError, match=r"rows is a masked array that hides .*\.filled\(False\)"):
        marked_rows(hidden, 3, "rows")
    with pytest.raises(TypeError, match="a mask is a masked array"):
        row_indices(hidden, 3)
    assert marked_rows(np.ma.masked_array([True, True, False]), 3, "rows").tolist() == [0, 1]


@pytest.mark.parametrize("indices", [[], [0], [0, 1], [1, 0]], ids=str)
def test_indices_of_each_row_are_no_mask(indices: list[int]) -> None:
    assert marked_rows(np.array(indices, np.int64), len(indices), "rows").tolist() == indices


@given(st.lists(st.booleans(), max_size=40), st.data())
def test_parts_of_a_validity_bitmap(valid: list[bool], data: st.DataObject) -> None:
    bitmap = np.packbits(np.array(valid, bool), bitorder="little")
    begin = data.draw(st.integers(0, len(valid)))
    end = data.draw(st.integers(begin, len(valid)))
    assert bits_to_mask(bits_between(bitmap, begin, end), end - begin).tolist() == valid[begin:end]
    places = data.draw(st.lists(st.integers(0, len(valid) - 1), max_size=20)) if valid else []
    found = bits_at(bitmap, len(valid), np.array(places, np.int64))
    assert bits_to_mask(found, len(places)).tolist() == [valid[place] for place in places]
    assert bits_between(None, 0, 3) is None
    assert bits_at(None, 3, np.array([1])) is None
