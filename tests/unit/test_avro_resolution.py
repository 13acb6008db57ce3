"""avro/resolution: what fits, what does not, and what is said of it."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

from pythia_fast import Avro, Batch, ConfigError, SchemaError
from pythia_fast.decoders import choose_decoder


class Item(msgspec.Struct):
    sku: str
    qty: int = 1


class Order(msgspec.Struct):
    order_id: int
    price: float = 0.0
    at: datetime.datetime | None = None
    items: list[Item] = []
    first: Item | None = None


def record(*fields: tuple[str, Any], name: str = "Order") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": field, "type": given} for field, given in fields]}


ITEM = record(("sku", "string"), name="Item")
ID = ("order_id", "long")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([], "Order has no 'order_id', and field order_id has no default"),
        ([("order_id", "string")], "field order_id is int64, and string in the writer's schema"),
        ([("order_id", "double")], "field order_id is int64, and double in the writer's schema"),
        ([("order_id", "null")], "field order_id is null, and its annotation is not Optional"),
        ([("order_id", ["null", "string", "boolean"])], "field order_id is int64, and string"),
        ([ID, ("at", "long")], "field at is datetime, and long in"),
        ([ID, ("at", {"type": "int", "logicalType": "date"})], r"field at is datetime, and int \(date\) in"),
        ([ID, ("items", ITEM)], "field items is list, and record Item in"),
        ([ID, ("items", {"type": "map", "values": ITEM})], "field items is list, and map in"),
        ([ID, ("items", {"type": "array", "items": "string"})], r"field items\[\] is struct, and string in"),
        ([ID, ("first", record(("qty", "int"), name="Item"))], "Item has no 'sku', and field first.sku has no default"),
    ],
)
def test_what_does_not_fit_is_named(fields: list[tuple[str, Any]], words: str) -> None:
    with pytest.raises(SchemaError, match=f"the writer's schema does not fit Order: {words}"):
        choose_decoder(Order, Avro(record(*fields)))


@pytest.mark.parametrize(
    "fields",
    [
        [ID],
        [("order_id", ["string", "long"])],
        [ID, ("price", "int"), ("unknown", {"type": "map", "values": "bytes"})],
        [ID, ("at", {"type": "long", "logicalType": "local-timestamp-micros"})],
        [ID, ("items", {"type": "array", "items": ITEM}), ("first", ["null", "Item"])],
        [ID, ("self", ["null", "Order"]), ("all", {"type": "array", "items": "Order"})],
    ],
)
def test_what_fits(fields: list[tuple[str, Any]]) -> None:
    assert choose_decoder(Order, Avro(record(*fields))).name == "avro"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{", "this is no JSON"),
        ('"long"', "schema='long': an Avro schema of a record"),
        (
            {"type": "record", "name": "A", "fields": [{"name": "x", "type": "nothing"}]},
            "this is no Avro schema: UnknownType",
        ),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "a row is a record, and this is enum E"),
        (7, "schema=7: an Avro schema of a record"),
    ],
)
def test_what_is_no_schema_of_a_record_is_refused(given: Any, words: str) -> None:
    with pytest.raises((SchemaError, ConfigError), match=words):
        choose_decoder(Order, Avro(given))


def test_one_of_schema_and_registry_is_needed() -> None:
    for given in ({}, {"schema": record(ID), "registry": "http://127.0.0.1:1"}):
        with pytest.raises(ConfigError, match="either the schema= that all payloads were written with, or a registry="):
            Avro(**given)  # type: ignore[arg-type]


def test_a_struct_that_no_writer_has_values_for_is_refused_when_it_is_registered() -> None:
    class Raw(msgspec.Struct):
        kept: msgspec.Raw

    class Tagged(msgspec.Struct, tag=True):
        order_id: int

    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        order_id: int

    with pytest.raises(SchemaError, match=r"field kept: msgspec\.Raw"):
        choose_decoder(Raw, Avro(registry="http://127.0.0.1:1"))
    with pytest.raises(SchemaError, match="Tagged: a Struct with a tag"):
        choose_decoder(Tagged, Avro(record(ID)))
    with pytest.raises(SchemaError, match=r"Order\.more is a field that the Struct forbids"):
        choose_decoder(Strict, Avro(record(ID, ("more", "int"))))
    with pytest.raises(ConfigError, match=r"decoder=Avro\(Order\) needs schema="):
        choose_decoder(None, Avro(record(ID)))


def test_keys_are_those_of_the_payload_and_numbers_are_held_to_their_columns() -> None:
    class Narrow(msgspec.Struct, rename="camel"):
        order_id: Annotated[int, np.int8]

    batch = Batch.decode([b"\x02", b"\x80\x02", b"\x01"], Narrow, decoder=Avro(record(("orderId", "int"))))
    assert batch["order_id"].tolist() == [1, -1]
    assert [bad.reason for bad in batch.bad] == ["number out of range of int8, field order_id (key 'orderId'), byte 0"]
    assert list(batch.rows()) == [Narrow(1), Narrow(-1)]
