"""Reads a DecoderProbe's batch back as Python values, without the code of the package that does the same.

``rows(probe)`` gives one dict a row; ``expected(struct)`` puts what msgspec decoded in the same form:
nested Structs are dicts, datetimes microseconds since 1970, Raw values bytes.
"""

from __future__ import annotations

import datetime
import struct
from typing import Any

import msgspec
import numpy as np

from pythia_fast._ext.decoder_probe import DecoderProbe
from pythia_fast.schema import ColumnSpec, Kind, Schema

FORMATS = {
    Kind.BOOL: "?",
    Kind.INT8: "b",
    Kind.INT16: "h",
    Kind.INT32: "i",
    Kind.INT64: "q",
    Kind.UINT8: "B",
    Kind.UINT16: "H",
    Kind.UINT32: "I",
    Kind.UINT64: "Q",
    Kind.FLOAT32: "f",
    Kind.FLOAT64: "d",
    Kind.DATETIME: "q",
}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Reader:
    def __init__(self, probe: DecoderProbe) -> None:
        self.schema: Schema = probe.layout.plan.schema
        self.memory = probe.snapshot()
        self.places = probe.layout.describe()

    def row(self, i: int) -> dict[str, Any]:
        return self.fields(self.schema.children(), i)

    def fields(self, columns: Any, i: int) -> dict[str, Any]:
        return {column.name.rsplit(".", 1)[-1]: self.value(column, i) for column in columns}

    def value(self, column: ColumnSpec, i: int) -> Any:
        place = self.places[column.index]
        if place["validity"] is not None and not self.memory[place["validity"] + i // 8] >> (i % 8) & 1:
            return None
        if column.kind in FORMATS:
            return struct.unpack_from("<" + FORMATS[column.kind], self.memory, place["data"] + i * column.width)[0]
        if column.kind is Kind.STRUCT:
            return self.fields(self.schema.children(column), i)
        begin, end = struct.unpack_from("<ii", self.memory, place["offsets"] + 4 * i)
        if column.kind is Kind.LIST:
            child = self.schema.columns[column.index + 1]
            return [self.value(child, k) for k in range(begin, end)]
        data = self.memory[place["data"] + begin : place["data"] + end]
        return data.decode() if column.kind is Kind.STRING else data


def rows(probe: DecoderProbe) -> list[dict[str, Any]]:
    reader = Reader(probe)
    return [reader.row(i) for i in range(probe.rows)]


def expected(value: Any, schema: Schema, column: ColumnSpec | None = None) -> Any:
    """What msgspec decoded, as ``rows`` shows it."""
    if value is None:
        return None
    if column is None or column.kind is Kind.STRUCT:
        return {
            child.name.rsplit(".", 1)[-1]: expected(getattr(value, child.name.rsplit(".", 1)[-1]), schema, child)
            for child in schema.children(column)
        }
    if column.kind is Kind.LIST:
        child = schema.columns[column.index + 1]
        return [expected(item, schema, child) for item in value]
    if column.kind is Kind.DATETIME:
        aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
        return (aware - EPOCH) // datetime.timedelta(microseconds=1)
    if column.kind is Kind.FLOAT32:
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    if column.kind is Kind.RAW:
        return bytes(value)
    return value


def same(left: Any, right: Any) -> bool:
    """Equal in type and bits: -0.0 is not 0.0, True is not 1, 1.0 is not 1."""
    return repr(left) == repr(right)


def decode_oracle(payload: bytes, schema: Schema) -> Any:
    """``(True, value)`` or ``(False, message)`` from msgspec."""
    try:
        return True, expected(msgspec.json.decode(payload, type=schema.source), schema)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return False, str(error)
