"""outputs.py: columns and tables of pyarrow, polars and pandas."""

from __future__ import annotations

import datetime
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pythia_fast.errors import ResultError
from pythia_fast.results.plain_values import OUT_OF_RANGE
from tests.support.sent_rows import column, partly, records, rows

TEXT_LISTS = pa.array([["a"], None, ["b" * 40]], pa.list_(pa.string_view()))
RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3]), pa.array(["a", None], pa.string_view()))

ARROW = [
    (pa.array([1, None, 3], pa.int16()), [1, None, 3]),
    (pa.array([1.5, None, 2.5], pa.float16()), [1.5, None, 2.5]),
    (pa.array([True, None, False]), [True, None, False]),
    (pa.array(["a", None, "bé"]), ["a", None, "bé"]),
    (pa.array(["a", None, "bé"], pa.large_string()), ["a", None, "bé"]),
    (pa.array(["a", None, "b" * 40], pa.string_view()), ["a", None, "b" * 40]),
    (pa.array([b"a", None, b""], pa.binary()), ["YQ==", None, ""]),
    (pa.array([b"a", None, b""], pa.binary_view()), ["YQ==", None, ""]),
    (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    (pa.DictionaryArray.from_arrays([0, None, 1], pa.array(["a", "b"], pa.string_view())), ["a", None, "b"]),
    (pa.DictionaryArray.from_arrays([1, None, 1], TEXT_LISTS), [None, None, None]),
    (RUNS, ["a", "a", None]),
    (pa.array([[1], None, []]), [[1], None, []]),
    (pa.array([1, None], pa.timestamp("s", "Europe/Berlin")), ["1970-01-01T00:00:01Z", None]),
    (pa.array([1999, None, 2], pa.timestamp("ns")), ["1970-01-01T00:00:00.000001Z", None, "1970-01-01T00:00:00Z"]),
    (pa.array([1, None, 2], pa.date32()), ["1970-01-02", None, "1970-01-03"]),
    (pa.array([None, None, None]), [None, None, None]),
    (pa.chunked_array([["a"], ["b", None]]), ["a", "b", None]),
]


@pytest.mark.parametrize(("values", "expected"), ARROW, ids=lambda value: str(getattr(value, "type", "")))
def test_arrow_columns(values: Any, expected: list[Any]) -> None:
    assert column(values) == expected
    assert column(values.slice(1, 2)) == expected[1:]
    assert [row["v"] for row in rows(pa.table({"v": values}))] == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_far_arrow_timestamp_costs_its_row(unit: str) -> None:
    values = pa.array([0, 2**62, None, 0], pa.timestamp(unit))
    night = "1970-01-01T00:00:00Z"
    assert partly(values) == [night, OUT_OF_RANGE, None, night]
    assert partly(values.slice(1)) == [OUT_OF_RANGE, None, night]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0, 2**31 - 1, None], pa.date32()),
        pa.array([[0], [2**62], None], pa.list_(pa.timestamp("s"))),
        pl.Series([0, 2**31 - 1, None], dtype=pl.Int32).cast(pl.Date),
        pl.Series([[0], [2**62], None]).cast(pl.List(pl.Datetime("ms"))),
    ],
    ids=lambda values: str(getattr(values, "type", getattr(values, "dtype", None))),
)
def test_a_value_that_python_does_not_have_costs_its_row(values: Any) -> None:
    first, reason, last = partly(values)
    assert "1970-01-01" in str(first)
    assert reason
    assert last is None


def test_arrow_holders() -> None:
    batch = pa.record_batch({"a": [1, 2], "b": ["x", None]})
    expected = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]

    class Holder:
        def __arrow_c_array__(self, requested_schema: object = None) -> object:
            return batch.__arrow_c_array__(requested_schema)

    assert rows(batch) == expected
    assert rows(Holder()) == expected


def test_polars_frames() -> None:
    stamp = datetime.datetime(2026, 1, 31, 12, 0, 0, 5000)
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, None], dtype=pl.Int32),
            "f": [0.5, None],
            "b": [True, None],
            "s": ["é", None],
            "t": [stamp, None],
            "z": pl.Series([stamp, None], dtype=pl.Datetime("ns", "Europe/Berlin")),
            "d": [datetime.date(2026, 1, 31), None],
            "l": [[1, 2], None],
        }
    )
    assert rows(frame) == [
        {
            "i": 1, "f": 0.5, "b": True, "s": "é", "t": "2026-01-31T12:00:00.005000Z",
            "z": frame["z"].dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")[0],
            "d": "2026-01-31", "l": [1, 2],
        },
        dict.fromkeys(frame.columns),
    ]  # fmt: skip


def test_pandas_frames() -> None:
    frame = pd.DataFrame(
        {
            "i": [1, 2],
            "I": pd.array([1, None], "Int64"),
            "B": pd.array([True, None], "boolean"),
            "s": ["é", None],
            "c": pd.Categorical(["x", None]),
            "t": pd.to_datetime(["2026-01-31", None]),
            "z": pd.to_datetime(["2026-01-31T00:00:00+01:00", None], utc=True).tz_convert("Europe/Berlin"),
        },
        index=[7, 9],
    )
    assert rows(frame) == [
        {
            "i": 1, "I": 1, "B": True, "s": "é", "c": "x", "t": "2026-01-31T00:00:00Z", "z": "2026-01-30T23:00:00Z",
        },
        {"i": 2, "I": None, "B": None, "s": None, "c": None, "t": None, "z": None},
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_a_far_polars_datetime_costs_its_row(unit: Any) -> None:
    values = pl.Series([0, 2**62, None]).cast(pl.Datetime(unit))
    assert partly(values) == ["1970-01-01T00:00:00Z", OUT_OF_RANGE, None]


@pytest.mark.parametrize("dtype", ["Int128", "UInt128"])
def test_wide_polars_integers(dtype: str) -> None:
    if not hasattr(pl, dtype):
        pytest.skip("this polars has none")
    values = pl.Series([1, None, 2**70], dtype=getattr(pl, dtype))
    assert column(values) == [1, None, 2**70]
    assert [record.key for record in records({"v": [1, 2, 3], "__key__": values})] == [b"1", None, b"%d" % 2**70]


NIGHT = "2020-01-01T00:00:00Z"
EVE = datetime.datetime(2020, 1, 1)


def _nested_instants() -> list[Any]:
    naive, zoned = pa.timestamp("us"), pa.timestamp("us", "Europe/Berlin")
    arrow = [
        *(
            pa.array([[EVE]], kind)
            for kind in (pa.list_(naive), pa.list_(zoned), pa.large_list(naive), pa.list_(naive, 1))
        ),
        pa.array([{"at": [EVE]}], pa.struct({"at": pa.list_(naive)})),
        pa.array([[("at", EVE)]], pa.map_(pa.string(), naive)),
        pa.RunEndEncodedArray.from_arrays(pa.array([1]), pa.array([EVE], naive)),
        pa.DictionaryArray.from_arrays([0], pa.array([[EVE]], pa.list_(naive))),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([EVE], naive)]),
    ]
    frames = [
        pl.Series([[EVE]]),
        pl.Series([{"at": EVE}]),
        pl.Series([[EVE]], dtype=pl.Array(pl.Datetime("ms"), 1)),
        pl.Series([[{"at": EVE}]]),
        pl.Series([[EVE]]).cast(pl.List(pl.Datetime("us", "UTC"))).cast(pl.List(pl.Datetime("us", "Europe/Berlin"))),
        pd.Series(arrow[0], dtype=pd.ArrowDtype(arrow[0].type)),
    ]
    return arrow + frames


@pytest.mark.parametrize("values", _nested_instants(), ids=lambda v: str(getattr(v, "type", getattr(v, "dtype", ""))))
def test_instants_inside_of_values_are_those_of_utc(values: Any) -> None:
    def only(value: Any) -> Any:
        while isinstance(value, (dict, list)):
            *_, value = value.values() if isinstance(value, dict) else value
        return value

    assert only(column(values)) == NIGHT
    assert only(column(values, "msgpack")) == EVE.replace(tzinfo=datetime.UTC)


def test_datetimes_among_python_objects_are_sent_as_they_are() -> None:
    plain = "2020-01-01T00:00:00"
    assert column([[EVE], {"at": EVE}]) == [[plain], {"at": plain}]
    assert column(pl.Series([EVE], dtype=pl.Object)) == [plain]
    assert column(pd.Series([[EVE]])) == [[plain]]


NIGHTS = pd.DatetimeIndex(["2020-01-01", None])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.array([1, None], dtype="Int64"), [1, None]),
        (pd.array([True, None], dtype="boolean"), [True, None]),
        (pd.array(["a", None], dtype="string"), ["a", None]),
        (pd.array([1, None], dtype="int64[pyarrow]"), [1, None]),
        (pd.array([1.5, 2]), [1.5, 2.0]),
        (pd.Index(["a", None]), ["a", None]),
        (pd.RangeIndex(2), [0, 1]),
        (pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]), [[1, "a"], [2, "b"]]),
        (pd.Categorical(["a", None]), ["a", None]),
        (NIGHTS, [NIGHT, None]),
        (NIGHTS.tz_localize("UTC").tz_convert("Europe/Berlin"), [NIGHT, None]),
        (NIGHTS.tz_localize("UTC").array, [NIGHT, None]),
        (pd.Series([pd.Timestamp(NIGHT), pd.NaT, None], dtype=object), [NIGHT, None, None]),
        (pd.Series(NIGHTS, dtype="timestamp[ns][pyarrow]"), [NIGHT, None]),
        (pd.Series(NIGHTS.tz_localize("UTC"), dtype="timestamp[us, tz=Europe/Berlin][pyarrow]"), [NIGHT, None]),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_pandas_arrays_and_indexes(values: Any, expected: list[Any]) -> None:
    assert column(values) == expected


def test_pandas_keys() -> None:
    assert [record.key for record in records({"v": [1, 2], "__key__": pd.Index(["a", None])})] == [b"a", None]
    assert [record.key for record in records({"v": [1, 2], "__key__": pd.array([1, None], "Int64")})] == [b"1", None]


def test_a_frame_is_no_column() -> None:
    with pytest.raises(ResultError, match="column 'v' is a DataFrame; give its columns one by one"):
        column(pd.DataFrame({"a": [1]}))


def test_a_lack_of_memory_is_no_fault_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(self: pl.Series) -> list[Any]:
        raise MemoryError

    monkeypatch.setattr(pl.Series, "to_list", lacking)
    with pytest.raises(MemoryError):
        column(pl.Series(["a", "b"]))
