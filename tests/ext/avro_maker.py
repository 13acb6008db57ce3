"""Random Avro schemas that mostly fit the columns of a Struct, and random values of them.

Everything comes from one random.Random, so that a seed says it all.
"""

from __future__ import annotations

import math
import random
import re
import struct
from typing import Any

from pythia_fast.schema import ColumnSpec, Fallback, Kind, Schema, describe

from .json_maker import PIECES, make_struct

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
EXTRAS = [
    "null",
    "boolean",
    "long",
    "double",
    "string",
    "bytes",
    ["null", "string", {"type": "array", "items": "int"}],
    {"type": "map", "values": {"type": "array", "items": "float"}},
    {"type": "array", "items": {"type": "map", "values": ["null", "boolean"]}},
]


def make_readable_struct(rng: random.Random) -> Any:
    """A Struct that can be read from Avro: no tag, no Raw, and keys that are names there."""
    while True:
        made = make_struct(rng)
        schema = describe(made)
        tagged = any(struct.tag_field is not None for struct in schema.structs)
        raw = any(column.kind is Kind.RAW for column in schema.columns)
        keys = [field.name for struct in schema.structs for field in struct.fields]
        if not (tagged or raw) and all(map(NAME.fullmatch, keys)):
            return made


class WriterMaker:
    """Makes one writer's schema for the columns of a Struct; with ``odd``, some of it does not fit."""

    def __init__(self, rng: random.Random, schema: Schema, odd: float) -> None:
        self.rng, self.schema, self.odd = rng, schema, odd
        self.names = 0

    def name(self) -> str:
        self.names += 1
        return f"{self.rng.choice(['', 'shop.', 'a.b.'])}N{self.names}"

    def record(self, index: int) -> dict[str, Any]:
        struct = self.schema.structs[index]
        name = self.name()
        fields = [
            {"name": field.name, "type": self.of(self.schema.columns[field.column])}
            for field in struct.fields
            if field.fallback is Fallback.REQUIRED or self.rng.random() < 0.7
        ]
        if not struct.forbid_unknown or self.rng.random() < self.odd:
            extras = range(self.rng.choice([0, 0, 1, 3]))
            fields.extend({"name": f"extra{extra}", "type": self.extra()} for extra in extras)
        self.rng.shuffle(fields)
        return {"type": "record", "name": name, "fields": fields}

    def extra(self) -> Any:
        choice = self.rng.randrange(len(EXTRAS) + 3)
        if choice < len(EXTRAS):
            return EXTRAS[choice]
        if choice == len(EXTRAS):
            return {"type": "fixed", "name": self.name(), "size": self.rng.randrange(5)}
        if choice == len(EXTRAS) + 1:
            return {"type": "enum", "name": self.name(), "symbols": ["A", "B"]}
        name = self.name()
        return {"type": "record", "name": name, "fields": [{"name": "next", "type": ["null", name]}]}

    def of(self, column: ColumnSpec) -> Any:
        made = self.plain(column)
        chance = self.rng.random()
        if column.optional or chance < self.odd:
            branches = [made, "null"]
            if chance < 0.3:
                branches.append("bytes" if made != "bytes" else "string")
            self.rng.shuffle(branches)
            return branches
        return made

    def plain(self, column: ColumnSpec) -> Any:
        kind, rng = column.kind, self.rng
        if kind is Kind.BOOL:
            return "boolean"
        if kind in (Kind.FLOAT32, Kind.FLOAT64):
            return rng.choice(["float", "double", "double", "int", "long"])
        if kind is Kind.DATETIME:
            local = "" if column.bounds.tz or rng.random() < 0.8 else "local-"
            return {"type": "long", "logicalType": f"{local}timestamp-{rng.choice(['millis', 'micros'])}"}
        if kind is Kind.STRING:
            symbols = ["A", "BB", "default_"]
            return "string" if rng.random() < 0.8 else {"type": "enum", "name": self.name(), "symbols": symbols}
        if kind is Kind.BYTES:
            if rng.random() < 0.7:
                return rng.choice(["bytes", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}])
            return {"type": "fixed", "name": self.name(), "size": rng.randrange(4)}
        if kind is Kind.LIST:
            return {"type": "array", "items": self.of(self.schema.columns[column.index + 1])}
        if kind is Kind.STRUCT:
            return self.record(column.struct)
        return rng.choice(["int", "long", {"type": "long", "logicalType": "timestamp-millis"}])


class ValueMaker:
    """Encodes random values of a writer's schema by itself: in blocks of any size, with or without their bytes."""

    def __init__(self, rng: random.Random, named: dict[str, Any]) -> None:
        self.rng, self.named = rng, named

    def long(self, value: int) -> bytes:
        bits, out = (value << 1) ^ (value >> 63), bytearray()
        bits &= 2**64 - 1
        while bits > 0x7F:
            out.append(bits & 0x7F | 0x80)
            bits >>= 7
        out.append(bits)
        return bytes(out)

    def text(self, data: bytes) -> bytes:
        return self.long(len(data)) + data

    def of(self, given: Any, depth: int = 0) -> bytes:
        rng = self.rng
        if isinstance(given, str) and given in self.named:
            given = self.named[given]
        if isinstance(given, list):
            empty = [k for k, branch in enumerate(given) if branch == "null"]
            branch = rng.choice(empty) if empty and (depth > 6 or rng.random() < 0.3) else rng.randrange(len(given))
            return self.long(branch) + self.of(given[branch], depth + 1)
        kind = given if isinstance(given, str) else given["type"]
        if kind == "null":
            return b""
        if kind == "boolean":
            return bytes([rng.randrange(2)])
        if kind in ("int", "long"):
            if not isinstance(given, str) and "timestamp" in given.get("logicalType", ""):
                seconds = rng.randrange(-62_135_596_800, 253_402_300_800)
                unit = 1000 if "millis" in given["logicalType"] else 1_000_000
                return self.long(seconds * unit + rng.randrange(unit))
            most = 31 if kind == "int" else rng.choice([3, 8, 20, 63])
            return self.long(rng.randrange(-(2**most), 2**most) if rng.random() < 0.7 else rng.randrange(-5, 9))
        if kind == "float":
            return struct.pack("<f", rng.choice([0.0, -0.0, 1.5, math.inf, math.nan, rng.uniform(-9, 9)]))
        if kind == "double":
            return struct.pack("<d", rng.choice([0.0, -0.0, 1.5, 1e300, -math.inf, math.nan, rng.uniform(-9, 9)]))
        if kind == "string":
            return self.text("".join(rng.choices(PIECES, k=rng.randrange(4))).encode())
        if kind == "bytes":
            return self.text(rng.randbytes(rng.randrange(9)))
        if kind == "fixed":
            return rng.randbytes(given["size"])
        if kind == "enum":
            return self.long(rng.randrange(len(given["symbols"])))
        if kind == "record":
            return b"".join(self.of(field["type"], depth + 1) for field in given["fields"])
        return self.blocks(given, depth)

    def blocks(self, given: Any, depth: int) -> bytes:
        out = bytearray()
        for _ in range(0 if depth > 6 else self.rng.choice([0, 1, 1, 2])):
            items = []
            for _ in range(self.rng.randrange(1, 4)):
                key = self.text(b"key") if given["type"] == "map" else b""
                items.append(key + self.of(given["values" if given["type"] == "map" else "items"], depth + 1))
            data = b"".join(items)
            sized = self.rng.random() < 0.3
            out += self.long(-len(items)) + self.long(len(data)) if sized else self.long(len(items))
            out += data
        return bytes(out + b"\0")


def damaged(rng: random.Random, payload: bytes) -> bytes:
    """The payload, cut, longer, or with a byte changed."""
    choice = rng.randrange(4)
    at = rng.randrange(len(payload) + 1)
    if choice == 0:
        return payload[:at]
    if choice == 1:
        return payload + rng.randbytes(rng.randrange(1, 4))
    if choice == 2 and payload:
        return payload[: at - 1] + rng.randbytes(1) + payload[at:] if at else payload
    return payload[:at] + rng.randbytes(1) + payload[at:]
