"""Handlers of Avro: behind the numbers of a registry, in runs, with deaths, retries and a registry that is away."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import fastavro
import msgspec
import pytest

from pythia_fast import App, Avro, Batch, ConfigError, MemoryConsumer, MemoryProducer, RegistryError, RetryPolicy
from tests.support import memory_run
from tests.support.registry_server import RegistryServer, registry_server

ITEM = {"type": "record", "name": "shop.Item", "fields": [{"name": "sku", "type": "string"}]}
FIRST = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "note", "type": ["null", "string"]}, {"name": "order_id", "type": "long"}],
}
SECOND = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "order_id", "type": "int"}, {"name": "price", "type": "double"}],
}


class Order(msgspec.Struct):
    order_id: int
    price: float = 1.5
    note: str | None = None


class Item(msgspec.Struct):
    sku: str


class WithItems(msgspec.Struct):
    order_id: int
    items: list[Item]


def framed(number: int, schema: Any, value: Any) -> bytes:
    out = io.BytesIO(b"\x00" + number.to_bytes(4, "big"))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def orders(rows: int) -> list[bytes]:
    """The even ones written with the first schema, the odd ones with the second."""
    return [
        framed(8, SECOND, {"order_id": row, "price": row / 2})
        if row % 2
        else framed(7, FIRST, {"order_id": row, "note": f"n{row}"})
        for row in range(rows)
    ]


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with registry_server() as server:
        server.add(7, FIRST)
        server.add(8, SECOND, schemaType="AVRO")
        yield server


def told(batch: Batch[Any]) -> list[bytes]:
    columns = zip(batch["order_id"].tolist(), batch["price"].tolist(), batch["note"].tolist(), strict=True)
    made = [f"{order_id} {price:g} {note}" for order_id, price, note in columns]
    assert made == [f"{row.order_id} {row.price:g} {row.note}" for row in batch.rows()]
    return [text.encode() for text in made]


def expected(rows: int) -> list[bytes]:
    return sorted(b"%d %g None" % (row, row / 2) if row % 2 else b"%d 1.5 n%d" % (row, row) for row in range(rows))


def test_a_handler_is_tried_out_without_a_run(registry):
    app = App("test")

    @app.batch_handler(source=MemoryConsumer([]), sink=MemoryProducer(), decoder=Avro(registry=registry.url))
    def prices(batch: Batch[Order]):
        return {"price": batch["price"]}

    trial = app.test(prices, [*orders(4), b"nonsense"])
    assert trial.returned["price"].tolist() == [1.5, 0.5, 1.5, 1.5]
    assert [bad.index for bad in trial.bad] == [4]


class Deleted(msgspec.Struct):
    order_id: int | None
    price: float = 1.5


@pytest.mark.parametrize("tombstones", ["skip", "rows"])
def test_null_payloads_among_them_are_passed_over_or_rows(tmp_path, registry, tombstones):
    def handler(batch):
        assert [row.order_id is None for row in batch.rows()] == batch.tombstones.tolist()
        assert batch.valid("order_id").tolist() == (~batch.tombstones).tolist()
        return [b"%d %g" % pair for pair in zip(batch["order_id"], batch["price"], strict=True)]

    sent = [payload for order in orders(100) for payload in (None, order)]
    options = {"schema": Deleted, "decoder": Avro(registry=registry.url), "tombstones": tombstones}
    report, sink, dead, source = memory_run.run(tmp_path, handler, sent, **options)
    nulls = [b"0 1.5"] * (100 if tombstones == "rows" else 0)
    assert sorted(sink.payloads) == sorted(nulls + [b"%d %g" % (n, n / 2 if n % 2 else 1.5) for n in range(100)])
    assert (report.rows, report.tombstones_skipped) == (200, 0 if nulls else 100)
    assert (dead.records, source.committed) == ([], {0: 200})


def test_rows_of_two_schemas_in_one_batch_outlive_deaths_retries_and_recycling(tmp_path, registry):
    def handler(batch):
        if batch["order_id"].tolist().count(77) and len(batch) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        batch.retry((batch["order_id"] % 50 == 3) & (batch.attempts == 0))
        return told(batch)

    report, sink, dead, source = memory_run.run(
        tmp_path,
        handler,
        orders(400),
        schema=Order,
        decoder=Avro(registry=registry.url),
        batch_size=40,
        workers=2,
        max_batches_per_process=3,
        retry=RetryPolicy(max_attempts=3),
    )
    assert sorted(sink.payloads) == expected(400)
    assert dead.records == []
    assert (report.rows, source.committed) == (400, {0: 400})
    assert report.retried >= 8


def test_what_the_registry_has_not_and_what_does_not_fit_is_refused_and_told_once_a_process(tmp_path, registry, capfd):
    registry.add(9, {"type": "record", "name": "Other", "fields": [{"name": "order_id", "type": "string"}]})
    registry.add(10, "message Order {}", schemaType="PROTOBUF")
    registry.add(11, {"type": "record", "name": "X", "fields": [{"name": "y", "type": "nowhere"}]})
    bad = [b"\x00\x00\x00\x00" + bytes([number]) for number in (9, 10, 11, 12)] * 3
    _, sink, dead, _ = memory_run.run(
        tmp_path,
        told,
        [*orders(10), *bad, b"\x01\x00\x00\x00\x07", b"\x00\x07"],
        schema=Order,
        decoder=Avro(registry=registry.url),
        workers=1,
    )
    assert sorted(sink.payloads) == expected(10)
    reasons = [dict(record.headers)["pf-reason"].decode() for record in dead.records]
    unfit = "written with schema {} of the registry, which is not there or does not fit Order"
    assert reasons[:12] == [unfit.format(number) for number in (9, 10, 11, 12)] * 3
    assert all("does not begin with a zero byte" in reason for reason in reasons[12:])
    said = capfd.readouterr().err
    assert said.count("schema 9 of") == said.count("is PROTOBUF, and not AVRO") == said.count("has no schema 12") == 1
    assert "field order_id is int64, and string in the writer's schema; rows written with it are refused" in said


def test_a_registry_that_is_away_is_waited_for(tmp_path, registry, capfd):
    registry.status = 503
    impatient = {"url": registry.url, "max.retries": 0}  # of the client's own
    threading.Timer(2.0, lambda: setattr(registry, "status", 200)).start()
    report, sink, dead, _ = memory_run.run(
        tmp_path, told, orders(30), schema=Order, decoder=Avro(registry=impatient), workers=1
    )
    assert (report.rows, dead.records, sorted(sink.payloads)) == (30, [], expected(30))
    assert "its rows wait, and it is asked again" in capfd.readouterr().err


def test_types_that_a_schema_takes_from_others_are_asked_for(registry):
    referring = {
        "type": "record",
        "name": "Order",
        "fields": [
            {"name": "order_id", "type": "long"},
            {"name": "items", "type": {"type": "array", "items": "shop.Item"}},
        ],
    }
    reference = {"name": "shop.Item", "subject": "items", "version": 3}
    registry.add(20, referring, references=[reference])
    registry.versions["items", 3] = {"subject": "items", "version": 3, "id": 4, "schema": json.dumps(ITEM)}

    payload = b"\x00\x00\x00\x00\x14" + b"\x02" + b"\x04\x02a\x02b\x00"
    batch = Batch.decode([payload, payload], WithItems, decoder=Avro(registry={"url": registry.url}))
    assert batch["items[].sku"].tolist() == ["a", "b", "a", "b"]
    assert batch.rows()[1] == WithItems(1, [Item("a"), Item("b")])
    assert len(registry.asked) == 2


def test_without_a_run_an_answer_is_not_waited_for(registry):
    registry.status = 500
    with pytest.raises(RegistryError, match="when asked for schema 7"):
        Batch.decode(orders(2), Order, decoder=Avro(registry=registry.url))


def test_confluents_own_client_and_its_mock_do_as_well():
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    client = SchemaRegistryClient.new_client({"url": "mock://orders"})
    number = client.register_schema("orders-value", Schema(json.dumps(FIRST), "AVRO"))
    payload = framed(number, FIRST, {"order_id": 5, "note": None})
    assert Batch.decode([payload], Order, decoder=Avro(registry=client))["order_id"].tolist() == [5]


@pytest.mark.parametrize(
    "given", ["", {}, {"url": ""}, 7, {"url": "ftp://registry"}, {"url": "http://u:secret@r", "nope": 1}]
)
def test_what_is_no_registry_is_refused_where_it_is_declared(given):
    with pytest.raises(ConfigError, match=r"Avro\(registry=\): ") as refused:
        Avro(registry=given)
    assert "secret" not in str(refused.value)


def test_a_url_is_shown_without_its_password(registry):
    address = registry.url.removeprefix("http://")
    assert repr(Avro(registry=f"http://user:secret@{address}")) == f"Avro(schema registry {address})"
    App("shop").batch_handler(
        source=memory_run.MemoryConsumer([]), schema=Order, decoder=Avro(registry=registry.url), name="score"
    )(lambda batch: None)
