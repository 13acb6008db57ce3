"""``decoder=Avro(...)``: which schema payloads were written with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pythia_fast import options
from pythia_fast._ext.plan import Plan
from pythia_fast.avro.registered import registered_writer
from pythia_fast.avro.resolution import check_readable
from pythia_fast.avro.writer import Writer
from pythia_fast.decoders import Decoding, PayloadFormat
from pythia_fast.errors import ConfigError, RegistryError, SchemaError
from pythia_fast.schema import Schema
from pythia_fast.schema_registry import FRAME_BYTES, KnownSchemas, RegistryClient

if TYPE_CHECKING:
    from pythia_fast._ext.avro_decoder import AvroProgram
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


@dataclass(frozen=True)
class RegisteredAvroDecoding(Decoding):
    """Payloads that begin with the number of their schema in a registry."""

    registry: RegistryClient

    def load(self) -> Callable[[Plan], NativeDecoder]:
        from pythia_fast._ext.avro_decoder import AvroDecoder

        return lambda plan: AvroDecoder(plan, ask=self._program)

    def native(self, wait: Callable[[RegistryError], None] | None = None) -> NativeDecoder:
        self._writers.wait = wait
        return super().native()

    def _program(self, number: int) -> AvroProgram | None:
        found = self._writers.get(number)
        return None if found is None else found.program()

    @cached_property
    def _writers(self) -> KnownSchemas[Writer]:
        return KnownSchemas(lambda number: registered_writer(self.registry, number, self.plan))

    @cached_property
    def row(self) -> Callable[[Any], Any]:
        made: dict[Writer, Callable[[bytes], Any]] = {}

        def row(payload: Any) -> Any:
            writer = self._writers.of(payload)
            if writer not in made:
                made[writer] = writer.row_of()
            return made[writer](bytes(payload[FRAME_BYTES:]))

        return row


class Avro(PayloadFormat):
    """Payloads are records in Avro's binary encoding, all written with one schema, or with those of a registry.

    Parameters:
        schema: Avro's schema of a record, as JSON text or as what ``json.loads`` makes of that.
        registry: each payload begins with a zero byte and the number of its schema in this registry (four bytes,
            big-endian), as Confluent's serialisers write it. Its URL, the settings of
            ``confluent_kafka.schema_registry.SchemaRegistryClient`` as a dict (``url``, ``basic.auth.user.info``,
            ``ssl.ca.location``, ...), or such a client.

    The handler's Struct says which fields become columns, and what those get that a writer does not have:
    ``pythia_fast.avro.resolution`` has the rules. Needs ``pip install 'pythia-fast[avro]'``.

    Raises ConfigError unless one of the two is given, SchemaError for what is no Avro schema.
    """

    def __init__(self, schema: str | Mapping[str, Any] | None = None, *, registry: Any = None) -> None:
        if (schema is None) == (registry is None):
            raise ConfigError("Avro(...): give either the schema= that all payloads were written with, or a registry=")
        self._registry = None if registry is None else RegistryClient(registry, "Avro", "avro")
        if isinstance(schema, str | bytes):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise SchemaError(f"Avro(schema=): this is no JSON: {error}") from error
        if schema is not None and not isinstance(schema, Mapping):
            raise options.refusal("Avro", "schema", schema, "an Avro schema of a record, as JSON text or as a dict")
        self._schema = schema

    def __repr__(self) -> str:
        return f"Avro({self._registry!r})" if self._schema is None else f"Avro({self._schema.get('name', '...')})"

    def decoding(self, schema: Schema) -> Decoding:
        plan = Plan(schema)
        if self._registry is not None:
            check_readable(schema)
            return RegisteredAvroDecoding("avro", schema, plan, self._registry)
        return AvroDecoding("avro", schema, plan, Writer(self._schema, plan))
