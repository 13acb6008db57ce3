"""nested_columns.py: lists and the Structs inside them as columns."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.batch import Batch
from pythia_fast.nested_columns import ListColumn, StructColumn

from .test_columns import string_column


def int32(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


def bits(*values: int) -> npt.NDArray[np.uint8]:
    return np.packbits(values, bitorder="little")


def test_lists_of_numbers_are_slices_of_their_values() -> None:
    column = ListColumn(int32(0, 2, 2, 3), np.array([1.0, 2.0, 3.0]), bits(1, 0, 1))
    assert column.tolist() == [[1.0, 2.0], None, [3.0]]
    assert list(column) == column.tolist()
    assert np.shares_memory(column[0], column.values)
    assert column[1] is None
    assert column[-1].tolist() == [3.0]
    assert column.lengths.tolist() == [2, 0, 1]
    assert column.valid.tolist() == [True, False, True]
    assert len(column) == 3
    assert repr(column) == "<ListColumn of 3 over 3 values>"
    with pytest.raises(IndexError):
        column[3]


def test_lists_show_the_nulls_among_their_values() -> None:
    column = ListColumn(int32(0, 2, 3), np.array([1, 0, 3]), None, bits(1, 0, 1))
    assert column.tolist() == [[1, None], [3]]
    assert column[0] == [1, None]
    outer = ListColumn(int32(0, 0, 2), column)
    assert outer.tolist() == [[], [[1, None], [3]]]
    assert outer[1] == [[1, None], [3]]


def test_structs_in_lists() -> None:
    fields: dict[str, tuple[Any, Any]] = {
        "sku": (string_column(["a", "", "c"]), None),
        "n": (int32(1, 0, 3), bits(1, 0, 1)),
    }
    structs = StructColumn(fields, 3, bits(1, 1, 0))
    assert structs["n"].tolist() == [1, 0, 3]
    assert list(structs) == ["sku", "n"]
    assert len(structs) == 3
    assert structs.valid.tolist() == [True, True, False]
    assert structs.tolist() == [{"sku": "a", "n": 1}, {"sku": "", "n": None}, None]
    assert repr(structs) == "<StructColumn of 3: sku, n>"
    with pytest.raises(KeyError):
        structs["m"]
    assert StructColumn({}, 2, None).tolist() == [{}, {}]


class Item(msgspec.Struct):
    sku: str | None
    count: Annotated[int, np.int16] | None
    sizes: list[float] | None


class Row(msgspec.Struct):
    numbers: list[int]
    gaps: list[int | None] | None
    texts: list[str | None]
    lists: list[list[str]]
    items: list[Item | None] | None


NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=3)
ITEM = st.builds(
    Item,
    sku=st.none() | st.sampled_from(["a", "bc", ""]),
    count=st.none() | st.integers(-5, 5),
    sizes=st.none() | st.lists(st.sampled_from([0.5, 1.5]), max_size=2),
)
ROW = st.builds(
    Row,
    numbers=NUMBERS,
    gaps=st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3),
    texts=st.lists(st.none() | st.sampled_from(["x", "", "yz"]), max_size=3),
    lists=st.lists(TEXTS, max_size=2),
    items=st.none() | st.lists(st.none() | ITEM, max_size=3),
)


def check(column: ListColumn, expected: list[Any]) -> None:
    """All that a ListColumn tells of its rows."""
    assert isinstance(column, ListColumn)
    assert len(column) == len(expected)
    assert column.tolist() == list(column) == expected
    assert [None if row is None else list(row) for row in map(column.__getitem__, range(len(column)))] == expected
    assert column.valid.tolist() == [row is not None for row in expected]
    assert column.lengths.tolist() == [len(row or []) for row in expected]
    assert column.offsets.dtype == np.int32
    assert column.offsets.tolist() == np.cumsum([0, *(len(row or []) for row in expected)]).tolist()
    assert len(column.values) == column.offsets[-1]


@given(st.lists(ROW, max_size=12), st.data())
def test_rows_are_taken_as_numpy_takes_them(sent: list[Row], data: st.DataObject) -> None:
    batch = Batch.decode([msgspec.json.encode(row) for row in sent], Row)
    places = st.none() | st.integers(-15, 15)
    part = slice(data.draw(places), data.draw(places), data.draw(st.sampled_from([None, 1, 2, -1, -3])))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(sent), max_size=len(sent))), bool)
    indices = data.draw(st.lists(st.integers(-len(sent), len(sent) - 1), max_size=20)) if sent else []
    for name in batch.columns:
        values = [row[name] for row in msgspec.to_builtins(sent)]
        column = batch[name]
        check(column[part], values[part])
        check(column[mask], [value for value, wanted in zip(values, mask, strict=True) if wanted])
        check(column[indices], [values[i] for i in indices])
        check(column[1:][part], values[1:][part])  # a part of a part


def test_a_slice_looks_at_the_same_values() -> None:
    column = Batch.decode([b'{"v":[1,2]}', b'{"v":[]}', b'{"v":[3]}', b'{"v":[4,5]}'], Lists)["v"]
    part = column[1:3]
    assert part.values.tolist() == [3]
    assert np.shares_memory(part.values, column.values)
    assert np.shares_memory(part[1], column.values)
    assert not np.shares_memory(column[[1, 2]].values, column.values)
    assert column[3:1].tolist() == column[9:].tolist() == []


def test_a_row_of_texts_is_made_of_itself_alone() -> None:
    texts = string_column(["a", "b", "c"])
    texts.data = np.frombuffer(b"\xffbc", np.uint8)  # row 0 cannot be made
    column = ListColumn(int32(0, 1, 3), texts)
    assert column[1] == ["b", "c"]


def test_what_does_not_fit_a_list_column_is_refused() -> None:
    column = ListColumn(int32(0, 2, 3), np.arange(3))
    for wrong in ([2], [-3], np.array([True])):
        with pytest.raises(IndexError):
            column[wrong]
    with pytest.raises(TypeError):
        column[np.array(["a"])]
    huge = ListColumn(int32(0, 2**30), np.broadcast_to(np.int8(0), 2**30))
    with pytest.raises(ValueError, match="2 lists taken hold 2147483648 values"):
        huge[[0, 0]]


class Lists(msgspec.Struct):
    v: list[int]


def test_none_compares_with_the_nulls_and_nothing_else_is_compared() -> None:
    structs = StructColumn({"a": (np.array([1, 2]), None)}, 2, bits(1, 0))
    lists = ListColumn(int32(0, 1, 2), structs, bits(0, 1))
    for column, nulls in ((lists, [True, False]), (structs, [False, True])):
        assert (column == None).tolist() == nulls  # noqa: E711
        assert (column != None).tolist() == [not null for null in nulls]  # noqa: E711
        with pytest.raises(TypeError, match=rf"a {type(column).__name__} is compared with None only, not with list"):
            assert column == [1]
        with pytest.raises(TypeError, match="unhashable"):
            hash(column)
