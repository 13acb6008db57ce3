"""pythia_fast.results.kept_rows: what is sent on when a handler gave rows back."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pythia_fast import App, MemoryConsumer, MemoryProducer
from pythia_fast.batch import Batch
from pythia_fast.brokers.framing import iterate_records
from pythia_fast.errors import HandlerError, ResultError
from pythia_fast.registration import Handler
from pythia_fast.results.kept_rows import rows_to_send
from pythia_fast.results.outputs import OutputEncoder

GIVEN_BACK = np.array([1, 3])
NOTHING = np.empty(0, np.int64)
STRUCTURED = np.array([(i, i / 2) for i in range(5)], [("a", "i8"), ("b", "f8")])


def handler(output_rows: Any) -> Handler:
    app = App("test")
    app.batch_handler(
        source=MemoryConsumer([]),
        sink=MemoryProducer(),
        decoder="raw",
        name="h",
        output_rows=output_rows,
    )(lambda batch: None)
    return app.handlers["h"]


ANY, SAME = handler("any"), handler("same")


def sent(result: Any) -> bytes:
    """The framed records of a result, as they would go to the sink."""
    region = bytearray(4096)
    encoded = OutputEncoder().open(result).write(memoryview(region))
    assert encoded.done
    return bytes(region[: encoded.bytes])


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: {"a": np.array(rows), "b": np.array(rows) / 2},
        lambda rows: {"a": rows, "b": [row / 2 for row in rows]},
        lambda rows: {"a": pa.array(rows), "b": pa.chunked_array([[row / 2 for row in rows]])},
        lambda rows: {"a": pd.Index(rows), "b": pd.array([row / 2 for row in rows], "Float64")},
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
@pytest.mark.parametrize("handler", [SAME, ANY], ids=["same", "any"])
def test_rows_given_back_are_not_sent(handler: Handler, make: Any) -> None:
    result, kept = rows_to_send(handler, make(list(range(5))), 5, GIVEN_BACK)
    assert sent(result) == sent(make([0, 2, 4]))
    assert kept is None if handler is ANY else kept is not None and kept.tolist() == [True, False, True, False, True]


def _texts(kind: pa.DataType, *values: Any) -> pa.Array:
    return pa.array([values[0], None, values[1], values[0], values[1]], kind)


RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([1, 3, 5]), pa.array(["a", None, "b"]))


@pytest.mark.parametrize(
    "values",
    [
        _texts(pa.string_view(), "a", "b" * 40),
        _texts(pa.binary_view(), b"a", b"b" * 40),
        _texts(pa.list_(pa.string_view()), ["a"], ["b" * 40, None]),
        _texts(pa.struct({"x": pa.list_(pa.binary_view())}), {"x": [b"a"]}, {"x": [b"b" * 40]}),
        _texts(pa.map_(pa.string_view(), pa.int8()), [("a", 1)], []),
        pa.DictionaryArray.from_arrays([0, None, 1, 1, 0], pa.array(["a", "b"], pa.string_view())),
        RUNS,
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 3, 5]), RUNS.values.cast(pa.string_view())),
        pa.ListArray.from_arrays(range(6), RUNS),
    ],
    ids=lambda values: str(values.type),
)
def test_rows_given_back_are_not_sent_of_any_arrow_layout(values: pa.Array) -> None:
    for column in (values, pa.chunked_array([values.slice(0, 2), values.slice(2)]), pa.concat_arrays([values] * 2)[5:]):
        for given_back in (GIVEN_BACK, np.array([0, 4]), np.arange(5)):
            result, _ = rows_to_send(SAME, {"a": column}, 5, given_back)
            kept = [row for row in range(5) if row not in given_back]
            assert sent(result) == sent({"a": [values.to_pylist()[row] for row in kept]})


def test_rows_given_back_are_not_sent_of_a_polars_frame_as_arrow() -> None:
    frame = pl.DataFrame({"s": ["a", None, "b", "c", "d"], "l": [["a"]] * 5}).with_columns(
        c=pl.col("s").cast(pl.Categorical)
    )
    result, _ = rows_to_send(SAME, pa.table(frame), 5, GIVEN_BACK)
    assert sent(result) == sent(frame[[0, 2, 4]])


class Part(msgspec.Struct, rename="upper"):
    sizes: list[int]
    note: msgspec.Raw = msgspec.Raw()


class Whole(msgspec.Struct, rename="upper"):
    name: str
    part: Part | None
    parts: list[Part]
    price: float | None = None


@pytest.mark.parametrize("result", [lambda batch: batch, lambda batch: batch.rows(), lambda batch: batch.raw])
def test_rows_given_back_are_not_sent_of_a_batch(result: Any) -> None:
    part = b'{"SIZES":[1,2],"NOTE":[3]}'
    payloads = [
        b'{"NAME":"%d","PART":%b,"PARTS":[%b],"PRICE":%b}'
        % (i, [part, b"null"][i // 2 % 2], part, [b"1.5", b"null"][i % 2])
        for i in range(5)
    ]
    batch = Batch.decode(payloads, Whole)
    kept, _ = rows_to_send(SAME, result(batch), 5, GIVEN_BACK)
    assert [record.payload for record in iterate_records(sent(kept))] == payloads[::2]


@pytest.mark.parametrize("given_back", [GIVEN_BACK, NOTHING])
@pytest.mark.parametrize("result", [{"a": np.arange(4)}, {"a": np.arange(6), "b": np.arange(6)}, [b"1", b"2"], [], ()])
def test_a_result_of_another_length(result: Any, given_back: Any) -> None:
    length = len(result["a"]) if isinstance(result, dict) else len(result)
    with pytest.raises(HandlerError, match=f"'h' got a batch of 5 rows and returned {length}; .*output_rows=\"any\""):
        rows_to_send(SAME, result, 5, given_back)
    assert rows_to_send(ANY, result, 5, given_back) == (result, None)


def test_no_result_is_of_no_length() -> None:
    assert rows_to_send(SAME, None, 5, GIVEN_BACK) == (None, None)


def test_nothing_given_back_copies_nothing() -> None:
    column = np.arange(5)
    result, kept = rows_to_send(SAME, {"a": column}, 5, NOTHING)
    assert result["a"] is column
    assert kept is not None
    assert kept.all()
    listed = [b""] * 5
    assert rows_to_send(SAME, listed, 5, NOTHING)[0] is listed


def test_masked_entries_stay_masked() -> None:
    column = np.ma.MaskedArray(np.arange(5), mask=[True, False, False, False, True])
    assert sent(rows_to_send(SAME, {"a": column}, 5, GIVEN_BACK)[0]).count(b"null") == 2


@pytest.mark.parametrize(
    ("result", "says"),
    [(42, "cannot return int"), ({"a": [1] * 5, "b": [1]}, "equally long"), ({"a": 1.0}, "one float")],
)
def test_what_cannot_be_sent_is_refused(result: Any, says: str) -> None:
    for one in (SAME, ANY):
        with pytest.raises(HandlerError, match=says):
            rows_to_send(one, result, 5, GIVEN_BACK)


class Fickle(list[Any]):
    """A list that gives other items than it holds, when it is walked."""

    def __init__(self, length: int, items: Iterable[Any]) -> None:
        super().__init__(["held"] * length)
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def test_the_items_of_a_list_of_a_subclass_are_those_that_it_gives() -> None:
    result, kept = rows_to_send(SAME, Fickle(4, "abcd"), 4, GIVEN_BACK)
    assert result == ["a", "c"]
    assert kept is not None
    assert kept.tolist() == [True, False, True, False]
    assert sent(rows_to_send(ANY, Fickle(2, "ab"), 5, NOTHING)[0]) == sent(["a", "b"])


@pytest.mark.parametrize("handler", [SAME, ANY], ids=["same", "any"])
@pytest.mark.parametrize(("items", "gives"), [(itertools.repeat("more"), "more"), ("abcd", "more"), ("ab", "2")])
def test_a_list_of_a_subclass_gives_as_many_items_as_it_says(
    handler: Handler, items: Iterable[Any], gives: str
) -> None:
    with pytest.raises(ResultError, match=f"the returned Fickle says that it has 3 values, and gives {gives}"):
        rows_to_send(handler, Fickle(3, items), 3, NOTHING)
