"""plan.pyx: the C structs hold what schema.py described, and a Layout's buffers never overlap."""

from __future__ import annotations

import pickle
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext.plan import Layout, Plan
from pythia_fast.schema import Fallback, Kind, describe


class Inner(msgspec.Struct, tag="inner", forbid_unknown_fields=True):
    a: Annotated[int, np.int16, msgspec.Meta(ge=1)] = -2
    b: str = "é"


class Row(msgspec.Struct, rename="camel"):
    row_id: int
    ok: bool | None
    inner: Inner | None
    items: list[list[Inner]]


def test_columns_read_back_as_described() -> None:
    plan = Plan(Row)
    assert plan.schema is describe(Row)
    for seen, spec in zip(plan.describe(), plan.schema.columns, strict=True):
        assert seen["kind"] == spec.kind
        assert (seen["nullable"], seen["optional"]) == (spec.nullable, spec.optional)
        assert (seen["width"], seen["n_children"], seen["end"]) == (spec.width, spec.n_children, spec.end)
        assert (seen["list"], seen["struct"]) == (spec.list, spec.struct)
        assert seen["bounds"] == (1 if spec.name.endswith(".a") else 0)


def test_structs_read_back_as_described() -> None:
    row, inner, listed = Plan(Row).describe_structs()
    assert [f["name"] for f in row["fields"]] == [b"rowId", b"ok", b"inner", b"items"]
    assert [f["fallback"] for f in row["fields"]] == [Fallback.REQUIRED] * 4
    assert [f["column"] for f in row["fields"]] == [0, 1, 2, 5]
    assert row["tag_field"] is None
    assert inner["tag_field"] == b"type"
    assert inner["tag"] == b"inner"
    assert inner["forbid_unknown"]
    assert [f["bits"] for f in inner["fields"]] == [0xFFFE, 0]
    assert [f["bytes"] for f in inner["fields"]] == [b"", "é".encode()]
    assert [f["column"] for f in inner["fields"]] == [3, 4]
    assert [f["column"] for f in listed["fields"]] == [8, 9]


def test_a_plan_pickles_by_its_schema() -> None:
    assert pickle.loads(pickle.dumps(Plan(Row))).describe() == Plan(Row).describe()


def test_a_plan_is_built_once() -> None:
    plan = Plan(Row)
    with pytest.raises(RuntimeError):
        plan.__init__(Row)  # type: ignore[misc]
    layout = Layout(plan, 1, 1)
    with pytest.raises(RuntimeError):
        layout.__init__(plan, 1, 1)  # type: ignore[misc]


LEAVES = st.sampled_from([bool, int, float, str, bytes, msgspec.Raw, Annotated[int, np.uint8]])


def _structs(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, min_size=1, max_size=3).map(
        lambda types: msgspec.defstruct("S", [(f"f{i}", t) for i, t in enumerate(types)])
    )


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = inner.map(lambda t: list[t])  # type: ignore[valid-type]
    optional = inner.filter(lambda t: t is not msgspec.Raw).map(lambda t: t | None)
    return lists | optional | _structs(inner)


TYPES = st.recursive(LEAVES, _wider, max_leaves=6)


@given(_structs(TYPES), st.integers(1, 5000), st.integers(1, 100_000), st.integers(0, 1000))
def test_buffers_are_aligned_disjoint_and_inside(struct: Any, capacity: int, raw_bytes: int, lines: int) -> None:
    layout = Layout(Plan(struct), capacity, raw_bytes, lines * 64)
    end = 0
    spans = []
    for column, spec in zip(layout.describe(), layout.plan.schema.columns, strict=True):
        values = column["capacity"]
        assert values == (capacity if spec.list < 0 else raw_bytes)
        assert (column["validity"] is not None) == spec.nullable
        assert (column["offsets"] is not None) == (spec.kind.variable or spec.kind is Kind.LIST)
        assert (column["data"] is not None) == (spec.kind.variable or spec.width > 0)
        if spec.nullable:
            spans.append((column["validity"], (values + 7) // 8))
        if column["offsets"] is not None:
            spans.append((column["offsets"], 4 * (values + 1)))
        if column["data"] is not None:
            assert column["data_bytes"] == (raw_bytes if spec.kind.variable else values * spec.width)
            spans.append((column["data"], column["data_bytes"]))
    for at, size in sorted(spans):
        assert at % 64 == 0
        assert at >= max(end, layout.base, 64)
        end = at + size
    assert end <= layout.base + layout.bytes


@pytest.mark.parametrize(
    ("capacity", "raw_bytes", "base"), [(0, 1, 0), (1, 0, 0), (1, 1, 8), (2**31, 1, 0), (1, 2**31, 0), (1, 1, -64)]
)
def test_sizes_out_of_range_are_refused(capacity: int, raw_bytes: int, base: int) -> None:
    with pytest.raises(ValueError):
        Layout(Plan(Row), capacity, raw_bytes, base)
