"""Resolution: what becomes of each value that a writer's Avro schema puts into a payload.

Avro resolves the writer's schema against the reader's (https://avro.apache.org/docs/1.12.0/specification/, "Schema
Resolution"); here the reader's is a Struct and its columns:

| writer                                     | column                                                           |
|--------------------------------------------|------------------------------------------------------------------|
| boolean                                    | bool                                                             |
| int, long                                  | any integer type (out of its range: the row is refused), float   |
| float, double                              | float64, float32 (out of its range: refused)                     |
| string, enum                               | string                                                           |
| bytes, fixed (decimals: their bytes)       | bytes                                                            |
| timestamp-millis, -micros, and local ones  | datetime, or the number itself as an integer                     |
| array                                      | list                                                             |
| record                                     | a Struct: fields by their names, in any order                    |
| union                                      | what its branches come to; null where the column is Optional     |
| null                                       | an Optional column                                               |
| map, and fields that the Struct has not    | stepped over                                                     |

A field of the Struct that the writer does not have gets its default. A branch of a union that its column does not take
refuses the rows that have it, and not the schema, as long as one of the branches fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from pythia_fast.column_tree import ColumnSpec, Fallback, Kind, Schema, StructSpec
from pythia_fast.errors import SchemaError

AvroType: TypeAlias = Any  #: as fastavro's parse_schema leaves it: a name, a dict with "type", or a list of branches


class Op(IntEnum):
    """What a value is; the numbers are those of ext/avro_program.h."""

    NULL = 0
    BOOLEAN = 1
    LONG = 2
    FLOAT = 3
    DOUBLE = 4
    BYTES = 5
    STRING = 6
    FIXED = 7
    ENUM = 8
    ARRAY = 9
    MAP = 10
    UNION = 11
    RECORD = 12
    TIMESTAMP = 13


class Use(IntEnum):
    """What becomes of it; the numbers are those of ext/avro_program.h."""

    STORE = 0
    SKIP = 1
    REFUSE = 2


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the writer's schema, as ext/avro_program.h has it; ``children`` are indices into the list of all."""

    op: Op
    use: Use = Use.STORE
    found: int = 0
    takes_none: bool = False
    aware: bool = False
    column: int = -1
    record: int = -1
    children: tuple[int, ...] = ()
    symbols: tuple[str, ...] = ()
    absent: tuple[int, ...] = ()
    size: int = 0


_INTEGERS = frozenset(range(Kind.INT8, Kind.UINT64 + 1))
_FLOATS = frozenset({Kind.FLOAT32, Kind.FLOAT64})
_OPS = {
    "null": Op.NULL,
    "boolean": Op.BOOLEAN,
    "int": Op.LONG,
    "long": Op.LONG,
    "float": Op.FLOAT,
    "double": Op.DOUBLE,
    "bytes": Op.BYTES,
    "string": Op.STRING,
    "fixed": Op.FIXED,
    "enum": Op.ENUM,
    "array": Op.ARRAY,
    "map": Op.MAP,
    "record": Op.RECORD,
    "error": Op.RECORD,
}
#: Columns that values of no children may go into.
_TAKES = {
    Op.BOOLEAN: frozenset({Kind.BOOL}),
    Op.LONG: _INTEGERS | _FLOATS,
    Op.FLOAT: _FLOATS,
    Op.DOUBLE: _FLOATS,
    Op.BYTES: frozenset({Kind.BYTES}),
    Op.FIXED: frozenset({Kind.BYTES}),
    Op.STRING: frozenset({Kind.STRING}),
    Op.ENUM: frozenset({Kind.STRING}),
}
#: pf_refusal.found (ext/decoder.h)
_FOUND = {
    Op.NULL: 1,
    Op.BOOLEAN: 2,
    Op.LONG: 3,
    Op.FLOAT: 4,
    Op.DOUBLE: 4,
    Op.STRING: 5,
    Op.ENUM: 5,
    Op.ARRAY: 6,
    Op.RECORD: 7,
    Op.MAP: 7,
    Op.BYTES: 8,
    Op.FIXED: 8,
}
#: logical type -> (microseconds of a unit, whether it is an instant)
_TIMESTAMPS = {
    "timestamp-millis": (1000, True),
    "timestamp-micros": (1, True),
    "local-timestamp-millis": (1000, False),
    "local-timestamp-micros": (1, False),
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """``nodes``: the first is the row. ``instants``: ``id()`` of definitions whose values go into a datetime."""

    nodes: list[Node]
    instants: frozenset[int]


class _Mismatch(Exception):
    """A writer's type does not fit its column: as the last word a SchemaError, in a union one branch less."""


def resolve(writer: AvroType, named: Mapping[str, AvroType], schema: Schema) -> Resolved:
    """What becomes of each value of a writer's schema.

    ``writer``, ``named``: what ``fastavro.schema.parse_schema(given, named)`` returns and fills in. Raises SchemaError
    that names the field, where the two do not fit.
    """
    check_readable(schema)
    resolver = _Resolver(named, schema)
    try:
        return resolver.row(writer)
    except _Mismatch as mismatch:
        raise SchemaError(f"the writer's schema does not fit {schema.name}: {mismatch}") from None


def check_readable(schema: Schema) -> None:
    """Raises SchemaError for columns that no Avro schema has values for."""
    for spec in schema.columns:
        if spec.kind is Kind.RAW:
            raise SchemaError(f"field {spec.name}: msgspec.Raw keeps a value as its JSON text, which Avro has none of")
    if any(struct.tag_field is not None for struct in schema.structs):
        raise SchemaError(f"{schema.name}: a Struct with a tag cannot be read from Avro, where records have names")


class _Resolver:
    def __init__(self, named: Mapping[str, AvroType], schema: Schema) -> None:
        self._named = named
        self._schema = schema
        self._nodes: list[Node] = []
        self._instants: set[int] = set()
        self._skipped: dict[str, int] = {}  #: full name of a record -> its node, where it is stepped over

    def row(self, writer: AvroType) -> Resolved:
        definition = self._definition(writer)
        if _op(definition) is not Op.RECORD:
            raise _Mismatch(f"a row is a record, and this is {_spell(definition)}")
        self._record(definition, None)
        return Resolved(self._nodes, frozenset(self._instants))

    # -- values that go into a column

    def _store(self, given: AvroType, spec: ColumnSpec) -> int:
        definition = self._definition(given)
        if isinstance(definition, list):
            return self._union(definition, spec)
        op = _op(definition)
        if op is Op.NULL:
            if not spec.optional:
                raise _Mismatch(f"field {spec.name} is null, and its annotation is not Optional")
            return self._add(Node(Op.NULL, takes_none=True, column=spec.index))
        if op is Op.RECORD and spec.kind is Kind.STRUCT:
            return self._record(definition, spec)
        if op is Op.ARRAY and spec.kind is Kind.LIST:
            at = self._reserve()
            item = self._store(definition["items"], self._schema.columns[spec.index + 1])
            return self._fill(at, Node(Op.ARRAY, column=spec.index, children=(item,)))
        if op is Op.LONG and spec.kind is Kind.DATETIME and definition.get("logicalType") in _TIMESTAMPS:
            unit, aware = _TIMESTAMPS[definition["logicalType"]]
            self._instants.add(id(definition))
            return self._add(Node(Op.TIMESTAMP, column=spec.index, aware=aware, size=unit))
        if spec.kind not in _TAKES.get(op, ()):
            raise _Mismatch(f"field {spec.name} is {spec.type_name}, and {_spell(definition)} in the writer's schema")
        symbols = tuple(definition["symbols"]) if op is Op.ENUM else ()
        size = definition["size"] if op is Op.FIXED else 0
        return self._add(
            Node(op, takes_none=op is Op.FIXED and not size, column=spec.index, symbols=symbols, size=size)
        )

    def _union(self, branches: list[AvroType], spec: ColumnSpec) -> int:
        at = self._reserve()
        children: list[int] = []
        refused: list[str] = []
        for branch in branches:
            try:
                children.append(self._store(branch, spec))
            except _Mismatch as mismatch:
                op = _op(self._definition(branch))
                children.append(self._add(Node(op, Use.REFUSE, found=_FOUND[op], column=spec.index)))
                if op is not Op.NULL:
                    refused.append(str(mismatch))
        if refused and len(refused) == sum(_op(self._definition(branch)) is not Op.NULL for branch in branches):
            raise _Mismatch(refused[0])
        return self._fill(at, Node(Op.UNION, column=spec.index, children=tuple(children)))

    def _record(self, definition: AvroType, spec: ColumnSpec | None) -> int:
        """Into the fields of a Struct: of the one in this column, or of the row."""
        index = 0 if spec is None else spec.struct
        struct = self._schema.structs[index]
        at = self._reserve()
        wanted = {field.name: number for number, field in enumerate(struct.fields)}
        children = []
        for field in definition["fields"]:
            number = wanted.pop(field["name"], None)
            if number is not None:
                children.append(self._store(field["type"], self._schema.columns[struct.fields[number].column]))
            elif struct.forbid_unknown:
                raise _Mismatch(f"{definition['name']}.{field['name']} is a field that the Struct forbids")
            else:
                children.append(self._skip(field["type"]))
        absent = tuple(sorted(wanted.values()))
        self._check_defaults(struct, absent, definition)
        takes_none = all(self._nodes[child].takes_none for child in children)
        column = -1 if spec is None else spec.index
        return self._fill(
            at,
            Node(
                Op.RECORD, takes_none=takes_none, column=column, record=index, children=tuple(children), absent=absent
            ),
        )

    def _check_defaults(self, struct: StructSpec, absent: tuple[int, ...], definition: AvroType) -> None:
        for number in absent:
            field = struct.fields[number]
            if field.fallback is Fallback.REQUIRED:
                name = self._schema.columns[field.column].name
                raise _Mismatch(f"{definition['name']} has no {field.name!r}, and field {name} has no default")

    # -- values that are stepped over

    def _skip(self, given: AvroType) -> int:
        definition = self._definition(given)
        if isinstance(definition, list):
            at = self._reserve()
            return self._fill(at, Node(Op.UNION, Use.SKIP, children=tuple([self._skip(b) for b in definition])))
        op = _op(definition)
        if op is Op.RECORD:
            if (known := self._skipped.get(definition["name"])) is not None:
                return known
            at = self._skipped[definition["name"]] = self._reserve()
            children = tuple([self._skip(field["type"]) for field in definition["fields"]])
            takes_none = all(self._nodes[child].takes_none for child in children)
            return self._fill(at, Node(op, Use.SKIP, takes_none=takes_none, children=children))
        if op in (Op.ARRAY, Op.MAP):
            at = self._reserve()
            item = self._skip(definition["items" if op is Op.ARRAY else "values"])
            return self._fill(at, Node(op, Use.SKIP, children=(item,)))
        size = definition["size"] if op is Op.FIXED else len(definition["symbols"]) if op is Op.ENUM else 0
        return self._add(Node(op, Use.SKIP, takes_none=op is Op.NULL or (op is Op.FIXED and not size), size=size))

    # -- nodes

    def _definition(self, given: AvroType) -> AvroType:
        """Of a type by name or by itself: a dict with "type", or a list of branches."""
        while not isinstance(given, list):
            name = given if isinstance(given, str) else given["type"]
            if isinstance(name, str):
                if name in _OPS:
                    return {"type": given} if isinstance(given, str) else given
                given = self._named[name]
            else:
                given = name  # {"type": {"type": ...}}
        return given

    def _add(self, node: Node) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _reserve(self) -> int:
        """A place before those of the children; a value that holds itself takes none for free."""
        return self._add(Node(Op.RECORD, Use.SKIP))

    def _fill(self, at: int, node: Node) -> int:
        self._nodes[at] = node
        return at


def _op(definition: AvroType) -> Op:
    return Op.UNION if isinstance(definition, list) else _OPS[definition["type"]]


def _spell(definition: AvroType) -> str:
    if isinstance(definition, list):
        return "a union"
    logical = definition.get("logicalType")
    name = definition.get("name")
    named = f" {name}" if name else ""
    return f"{definition['type']}{named}" + (f" ({logical})" if logical else "")
