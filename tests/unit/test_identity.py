"""pool/identity.py: what makes an app another one, and how the difference is told."""

from __future__ import annotations

import datetime
from typing import Annotated

import msgspec
import numpy as np
import polars
import pytest

from pythia_fast import App, Batch, MemoryConsumer, MemoryProducer
from pythia_fast.pool.identity import AppChangedError, AppIdentity, HandlerIdentity


def registered(schema=None, function=None, **options):
    app = App("orders")

    def handle(batch):
        return None

    app.batch_handler(source=MemoryConsumer([]), schema=schema, name="score", **options)(function or handle)
    return app.handler("score")


def struct(*fields, **options):
    return msgspec.defstruct("Order", list(fields), **options)


A_THEN_B = struct(("a", int), ("b", float))


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (struct(("b", float), ("a", int)), "its fields stand in another order, 'b' where 'a' was"),
        (struct(("a", float), ("b", float)), "field 'a' was int64, is float64"),
        (struct(("a", Annotated[int, np.int32]), ("b", float)), "field 'a' was int64, is int32"),
        (struct(("a", int | None), ("b", float)), "field 'a' was int64, is int64 or null"),
        (struct(("a", int)), "field 'b' is gone"),
        (struct(("a", int), ("b", float), ("c", str)), "field 'c' is new"),
        (struct(("a", struct(("x", int))), ("b", float)), "field 'a' was int64, is struct; field 'a.x' is new"),
        (struct(("a", int), ("b", float), rename="upper"), "a key, a bound, or which keys may be missing"),
        (struct(("a", int), ("b", float), forbid_unknown_fields=True), "a key, a bound, or which keys may be missing"),
        (struct(("a", int), ("b", float, 1.0)), "a key, a bound, or which keys may be missing"),
        (struct(("a", Annotated[int, msgspec.Meta(ge=1)]), ("b", float)), "a key, a bound, or which keys may be"),
    ],
)
def test_another_schema_is_told(schema, told):
    with pytest.raises(AppChangedError, match="the schema of handler 'score' is another one: ") as caught:
        HandlerIdentity.of(registered(A_THEN_B)).check(registered(schema))
    assert told in str(caught.value)


def test_the_same_fields_are_the_same_schema_whatever_class_holds_them():
    HandlerIdentity.of(registered(A_THEN_B)).check(registered(struct(("a", int), ("b", float))))


def test_a_default_that_is_computed_by_each_import_changes_nothing():
    def now():
        return struct(("at", datetime.datetime, datetime.datetime.now()), ("key", str, str(object())))

    HandlerIdentity.of(registered(now())).check(registered(now()))


def test_the_places_of_a_fixed_layout_count():
    plain = np.dtype([("a", np.uint8), ("b", np.int64)])
    aligned = np.dtype([("a", np.uint8), ("b", np.int64)], align=True)
    swapped = np.dtype([("a", np.uint8), ("b", ">i8")])
    identity = HandlerIdentity.of(registered(decoder=plain))
    identity.check(registered(decoder=plain))
    for other in (aligned, swapped):
        with pytest.raises(AppChangedError, match="the schema of handler 'score' is another one"):
            identity.check(registered(decoder=other))


def frame(batch: polars.DataFrame):
    return None


def rows(batch: list[A_THEN_B]):  # type: ignore[valid-type]
    return None


def same(batch: Batch):
    return None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"function": same}, "its function was registered.<locals>.handle, is same"),
        ({"function": frame}, "its parameter was batch, is polars"),
        ({"function": rows}, "its parameter was batch, is rows"),
        ({"decoder": "msgpack"}, "decoder was json, is msgpack"),
        ({"tombstones": "skip"}, "tombstones was dead_letter, is skip"),
        ({"ordering": "partition"}, "ordering was unordered, is partition"),
        ({"on_error": "stop"}, "on_error was isolate, is stop"),
    ],
)
def test_another_way_to_handle_batches_is_told(options, told):
    with pytest.raises(AppChangedError, match="handler 'score' is another one: ") as caught:
        HandlerIdentity.of(registered(A_THEN_B)).check(registered(A_THEN_B, **options))
    assert told in str(caught.value)


def test_a_schema_too_large_to_be_told_is_compared_all_the_same():
    fields = [(f"field_{i}", int) for i in range(1000)]
    identity = HandlerIdentity.of(registered(struct(*fields)), columns_bytes=300)
    assert len(msgspec.msgpack.encode(identity)) < 1000
    identity.check(registered(struct(*fields)))
    for other, told in [
        ([*fields[:-1], ("field_999", float)], "one of its 1000 columns"),
        ([*fields[:2], ("field_2", str), *fields[3:]], "field 'field_2' was int64, is string"),
        ([("new", int), *fields[:-1]], "its fields stand in another order, 'new' where 'field_0' was"),
        (
            [("other", int), *fields[6:]],
            "field 'field_0' is gone; field 'field_1' is gone; field 'field_2' is",
        ),
    ]:
        with pytest.raises(AppChangedError) as caught:
            identity.check(registered(struct(*other)))
        assert told in str(caught.value)


def test_source_and_sink_may_be_others():
    """A replay reads a file, and may send nothing on."""
    HandlerIdentity.of(registered(A_THEN_B)).check(registered(A_THEN_B, sink=MemoryProducer()))


def test_an_app_of_another_name_is_another_one():
    with pytest.raises(AppChangedError, match="the App there is 'two' and not 'one'"):
        AppIdentity.of(App("one")).check(App("two"))


def test_an_imported_module_may_be_reloaded():
    first, second = App("again"), App("again")
    assert second.nth == first.nth + 1
    AppIdentity.of(first).check(second)
