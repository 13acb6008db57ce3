"""A file's format beside the handler's decoder: what would be cut into wrong records is refused when it is declared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pythia_fast import App, Avro, FileConsumer, JsonSchema, MemoryProducer
from pythia_fast.errors import ConfigError

LAYOUT = np.dtype([("id", "<i8"), ("price", "<f8")])
SWAPPED = np.dtype([("price", "<f8"), ("id", "<i8")])
SHORT = np.dtype([("id", "<i4")])
AVRO = Avro({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]})
FRAMED = JsonSchema(registry="http://127.0.0.1:1")


class Order(msgspec.Struct):
    id: int


def declared(source: dict[str, Any], **handler: Any) -> App:
    app = App("shop")
    app.batch_handler(source=FileConsumer("orders", **source), name="score", **handler)(lambda batch: None)
    return app


@pytest.mark.parametrize(
    ("source", "handler", "told"),
    [
        ({}, {"decoder": LAYOUT}, 'cut into payloads at newlines (format="ndjson")'),
        ({}, {"decoder": LAYOUT}, 'the format that the file has, format="fixed", dtype='),
        ({}, {"decoder": "msgpack", "schema": Order}, 'the format that the file has, format="msgpack-frames"'),
        ({}, {"decoder": AVRO, "schema": Order}, "its decoder (avro) may hold: give FileConsumer"),
        ({}, {"decoder": FRAMED, "schema": Order}, "cut into payloads at newlines"),
        ({"format": "fixed", "dtype": LAYOUT}, {"decoder": SWAPPED}, "has records of dtype="),
        ({"format": "fixed", "dtype": LAYOUT}, {"schema": Order}, "and the decoder is json: make them the same"),
        (
            {"format": "fixed", "record_size": 16},
            {"decoder": SHORT},
            "record_size=16 bytes, and those of decoder= have 4",
        ),
    ],
)
def test_what_would_be_misread_is_refused(source: dict[str, Any], handler: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^handler 'score': file orders.*{re.escape(told)}"):
        declared(source, **handler)


@pytest.mark.parametrize(
    ("source", "handler"),
    [
        ({}, {"schema": Order}),
        ({}, {"decoder": "raw"}),
        ({"format": "msgpack-frames"}, {"decoder": LAYOUT}),
        ({"format": "msgpack-frames"}, {"decoder": AVRO, "schema": Order}),
        ({"format": "records"}, {"decoder": "msgpack", "schema": Order}),
        ({"format": "fixed", "record_size": 16}, {"decoder": LAYOUT}),
        ({"format": "fixed", "record_size": 16}, {"schema": Order}),
        ({"format": "fixed", "dtype": LAYOUT}, {"decoder": "raw"}),
        ({"format": "fixed", "dtype": LAYOUT}, {"decoder": LAYOUT}),
    ],
)
def test_what_fits_is_taken(source: dict[str, Any], handler: dict[str, Any]) -> None:
    declared(source, **handler)


def test_the_layout_of_the_file_is_the_decoders_where_that_is_left_out(tmp_path: Path) -> None:
    records = np.zeros(3, LAYOUT)
    records["id"] = [1, 2, 3]
    (tmp_path / "orders").write_bytes(records.tobytes())
    app, sink = App("shop"), MemoryProducer()

    @app.batch_handler(source=FileConsumer(tmp_path / "orders", format="fixed", dtype=LAYOUT), sink=sink)
    def ids(batch):  # type: ignore[no-untyped-def]
        return [b"%d" % each for each in batch["id"].tolist()]

    app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert sink.payloads == [b"1", b"2", b"3"]
