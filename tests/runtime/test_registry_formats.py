"""Protobuf and JSON Schema behind the numbers of a registry: Confluent's serialisers write, its deserialisers read."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pythia_fast import (
    App,
    Batch,
    ConfigError,
    JsonSchema,
    MemoryConsumer,
    MemoryProducer,
    Protobuf,
    RegistryError,
)
from pythia_fast.errors import SchemaError
from tests.support import memory_run
from tests.support.registry_server import RegistryServer, registry_server

CONTEXT = SerializationContext("orders", MessageField.VALUE)
JSON_SCHEMA = {
    "title": "Order",
    "type": "object",
    "properties": {"order_id": {"type": "integer", "minimum": 0}, "note": {"type": "string"}},
    "required": ["order_id"],
}
PROTO = """syntax = "proto3";
package shop;

message Order {
  int64 order_id = 1;
  string note = 2;
}
"""


class Order(msgspec.Struct):
    order_id: int
    note: str = ""


def order_class() -> Any:
    """What protoc makes of PROTO."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Order")
    message.field.add(name="order_id", number=1, type=3, label=1)
    message.field.add(name="note", number=2, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


OrderPb = order_class()


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with registry_server() as server:
        server.schemas[7] = {"schema": PROTO, "schemaType": "PROTOBUF"}
        server.add(8, JSON_SCHEMA, schemaType="JSON")
        server.add(9, {"type": "record", "name": "Order", "fields": []})
        yield server


def framed(number: int, value: bytes) -> bytes:
    return b"\x00" + number.to_bytes(4, "big") + value


def protobufs(rows: int) -> list[bytes]:
    """The zero behind the number: the first message of the file (the list of indices is [0])."""
    return [framed(7, b"\x00" + OrderPb(order_id=row, note=f"n{row}").SerializeToString()) for row in range(rows)]


def jsons(rows: int) -> list[bytes]:
    return [framed(8, b'{"order_id":%d,"note":"n%d"}' % (row, row)) for row in range(rows)]


def expected(rows: int) -> list[bytes]:
    return sorted(b"%d n%d" % (row, row) for row in range(rows))


def of_messages(orders: list[OrderPb]) -> list[bytes]:  # type: ignore[valid-type]
    return [f"{order.order_id} {order.note}".encode() for order in orders]


def of_dicts(orders: list[dict[str, Any]]) -> list[bytes]:
    return [f"{order['order_id']} {order['note']}".encode() for order in orders]


def of_columns(batch: Batch[Order]) -> list[bytes]:
    made = [f"{number} {note}".encode() for number, note in zip(batch["order_id"], batch["note"], strict=True)]
    assert made == [f"{row.order_id} {row.note}".encode() for row in batch.rows()]
    return made


#: name -> (decoder for a registry, handler, payloads)
PATHS = {
    "protobuf": (lambda given: Protobuf(OrderPb, registry=given), of_messages, protobufs),
    "json, dicts": (lambda given: JsonSchema(registry=given), of_dicts, jsons),
    "json, columns": (lambda given: JsonSchema(registry=given), of_columns, jsons),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_handler_is_tried_out_without_a_run(registry, path):
    decoder, handler, payloads = PATHS[path]
    app = App("test")
    app.batch_handler(source=MemoryConsumer([]), sink=MemoryProducer(), decoder=decoder(registry.url))(handler)
    trial = app.test(handler, [*payloads(3), b"nonsense"])
    assert trial.returned == expected(3)
    assert [bad.index for bad in trial.bad] == [3]


@pytest.mark.parametrize("path", PATHS)
def test_rows_come_through_deaths_and_recycling(tmp_path, registry, path):
    decoder, handler, payloads = PATHS[path]

    @functools.wraps(handler)
    def dies(batch):
        made = handler(batch)
        if b"77 n77" in made and len(made) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    report, sink, dead, source = memory_run.run(
        tmp_path,
        dies,
        payloads(200),
        decoder=decoder(registry.url),
        batch_size=40,
        workers=2,
        max_batches_per_process=3,
    )
    assert sorted(sink.payloads) == expected(200)
    assert dead.records == []
    assert (report.rows, source.committed) == (200, {0: 200})


@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_of_the_registry_or_of_another_kind_is_refused(tmp_path, registry, path, capfd):
    decoder, handler, payloads = PATHS[path]
    bad = [framed(9, b"{}"), framed(12, b"{}"), b"\x01\x00\x00\x00\x07", b""]
    _, sink, dead, _ = memory_run.run(
        tmp_path, handler, [*payloads(5), *bad], decoder=decoder(registry.url), workers=1, batch_size=20
    )
    assert sorted(sink.payloads) == expected(5)
    reasons = [dict(record.headers)["pf-reason"].decode() for record in dead.records]
    unfit = "written with schema {} of the registry, which is not there or does not fit "
    assert all(reason.startswith(unfit.format(number)) for reason, number in zip(reasons, (9, 12), strict=False))
    assert "None" not in reasons[0]
    assert "does not begin with a zero byte" in reasons[2]
    assert reasons[3] == "the payload is empty"
    assert "schema 9 of" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "bad"), [("protobuf", framed(7, b"\x00\xff")), ("json, dicts", framed(8, b'{"n":1}'))]
)
def test_what_the_deserialiser_refuses_costs_one_row(tmp_path, registry, path, bad):
    decoder, handler, payloads = PATHS[path]
    given = payloads(9)
    given.insert(4, bad)
    _, sink, dead, _ = memory_run.run(tmp_path, handler, given, decoder=decoder(registry.url), workers=1)
    assert sorted(sink.payloads) == expected(9)
    (letter,) = dead.records
    assert letter.payload == bad
    assert dict(letter.headers)["pf-error"]


def test_of_columns_the_struct_says_what_is_refused(registry):
    batch = Batch.decode([framed(8, b'{"note":"x"}'), *jsons(1)], Order, decoder=JsonSchema(registry=registry.url))
    assert batch["order_id"].tolist() == [0]
    (bad,) = batch.bad
    assert bad.reason.startswith("missing required field order_id")


@pytest.mark.parametrize("path", PATHS)
def test_a_registry_that_is_away_is_waited_for(tmp_path, registry, path, capfd):
    decoder, handler, payloads = PATHS[path]
    registry.status = 503
    impatient = {"url": registry.url, "max.retries": 0}  # of the client's own
    threading.Timer(2.0, lambda: setattr(registry, "status", 200)).start()
    report, sink, dead, _ = memory_run.run(tmp_path, handler, payloads(30), decoder=decoder(impatient), workers=1)
    assert (report.rows, dead.records, sorted(sink.payloads)) == (30, [], expected(30))
    assert "its rows wait, and it is asked again" in capfd.readouterr().err


def test_without_a_run_an_answer_is_not_waited_for(registry):
    registry.status = 500
    with pytest.raises(RegistryError, match="when asked for schema 7"):
        Batch.decode(protobufs(2), decoder=Protobuf(OrderPb, registry=registry.url))


def test_what_confluents_serialisers_write_into_their_mock_is_read():
    client = SchemaRegistryClient.new_client({"url": "mock://orders"})
    pb = ProtobufSerializer(OrderPb, client, {"use.deprecated.format": False})
    payloads = [pb(OrderPb(order_id=row, note="x"), CONTEXT) for row in range(3)]
    rows = Batch.decode(payloads, decoder=Protobuf(OrderPb, registry=client)).rows()
    assert [row.order_id for row in rows] == [0, 1, 2]
    assert isinstance(rows[0], OrderPb)
    # Subjects of their own: the strategy is that of the topic's name.
    other = SchemaRegistryClient.new_client({"url": "mock://others"})
    js = JSONSerializer(json.dumps(JSON_SCHEMA), other)
    written = [js({"order_id": row, "note": "x"}, CONTEXT) for row in range(3)]
    assert Batch.decode(written, Order, decoder=JsonSchema(registry=other))["order_id"].tolist() == [0, 1, 2]
    assert Batch.decode(written, decoder=JsonSchema(registry=other)).rows()[2] == {"order_id": 2, "note": "x"}


def test_what_cannot_be_is_refused_when_it_is_declared(registry):
    with pytest.raises(ConfigError, match=r"Protobuf: message=.*: a class of messages, as protoc makes them"):
        Protobuf(Order, registry=registry.url)
    with pytest.raises(ConfigError, match=r"JsonSchema\(registry=\): a URL"):
        JsonSchema(registry=7)
    with pytest.raises(SchemaError, match=r"makes rows of Order, and no columns: leave schema= out"):
        Batch.decode([], Order, decoder=Protobuf(OrderPb, registry=registry.url))

    def wrong(orders: list[dict[str, Any]]) -> None:
        """Never called."""

    with pytest.raises(ConfigError, match=r"rows of dict.*"):
        App("shop").batch_handler(
            source=memory_run.MemoryConsumer([]), decoder=Protobuf(OrderPb, registry=registry.url), name="wrong"
        )(wrong)
