"""``decoder=Avro(...)``: which schema payloads were written with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pythia_fast import options
from pythia_fast._ext.plan import Plan
from pythia_fast.avro.writer import Writer
from pythia_fast.decoders import Decoding, PayloadFormat
from pythia_fast.errors import SchemaError
from pythia_fast.schema import Schema

if TYPE_CHECKING:
    from pythia_fast._ext.decoder import NativeDecoder


@dataclass(frozen=True)
class AvroDecoding(Decoding):
    """Payloads that were all written with one schema, with nothing before them."""

    writer: Writer

    def load(self) -> Callable[[Plan], NativeDecoder]:
        from pythia_fast._ext.avro_decoder import AvroDecoder

        return lambda plan: AvroDecoder(plan, self.writer.program())

    @cached_property
    def row(self) -> Callable[[Any], Any]:
        row = self.writer.row_of()
        return lambda payload: row(bytes(payload))


class Avro(PayloadFormat):
    """Payloads are records in Avro's binary encoding, written with ``schema``.

    Parameters:
        schema: Avro's schema of a record, as JSON text or as what ``json.loads`` makes of that.

    The handler's Struct says which of its fields become columns; see ``pythia_fast.avro.resolution``.
    """

    def __init__(self, schema: str | Mapping[str, Any] | Sequence[Any]) -> None:
        if isinstance(schema, str | bytes):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise SchemaError(f"Avro(schema=): this is no JSON: {error}") from error
        if not isinstance(schema, dict | list):
            raise options.refusal("Avro", "schema", schema, "an Avro schema, as JSON text or as a dict")
        self._schema = schema

    def __repr__(self) -> str:
        name = self._schema.get("name") if isinstance(self._schema, dict) else None
        return f"Avro({name or '...'})"

    def decoding(self, schema: Schema) -> Decoding:
        plan = Plan(schema)
        return AvroDecoding("avro", schema, plan, Writer(self._schema, plan))
