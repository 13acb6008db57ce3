"""handlers.py: the annotation picks the view; what cannot work is refused at registration."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pythia_fast.batch import Batch
from pythia_fast.errors import ConfigError
from pythia_fast.handlers import inspect_handler

from .slot_writer import SlotWriter

if TYPE_CHECKING:
    from decimal import Decimal


class Order(msgspec.Struct):
    order_id: int
    price: float
    note: str | None = None


class Other(msgspec.Struct):
    x: int


ORDERS = [Order(1, 2.5, "a"), Order(2, 3.5)]


def call(function: Any, schema: Any = Order) -> Any:
    return inspect_handler(function, schema, "handler 'h'").build()(SlotWriter(Order, ORDERS).batch())


def wants_batch(batch: Batch[Order]) -> Any:
    return batch


def wants_bare_batch(batch: Batch) -> Any:  # type: ignore[type-arg]
    return batch


def wants_annotated(batch: Annotated[Batch[Order], "of orders"], extra: int = 5) -> Any:
    return batch


def wants_rows(orders: list[Order]) -> Any:
    return orders


def wants_sequence(orders: Sequence[Order]) -> Any:
    return orders


def wants_polars(frame: pl.DataFrame) -> Any:
    return frame


def wants_record_batch(batch: pa.RecordBatch) -> Any:
    return batch


def wants_table(table: pa.Table) -> Any:
    return table


def wants_pandas(frame: pd.DataFrame) -> Any:
    return frame


def no_annotation(batch):  # type: ignore[no-untyped-def]
    return batch


@pytest.mark.parametrize(
    "function", [wants_batch, wants_bare_batch, wants_annotated, no_annotation, lambda batch: batch]
)
def test_a_batch_for_those_that_ask_for_none_else(function: Any) -> None:
    batch = call(function)
    assert isinstance(batch, Batch)
    assert batch["price"].tolist() == [2.5, 3.5]


@pytest.mark.parametrize("function", [wants_rows, wants_sequence])
def test_rows(function: Any) -> None:
    assert call(function) == ORDERS


def test_data_frames() -> None:
    expected = {"order_id": [1, 2], "price": [2.5, 3.5], "note": ["a", None]}
    assert call(wants_polars).to_dict(as_series=False) == expected
    record = call(wants_record_batch)
    assert isinstance(record, pa.RecordBatch)
    assert record.to_pydict() == expected
    table = call(wants_table)
    assert isinstance(table, pa.Table)
    assert table.to_pydict() == expected
    frame = call(wants_pandas)
    assert isinstance(frame, pd.DataFrame)
    assert frame["price"].dtype == np.float64
    assert frame["order_id"].tolist() == [1, 2]


class Sparse(msgspec.Struct):
    count: int | None = None
    small: Annotated[int | None, np.uint8] = None
    good: bool | None = None


@pytest.mark.parametrize(
    "rows", [[b'{"count":9007199254740993,"small":3,"good":true}', b"{}"], [b'{"count":1,"small":2,"good":false}']]
)
def test_pandas_keeps_types_and_values_of_fields_that_may_be_null(rows: list[bytes]) -> None:
    frame = inspect_handler(wants_pandas, Sparse, "h").build()(Batch.decode(rows, Sparse))
    assert frame.dtypes.astype(str).to_dict() == {"count": "Int64", "small": "UInt8", "good": "boolean"}
    expected = [msgspec.json.decode(row, type=Sparse).count for row in rows]
    assert [None if value is pd.NA else value for value in frame["count"].tolist()] == expected


def test_the_schema_may_come_from_the_annotation() -> None:
    assert inspect_handler(wants_batch, None, "h").schema is Order
    assert inspect_handler(wants_rows, None, "h").schema is Order
    assert inspect_handler(wants_polars, None, "h").schema is None
    assert inspect_handler(wants_polars, Order, "h").schema is Order
    with pytest.raises(ConfigError, match=r"h: .*'batch' is annotated with Order, but schema=Other"):
        inspect_handler(wants_batch, Other, "h")


def test_an_annotation_with_quotes_of_its_own() -> None:
    def handler(batch: "list[Order]") -> None:  # noqa: UP037 - a string in a string, with the import above
        """Handle nothing."""

    assert handler.__annotations__["batch"] == "'list[Order]'"
    assert (inspect_handler(handler, None, "h").view, inspect_handler(handler, None, "h").schema) == ("rows", Order)


def test_annotations_that_are_no_strings() -> None:
    def handler(batch: Any) -> Any:
        return batch

    for annotation, view in ((Batch[Order], "batch"), (list[Order], "rows"), (pl.DataFrame, "polars"), (Any, "batch")):
        handler.__annotations__ = {"batch": annotation}
        assert inspect_handler(handler, Order, "h").view == view


def test_a_struct_local_to_a_function_needs_no_lookup() -> None:
    class Local(msgspec.Struct):
        x: int

    def handler(batch: list[Local]) -> Any:
        return batch

    def closes_over(batch: Batch[Local]) -> Any:
        return Local, batch

    assert inspect_handler(handler, Local, "h").view == "rows"
    assert inspect_handler(closes_over, None, "h").schema is Local


class Scorer:
    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor
        self.log = ["made"]

    def setup(self) -> None:
        self.log.append("setup")

    def teardown(self) -> None:
        self.log.append("teardown")

    def __call__(self, frame: pl.DataFrame) -> Any:
        return self.log, (frame["price"] * self.factor).to_list()


class Bare:
    def __call__(self, orders: list[Order]) -> int:
        return len(orders)


def test_a_class_is_made_where_it_is_called() -> None:
    adapter = inspect_handler(Scorer, Order, "h")
    first, second = adapter.build(), adapter.build()
    first.setup()
    batch = SlotWriter(Order, ORDERS).batch()
    log, scores = first(batch)
    first.teardown()
    assert (log, scores) == (["made", "setup", "teardown"], [5.0, 7.0])
    assert second(batch)[0] == ["made"]


def test_setup_and_teardown_are_optional() -> None:
    for handler in (Bare, Bare()):
        called = inspect_handler(handler, Order, "h").build()
        called.setup()
        assert called(SlotWriter(Order, ORDERS).batch()) == 2
        called.teardown()


def test_bound_methods_partials_and_objects() -> None:
    def with_option(factor: float, frame: pl.DataFrame) -> Any:
        return (frame["price"] * factor).to_list()

    scorer = Scorer(3.0)
    assert call(scorer)[1] == [7.5, 10.5]
    assert call(scorer.__call__)[1] == [7.5, 10.5]
    assert call(functools.partial(with_option, 4.0)) == [10.0, 14.0]


class NoCall:
    pass


class Needy:
    def __init__(self, url: str) -> None: ...
    def __call__(self, batch: Any) -> None: ...


async def asynchronous(batch: Any) -> None: ...


def generating(batch: Any) -> Any:
    yield 1


def none_at_all() -> None: ...


def two(batch: Any, more: Any) -> None: ...


def keyword(*, batch: Any) -> None: ...


def keyword_beside(batch: Any, *, option: int) -> None: ...


def hidden(batch: Decimal) -> None: ...


def hidden_struct(batch: Batch[Decimal]) -> None: ...


def numbers(batch: np.ndarray) -> None: ...


def broken(batch: 1 / 0) -> None: ...  # type: ignore[valid-type]


class Static:
    made: list[str] = []  # noqa: RUF012

    @staticmethod
    def __call__(orders: list[Order]) -> int:
        return len(orders)

    @classmethod
    def setup(cls, times: int = 1, *args: Any, **more: Any) -> None:
        cls.made += ["setup"] * times

    @staticmethod
    def teardown() -> None:
        Static.made.append("teardown")


class OfItsClass:
    setup = None
    teardown = staticmethod(vars)  # which has no signature

    @classmethod
    def __call__(cls, orders: list[Order]) -> str:
        return f"{cls.__name__} {len(orders)}"


def test_static_and_class_methods() -> None:
    called = inspect_handler(Static, None, "h").build()
    called.setup()
    assert called(SlotWriter(Order, ORDERS).batch()) == 2
    called.teardown()
    assert Static.made == ["setup", "teardown"]
    assert inspect_handler(Static, None, "h").schema is Order
    assert call(OfItsClass) == call(OfItsClass()) == "OfItsClass 2"


async def asynchronous_method(self: Any) -> None: ...


async def async_generating_method(self: Any) -> Any:
    yield 1


def generating_method(self: Any) -> Any:
    yield 1


@pytest.mark.parametrize("name", ["setup", "teardown"])
@pytest.mark.parametrize(
    ("method", "message"),
    [
        (asynchronous_method, r"plain method, not async; asyncio\.run\(\)"),
        (async_generating_method, "plain method, not async"),
        (generating_method, "does not yield"),
        (staticmethod(generating), "does not yield"),
        (lambda self, url, port=5: None, r"called without arguments, and asks for url: give defaults"),
        (staticmethod(lambda x: None), "asks for x"),
        (classmethod(lambda cls, *, x: None), "asks for x"),
        (lambda: None, r"needs the object as its first parameter: def (setup|teardown)\(self\)"),
        (5, "is 5, which cannot be called"),
    ],
)
def test_setup_and_teardown_that_cannot_work_are_refused(name: str, method: Any, message: str) -> None:
    handler = type("Handler", (Bare,), {name: method})
    with pytest.raises(ConfigError, match=rf"handler 'h': .*{name}.*{message}"):
        inspect_handler(handler, Order, "handler 'h'")


TICK = np.dtype([("id", "<i4")])


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (list[Any], Order),
        (list[Annotated[Order, "of mine"]], Order),
        (Batch[Any], None),
        (list["Order"], Order),
        (list[bytes], None),
        (Batch[bytes], None),
        (list[np.void], TICK),
        (Sequence[np.record], None),
    ],
    ids=str,
)
def test_rows_may_be_left_open(annotation: Any, schema: Any) -> None:
    def handler(batch: Any) -> None: ...

    handler.__annotations__["batch"] = annotation
    assert inspect_handler(handler, schema, "h").schema is schema


@pytest.mark.parametrize(
    ("annotation", "schema", "says"),
    [
        (list[dict], Order, r"rows of dict, but each is decoded as Order: name that in its place"),
        (Sequence[dict[str, Any]], Order, r"rows of dict.*decoded as Order"),
        (Batch[int], Order, r"rows of int, but each is decoded as Order"),
        (list[bytes], Order, r"rows of bytes, but each is decoded as Order"),
        (list[Order | None], Order, r"rows of .*Order.*, but each is decoded as Order"),
        (list[dict], None, r"rows of dict; they are a msgspec\.Struct, which is the schema, bytes with decoder='raw'"),
        (Batch[int], TICK, r"rows of int; .* numpy\.void in a fixed layout"),
    ],
    ids=str,
)
def test_rows_that_no_decoder_makes_are_refused(annotation: Any, schema: Any, says: str) -> None:
    def handler(batch: Any) -> None: ...

    handler.__annotations__["batch"] = annotation
    with pytest.raises(ConfigError, match=rf"handler 'h': its parameter 'batch' is annotated with {says}"):
        inspect_handler(handler, schema, "handler 'h'")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (NoCall, "class NoCall needs a method __call__"),
        (Needy, r"made without arguments .*'url'.* setup\(\)"),
        (asynchronous, "plain function, not async"),
        (generating, "returns its results at once, and does not yield them"),
        (none_at_all, "its parameters are: none"),
        (two, "its parameters are: batch, more"),
        (keyword, "called with one argument"),
        (keyword_beside, "its parameters are: batch, option"),
        (hidden, r"'Decimal' of 'batch' cannot be evaluated .*TYPE_CHECKING"),
        (numbers, r"ndarray is no view of a batch; annotate the parameter with Batch"),
        (broken, "fails: division by zero"),
        (5, "5 is not callable"),
    ],
)
def test_handlers_that_cannot_work_are_refused(function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        inspect_handler(function, Order, "handler 'h'")
    assert str(caught.value).startswith("handler 'h': ")


def test_a_struct_that_cannot_be_seen_is_asked_of_schema() -> None:
    assert inspect_handler(hidden_struct, Order, "handler 'h'").schema is Order
    with pytest.raises(ConfigError, match=r"annotation 'Batch\[Decimal\]' of 'batch' cannot be evaluated .*'Decimal'"):
        inspect_handler(hidden_struct, None, "handler 'h'")


@pytest.mark.parametrize(
    ("function", "library", "extra"),
    [
        (wants_polars, "polars", "polars"),
        (wants_record_batch, "pyarrow", "arrow"),
        (wants_table, "pyarrow", "arrow"),
        (wants_pandas, "pandas", "pandas"),
        (wants_pandas, "pyarrow", "pandas"),
    ],
)
def test_a_missing_library_names_its_extra(
    function: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"pip install 'pythia-fast\[{extra}\]'"):
        inspect_handler(function, Order, "h")
