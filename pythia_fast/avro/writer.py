"""Writer: a schema that payloads were written with, read into the columns of a handler."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from pythia_fast.avro.resolution import AvroType, resolve
from pythia_fast.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from pythia_fast._ext.avro_decoder import AvroProgram
    from pythia_fast._ext.plan import Plan


class Writer:
    """One writer's schema, and the columns that it is resolved against.

    ``given``: Avro's JSON, taken apart. ``named``: types by their names that it may use besides its own. Raises
    SchemaError where that is no Avro schema or does not fit, ConfigError without fastavro.
    """

    def __init__(self, given: Any, plan: Plan, named: Mapping[str, AvroType] | None = None) -> None:
        try:
            from fastavro.schema import SchemaParseException, UnknownType, parse_schema
        except ImportError as error:
            raise ConfigError(f"decoder=Avro(...) needs fastavro ({error}): pip install 'pythia-fast[avro]'") from error
        self._others = dict(named or {})
        self._named: dict[str, AvroType] = dict(self._others)
        try:
            self._parsed = parse_schema(given, self._named)
        except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"this is no Avro schema: {type(error).__name__}: {error}") from error
        self._resolved = resolve(self._parsed, self._named, plan.schema)
        self._plan = plan

    def program(self) -> AvroProgram:
        """For the compiled decoder."""
        from pythia_fast._ext.avro_decoder import AvroProgram

        return AvroProgram(self._plan, self._resolved.nodes)

    def row_of(self) -> Callable[[bytes], Any]:
        """What makes a Struct of a payload."""
        from fastavro import schemaless_reader
        from fastavro.schema import parse_schema

        instants = self._resolved.instants
        named = {name: _without_logical_types(other, instants) for name, other in self._others.items()}
        plain = parse_schema(_without_logical_types(self._parsed, instants), named)
        source = self._plan.schema.source
        own = (bytes, datetime.datetime)  # so a string is not taken for the base64 of bytes, nor for a date

        def row(payload: bytes) -> Any:
            value = schemaless_reader(io.BytesIO(payload), plain, None)
            return msgspec.convert(value, type=source, builtin_types=own)

        return row


def _without_logical_types(given: AvroType, but: frozenset[int]) -> AvroType:
    """A copy whose values are what is stored in the columns, and no decimal.Decimal or uuid.UUID."""
    if isinstance(given, list):
        return [_without_logical_types(branch, but) for branch in given]
    if not isinstance(given, dict):
        return given
    dropped = {"__fastavro_parsed__", "__fastavro_parsed", "__named_schemas"}
    if id(given) not in but:
        dropped.add("logicalType")
    return {key: _without_logical_types(value, but) for key, value in given.items() if key not in dropped}
