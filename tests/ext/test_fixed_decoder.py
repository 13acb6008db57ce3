"""fixed_decoder.pyx against NumPy: the same records, the same values."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext.fixed_decoder import FixedDecoder
from pythia_fast._ext.plan import Plan
from pythia_fast.batch import Batch
from pythia_fast.errors import SchemaError
from pythia_fast.schema import describe

from .column_rows import rows_from_columns
from .guard import guarded_pages

ORDER = np.dtype(
    [
        ("order_id", "<u8"),
        ("symbol", "S8"),
        ("side", "?"),
        ("at", ">M8[ns]"),
        ("fill", [("price", ">f8"), ("qty", "<i4"), ("venue", "U4")]),
        ("levels", [("price", "<f4"), ("ids", ">u2", (2,))], (3,)),
        ("grid", "i1", (2, 3)),
        ("half", "f2"),
        ("tail", "V3"),
    ]
)
YEARS = {"s": 253402300800, "ms": 253402300800 * 10**3, "us": 253402300800 * 10**6, "ns": 2**63 - 1}


def decode(dtype: np.dtype[Any], payloads: list[bytes]) -> tuple[list[dict[str, Any]], list[str]]:
    batch = Batch.decode(payloads, decoder=dtype)
    return rows_from_columns(batch, dtype), [bad.reason for bad in batch.bad]


def plain(value: Any, dtype: np.dtype[Any]) -> Any:
    """A NumPy record as rows_from_columns shows it."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner = np.dtype((base, shape[1:])) if len(shape) > 1 else base
        return [plain(item, inner) for item in value]
    if dtype.names is not None:
        assert dtype.fields is not None
        return {name: plain(value[name], dtype.fields[name][0]) for name in dtype.names}
    if dtype.kind == "M":
        return int(value.astype("datetime64[us]").view(np.int64))
    if dtype.kind == "V":
        return value.tobytes()
    return value.item()


def scalars() -> st.SearchStrategy[Any]:
    order = st.sampled_from("<>")
    return (
        st.sampled_from(["?", "i1", "u1", "S1", "S5", "V4"])
        | st.tuples(order, st.sampled_from(["i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])).map("".join)
        | st.tuples(order, st.sampled_from(["U1", "U3", "M8[s]", "M8[ms]", "M8[us]", "M8[ns]"])).map("".join)
    )


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    def record(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        shape = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)
        field = inner | st.tuples(inner, shape).map(lambda pair: np.dtype((np.dtype(pair[0]), pair[1])))
        fields = st.lists(field, min_size=1, max_size=4)
        return st.tuples(fields, st.booleans()).map(
            lambda drawn: np.dtype([(f"f{i}", kind) for i, kind in enumerate(drawn[0])], align=drawn[1])
        )

    return record(st.recursive(scalars(), record, max_leaves=5))


def instants(values: Any) -> Any:
    """datetime64 of any byte order as writable int64."""
    return values.view(values.dtype.str.replace("M8", "i8").partition("[")[0])


def mend(dtype: np.dtype[Any], values: Any, data: Any) -> None:
    """Replace, in place, random bytes that are no datetime or no string by ones that are."""
    if dtype.names is not None:
        assert dtype.fields is not None
        for name in dtype.names:
            mend(dtype.fields[name][0].base, values[name], data)
    elif dtype.kind == "M":
        limit = YEARS[np.datetime_data(dtype)[0]]
        instants(values)[...] = data.draw(st.integers(-limit // 5, limit - 1) | st.just(-(2**63)))
    elif dtype.kind == "U":
        values[...] = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=dtype.itemsize // 4))


def representable(dtype: np.dtype[Any], values: Any) -> bool:
    """Whether every datetime lies in the years 1 to 9999 and every string is made of code points."""
    if dtype.names is not None:
        assert dtype.fields is not None
        return all(representable(dtype.fields[name][0].base, values[name]) for name in dtype.names)
    if dtype.kind == "M":
        unit = np.datetime_data(dtype)[0]
        lowest = -62135596800 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**6}[unit]
        found = instants(values).reshape(-1).tolist()
        return unit == "ns" or all(value == -(2**63) or lowest <= value < YEARS[unit] for value in found)
    if dtype.kind == "U":
        codes = np.frombuffer(values.tobytes(), dtype.byteorder + "u4").tolist()
        return all(code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF for code in codes)
    return True


@given(dtypes(), st.booleans(), st.data())
def test_records_of_any_layout(dtype: np.dtype[Any], mended: bool, data: Any) -> None:
    n = data.draw(st.integers(1, 3))
    size = n * dtype.itemsize
    memory = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    records = np.frombuffer(memory, dtype)
    if mended:
        mend(dtype, records, data)
    good = [representable(dtype, records[i : i + 1]) for i in range(n)]
    rows, bad = decode(dtype, [record.tobytes() for record in records])
    assert (len(rows), len(bad)) == (sum(good), n - sum(good))
    assert repr(rows) == repr([plain(record, dtype) for record, is_good in zip(records, good, strict=True) if is_good])
    if mended:
        assert all(good)


def order() -> np.ndarray[Any, np.dtype[Any]]:
    record = np.zeros(1, ORDER)
    record["order_id"], record["symbol"], record["side"] = 2**64 - 1, b"MSFT", True
    record["at"] = np.datetime64("2026-01-31T12:00:00.123456789")
    record["fill"]["price"], record["fill"]["qty"], record["fill"]["venue"] = 1.5, -7, "né€𝄞"
    record["levels"]["price"], record["levels"]["ids"] = [[0.5, 1.5, 2.5]], [[[1, 2], [3, 4], [65535, 0]]]
    record["grid"], record["half"], record["tail"] = [[[1, 2, 3], [-1, -2, -128]]], 0.1, b"a\0b"
    return record


def test_a_record_of_everything() -> None:
    rows, bad = decode(ORDER, [order().tobytes()] * 2)
    assert bad == []
    assert (
        rows
        == [
            {
                "order_id": 2**64 - 1,
                "symbol": b"MSFT",
                "side": True,
                "at": 1769860800123456,
                "fill": {"price": 1.5, "qty": -7, "venue": "né€𝄞"},
                "levels": [
                    {"price": 0.5, "ids": [1, 2]},
                    {"price": 1.5, "ids": [3, 4]},
                    {"price": 2.5, "ids": [65535, 0]},
                ],
                "grid": [[1, 2, 3], [-1, -2, -128]],
                "half": float(np.float16(0.1)),
                "tail": b"a\0b",
            }
        ]
        * 2
    )


def test_every_half_float_is_exact() -> None:
    dtype = np.dtype([("v", "f2")])
    halves = np.arange(1 << 16, dtype=np.uint16)
    batch = Batch.decode([half.tobytes() for half in halves], decoder=dtype)
    expected = halves.view(np.float16).astype(np.float32)
    finite = ~np.isnan(expected)
    assert batch["v"].dtype == np.float32
    assert (batch["v"].view(np.uint32)[finite] == expected.view(np.uint32)[finite]).all()
    assert np.isnan(batch["v"][~finite]).all()


@pytest.mark.parametrize("cut", [0, 1, -1])
def test_another_length_is_refused(cut: int) -> None:
    whole = order().tobytes()
    payloads = [whole, whole[: len(whole) + cut - 1] if cut < 1 else whole + b"x", b"", whole]
    rows, bad = decode(ORDER, payloads)
    assert len(rows) == 2
    assert rows[0] == rows[1]
    assert ["not one record long" in reason or "empty" in reason for reason in bad] == [True, True]


@pytest.mark.parametrize("unit", YEARS)
@pytest.mark.parametrize("byteorder", "<>")
def test_datetimes_outside_the_calendar_are_refused(unit: str, byteorder: str) -> None:
    dtype = np.dtype([("v", f"{byteorder}M8[{unit}]")])

    def payload(value: int) -> bytes:
        return struct.pack(f"{byteorder}q", value)

    rows, bad = decode(dtype, [payload(0), payload(-(2**63)), payload(-1)])
    assert bad == []
    assert [row["v"] for row in rows] == [0, -(2**63), -1 * {"s": 10**6, "ms": 10**3}.get(unit, 1)]
    if unit != "ns":  # every int64 of nanoseconds lies in the years 1677 to 2262
        first_wrong = YEARS[unit]
        rows, bad = decode(dtype, [payload(v) for v in (first_wrong - 1, first_wrong, 2**63 - 1, 1 - 2**63)])
        assert len(rows) == 1
        assert ["datetime" in reason for reason in bad] == [True] * 3


@pytest.mark.parametrize("code", [0xD800, 0xDFFF, 0x110000, 0xFFFFFFFF])
@pytest.mark.parametrize("byteorder", "<>")
def test_what_is_no_code_point_is_refused(code: int, byteorder: str) -> None:
    dtype = np.dtype([("v", f"{byteorder}U2")])
    rows, bad = decode(dtype, [struct.pack(f"{byteorder}II", 65, code), struct.pack(f"{byteorder}II", 65, 0x10FFFF)])
    assert [row["v"] for row in rows] == ["A\U0010ffff"]
    assert "a code point that is no character" in bad[0]
    assert "field v" in bad[0]
    assert "UTF-8" not in bad[0]


def test_floats_keep_their_bits() -> None:
    dtype = np.dtype([("v", ">f8")])
    values = [math.nan, -0.0, math.inf, 5e-324]
    batch = Batch.decode([struct.pack(">d", value) for value in values], decoder=dtype)
    assert batch["v"].tobytes() == np.array(values).tobytes()


def test_no_byte_outside_the_record_is_read() -> None:
    whole = order().tobytes()
    with guarded_pages() as guarded:
        assert Batch.decode([guarded.place(whole)], decoder=ORDER)["fill.venue"].tolist() == ["né€𝄞"]
        for cut in range(len(whole)):
            assert len(Batch.decode([guarded.place(whole[:cut])], decoder=ORDER)) == 0


def test_a_plan_of_something_else_is_refused() -> None:
    with pytest.raises(SchemaError, match="structured dtype"):
        FixedDecoder(Plan(None))
    with pytest.raises(SchemaError, match="from 1 byte"):
        FixedDecoder(Plan(describe(np.dtype([("v", "S0")]))))
