"""The writers' schemas that a schema registry holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pythia_fast.avro.writer import Writer
from pythia_fast.errors import SchemaError

if TYPE_CHECKING:
    from pythia_fast._ext.plan import Plan
    from pythia_fast.schema_registry import RegistryClient


def registered_writer(registry: RegistryClient, number: int, plan: Plan) -> Writer | str:
    """The schema of this number against the columns of a plan; why it reads nothing, where that is final.

    Raises RegistryError where the registry does not answer, or not with an answer that lasts.
    """
    from fastavro.schema import SchemaParseException, UnknownType, parse_schema

    found = registry.schema(number, "AVRO")
    if isinstance(found, str):
        return found
    named: dict[str, Any] = {}
    try:
        for text in found.taken_from:
            parse_schema(json.loads(text), named)
        return Writer(json.loads(found.text), plan, named)
    except (SchemaError, ValueError, SchemaParseException, UnknownType) as error:
        return f"schema {number} of {registry!r}: {error}"
