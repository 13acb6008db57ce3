"""From a ``msgspec.Struct`` to the columns that a decoder fills (from a NumPy dtype: record_columns.py).

    class Order(msgspec.Struct):              order_id        int64
        order_id: int                         customer        struct
        customer: Customer              ->    customer.name   string
        tags: list[str] = []                  tags            list
                                              tags[]          string

The tree (column_tree.py) stands flat, depth first; the names use the Struct's own field names (renames only change the
keys that are looked for in a payload).

| annotation                                | column                                                      |
|-------------------------------------------|-------------------------------------------------------------|
| ``bool``                                  | bool                                                        |
| ``int``                                   | int64; ``Annotated[int, np.uint16]``: that integer type     |
| ``float``                                 | float64; ``Annotated[float, np.float32]``: float32          |
| ``str``, ``bytes``                        | offsets + data                                              |
| ``datetime.datetime``                     | int64 microseconds since 1970 UTC, ``datetime64[us]``       |
| ``Optional[X]``                           | X with a validity bitmap                                    |
| a Struct                                  | dotted columns, one a field                                 |
| ``list[X]``                               | offsets + the column of X                                   |
| ``msgspec.Raw``                           | the value's own bytes, validated but not decoded            |

Anything else is refused with ``SchemaError``, which names the field and what to use instead.
"""

from __future__ import annotations

import dataclasses
import datetime
import struct
import types
import typing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal, Union

import msgspec
import numpy as np

from pythia_fast.column_tree import (
    DTYPES,
    KIND_OF_DTYPE,
    MAX_FIELDS,
    Bounds,
    ColumnSpec,
    ColumnTree,
    Fallback,
    FieldSpec,
    Kind,
    Schema,
    SchemaLike,
    StructSpec,
)
from pythia_fast.errors import SchemaError
from pythia_fast.record_columns import RecordColumns

#: What a schema is, and how one is made: the door to both for the rest of the package.
__all__ = [
    "DTYPES",
    "MAX_FIELDS",
    "Bounds",
    "ColumnSpec",
    "Fallback",
    "Kind",
    "Schema",
    "SchemaLike",
    "check_schema",
    "describe",
]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def describe(source: SchemaLike) -> Schema:
    """The columns of a Struct type, of a structured dtype, or of raw payloads (None).

    Raises SchemaError naming ``Struct.field`` when a field cannot become a column.
    """
    check_schema(source)
    return _describe(source)


def check_schema(source: SchemaLike) -> None:
    """Raises SchemaError for what is no schema at all."""
    if source is not None and not isinstance(source, np.dtype) and _struct_type(source) is None:
        raise SchemaError(
            f"schema must be a msgspec.Struct type, not {_spell(source)}; "
            "for a fixed layout pass the NumPy structured dtype, for undecoded bytes use decoder='raw'"
        )


@lru_cache(maxsize=256)
def _describe(source: SchemaLike) -> Schema:
    tree = _grow(source)
    columns = tuple(tree.columns)
    by_name: dict[str, ColumnSpec] = {}
    for column in columns:
        if by_name.setdefault(column.name, column) is not column:
            raise SchemaError(f"two fields make a column named {column.name!r}; rename one of them")
    return Schema(source, columns, tuple(tree.structs), by_name)


def _grow(source: SchemaLike) -> ColumnTree:
    if isinstance(source, np.dtype):
        record = RecordColumns()
        record.record(source)
        return record
    tree = _StructColumns()
    if source is None:
        tree.payload()
    else:
        tree.row(source)
    return tree


@dataclass(slots=True)
class _Wanted:
    """An annotation taken apart: the bare type, and what its wrappers said."""

    bare: Any
    nullable: bool = False
    dtype: np.dtype[Any] | None = None
    bounds: dict[str, Any] = field(default_factory=dict)


class _StructColumns(ColumnTree):
    """Walks a Struct type."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Any] = []  # Struct types that we are inside of, to refuse recursion

    def payload(self) -> None:
        self.begin("payload", Kind.BYTES, False, -1, Bounds(), "payload")
        self.structs.append(StructSpec((FieldSpec("payload", 0, Fallback.BYTES),)))  # of a null payload: no bytes

    def row(self, source: Any) -> None:
        # msgspec's own checks come first: what it cannot decode has no columns either.
        try:
            msgspec.json.Decoder(source)
        except (TypeError, ValueError, NameError, RecursionError) as error:
            raise SchemaError(f"{_spell(source)}: {error}") from error
        self.struct(source, "", False, -1, _spell(source))

    def struct(self, source: Any, prefix: str, nullable: bool, list_index: int, where: str) -> int:
        """Append the columns of a Struct's fields; returns its index in ``structs``."""
        if source in self.open:
            raise SchemaError(f"{where}: {_spell(source)} contains itself; keep the inner one as msgspec.Raw")
        config = _struct_type(source).__struct_config__
        if config.array_like:
            raise SchemaError(
                f"{where}: {_spell(source)} is array_like, but columns are found by key; "
                "drop array_like=True or use msgspec.Raw"
            )
        if hasattr(_struct_type(source), "__post_init__"):
            raise SchemaError(
                f"{where}: {_spell(source)} has a __post_init__, which would run once a row and is not run by the "
                "decoders; do its checks on the columns in the handler (batch.reject) and drop it from the schema"
            )
        infos = msgspec.structs.fields(source)
        if len(infos) > MAX_FIELDS:
            raise SchemaError(
                f"{where}: {_spell(source)} has {len(infos)} fields, at most {MAX_FIELDS} can be columns; "
                "leave out the fields that no handler reads"
            )
        index = len(self.structs)
        self.structs.append(StructSpec(()))
        self.open.append(source)
        fields = []
        for info in infos:
            here = f"{_spell(source)}.{info.name}"
            wanted = _take_apart(info.type, here)
            column = self.column(wanted, prefix + info.name, nullable, list_index, here)
            fields.append(self.field(info, wanted, column, here))
        self.open.pop()
        self.structs[index] = StructSpec(tuple(fields), config.forbid_unknown_fields, config.tag_field, config.tag)
        return index

    def column(self, wanted: _Wanted, name: str, inherited: bool, list_index: int, where: str) -> int:
        """Append the column of one annotation and everything below it."""
        nullable = wanted.nullable or inherited
        kind = _kind_of(wanted, where)
        bounds = _bounds_of(wanted, kind, where)
        index = self.begin(name, kind, nullable, list_index, bounds, where, wanted.nullable)
        if kind is Kind.STRUCT:
            struct_index = self.struct(wanted.bare, f"{name}.", nullable, list_index, where)
            self.finish(index, len(self.structs[struct_index].fields), struct_index)
        elif kind is Kind.LIST:
            arguments = typing.get_args(wanted.bare)
            if not arguments:
                raise SchemaError(f"{where}: a list needs the type of its values: list[int], say; or use msgspec.Raw")
            # A null list has no values, so what is above it says nothing about them.
            self.column(_take_apart(arguments[0], f"{where}[]"), f"{name}[]", False, index, f"{where}[]")
            self.finish(index, 1)
        return index

    def field(self, info: msgspec.structs.FieldInfo, wanted: _Wanted, column: int, where: str) -> FieldSpec:
        spec = self.columns[column]
        if info.default_factory is not msgspec.NODEFAULT:
            fallback, bits, data = self.factory(info.default_factory, spec, wanted, where), 0, b""
        elif info.default is msgspec.NODEFAULT:
            fallback, bits, data = Fallback.REQUIRED, 0, b""
        else:
            fallback, bits, data = self.default(info.default, spec, wanted, where)
        return FieldSpec(info.encode_name, column, fallback, bits, data)

    def factory(self, factory: Any, spec: ColumnSpec, wanted: _Wanted, where: str) -> Fallback:
        if spec.kind is Kind.LIST and factory is list:
            return Fallback.EMPTY
        if spec.kind is Kind.STRUCT and factory is wanted.bare:
            self.all_defaults(spec, where)
            return Fallback.STRUCT
        raise SchemaError(
            f"{where}: default_factory={_spell(factory)} would run once a row; "
            "use a constant default, Optional with None, default_factory=list for a list, or the Struct itself"
        )

    def all_defaults(self, spec: ColumnSpec, where: str) -> None:
        missing = [f.name for f in self.structs[spec.struct].fields if f.fallback is Fallback.REQUIRED]
        if missing:
            raise SchemaError(f"{where}: the default cannot be made, {missing[0]!r} has no default of its own")

    def default(self, value: Any, spec: ColumnSpec, wanted: _Wanted, where: str) -> tuple[Fallback, int, bytes]:
        if value is None:
            if not wanted.nullable:
                raise SchemaError(f"{where}: default None needs the annotation Optional[{_spell(wanted.bare)}]")
            return Fallback.NULL, 0, b""
        if spec.kind is Kind.STRUCT:
            self.all_defaults(spec, where)
            if not isinstance(value, _struct_type(wanted.bare)) or value != _struct_type(wanted.bare)():
                raise SchemaError(f"{where}: a default {_spell(wanted.bare)} must equal {_spell(wanted.bare)}()")
            return Fallback.STRUCT, 0, b""
        try:
            if spec.kind.variable:
                return Fallback.BYTES, 0, _default_bytes(value, spec.kind)
            return Fallback.BITS, _default_bits(value, spec.kind), b""
        except (TypeError, ValueError, OverflowError, struct.error) as error:
            raise SchemaError(f"{where}: default {value!r} does not fit a column of {spec.type_name}") from error


def _take_apart(annotation: Any, where: str) -> _Wanted:
    """Strip Annotated, Optional, NewType and type aliases; keep what they said."""
    wanted = _Wanted(annotation)
    while True:
        bare = wanted.bare
        origin = typing.get_origin(bare)
        if origin is Annotated:
            wanted.bare, *extras = typing.get_args(bare)
            for extra in extras:
                _read_extra(extra, wanted, where)
        elif origin in (Union, types.UnionType):
            members = typing.get_args(bare)
            rest = [member for member in members if member is not type(None)]
            if len(rest) != 1:
                raise SchemaError(f"{where}: {_spell(bare)} has no single column type; {_union_advice(rest)}")
            wanted.nullable = wanted.nullable or len(rest) < len(members)
            wanted.bare = rest[0]
        elif hasattr(bare, "__supertype__"):
            wanted.bare = bare.__supertype__
        elif type(bare).__name__ == "TypeAliasType":
            wanted.bare = bare.__value__
        else:
            return wanted


def _union_advice(members: list[Any]) -> str:
    if msgspec.UnsetType in members:
        return "use Optional with the default None instead of UNSET"
    if set(members) == {int, float}:
        return "use float"
    return "use msgspec.Raw, or one field for each type"


def _read_extra(extra: Any, wanted: _Wanted, where: str) -> None:
    """One thing said inside Annotated: msgspec.Meta or a NumPy type; other tools' marks are not ours."""
    if isinstance(extra, msgspec.Meta):
        if extra.pattern is not None:
            raise SchemaError(
                f"{where}: Meta(pattern=) is not checked by the decoders; drop it and call batch.reject() on the rows "
                "that do not match, or keep the field as msgspec.Raw"
            )
        for bound in dataclasses.fields(Bounds):
            value = getattr(extra, bound.name)
            if value is not None:
                wanted.bounds[bound.name] = value
    elif isinstance(extra, np.dtype) or (isinstance(extra, type) and issubclass(extra, np.generic)):
        if extra in _ABSTRACT:
            raise SchemaError(f"{where}: numpy.{_spell(extra)} is a family of types; use one of it, numpy.int32 say")
        wanted.dtype = np.dtype(extra)


_ABSTRACT = frozenset(
    {
        np.generic,
        np.number,
        np.integer,
        np.signedinteger,
        np.unsignedinteger,
        np.inexact,
        np.floating,
        np.complexfloating,
    }
    | {np.flexible, np.character}
)
_INSTEAD = {
    set: "use list",
    frozenset: "use list",
    tuple: "use list, or a nested Struct",
    dict: "use a nested Struct, or msgspec.Raw to keep it undecoded",
    datetime.date: "use datetime.datetime, or str",
    datetime.time: "use str",
    datetime.timedelta: "use float seconds, or str",
    bytearray: "use bytes",
    memoryview: "use bytes",
    type(None): "leave the field out",
}


def _kind_of(wanted: _Wanted, where: str) -> Kind:
    bare, dtype = wanted.bare, wanted.dtype
    kind = _bare_kind(bare, where)
    if kind is Kind.RAW and wanted.nullable:
        raise SchemaError(
            f"{where}: Optional[msgspec.Raw] has two ways to say null; "
            "use msgspec.Raw, which keeps a null as the bytes null; default msgspec.Raw() if the key may be absent"
        )
    if dtype is None:
        return kind
    allowed = {Kind.INT64: "iu", Kind.FLOAT64: "f"}.get(kind, "")
    narrow = KIND_OF_DTYPE.get(dtype) if dtype.isnative else None
    if dtype.kind not in allowed or narrow is None:
        advice = {
            Kind.INT64: "an integer type, numpy.int8 to numpy.uint64",
            Kind.FLOAT64: "numpy.float32 or numpy.float64",
        }.get(kind, "no NumPy type")
        raise SchemaError(f"{where}: Annotated[{_spell(bare)}, {dtype}] does not fit; {_spell(bare)} takes {advice}")
    return narrow


def _bare_kind(bare: Any, where: str) -> Kind:
    simple: dict[Any, Kind] = {
        bool: Kind.BOOL,
        int: Kind.INT64,
        float: Kind.FLOAT64,
        str: Kind.STRING,
        bytes: Kind.BYTES,
        datetime.datetime: Kind.DATETIME,
        msgspec.Raw: Kind.RAW,
        list: Kind.LIST,
    }
    origin = typing.get_origin(bare) or bare
    try:
        found = simple.get(origin)
    except TypeError:  # an unhashable annotation is certainly none of ours
        found = None
    if found is not None:
        return found
    if _struct_type(bare) is not None:
        return Kind.STRUCT
    if origin is Literal:
        values = typing.get_args(bare)
        advice = f"use {'str' if all(isinstance(v, str) for v in values) else 'int or str'} and reject the other values"
    elif bare is Any:  # a class since Python 3.11
        advice = "use the type that it has, or msgspec.Raw to keep it undecoded"
    elif isinstance(origin, type):
        advice = next((text for base, text in _INSTEAD.items() if issubclass(origin, base)), "use str, or msgspec.Raw")
    else:
        advice = "use msgspec.Raw"
    raise SchemaError(f"{where}: {_spell(bare)} cannot become a column; {advice}")


def _bounds_of(wanted: _Wanted, kind: Kind, where: str) -> Bounds:
    bounds = Bounds(**wanted.bounds)
    if kind is Kind.RAW and wanted.bounds:
        raise SchemaError(f"{where}: bounds on msgspec.Raw are not checked; drop the Meta")
    return bounds


def _default_bytes(value: Any, kind: Kind) -> bytes:
    if kind is Kind.STRING:
        if not isinstance(value, str):
            raise TypeError(value)
        return value.encode()
    if kind is Kind.RAW:
        if not isinstance(value, msgspec.Raw):
            raise TypeError(value)
        return bytes(value)
    if not isinstance(value, bytes):
        raise TypeError(value)
    return value


def _default_bits(value: Any, kind: Kind) -> int:
    if kind is Kind.BOOL:
        if not isinstance(value, bool):
            raise TypeError(value)
        return int(value)
    if kind is Kind.DATETIME:
        if not isinstance(value, datetime.datetime):
            raise TypeError(value)
        aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
        packed = struct.pack("<q", (aware - _EPOCH) // _MICROSECOND)
    elif kind in (Kind.FLOAT32, Kind.FLOAT64):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(value)
        packed = struct.pack("<f" if kind is Kind.FLOAT32 else "<d", value)
    else:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(value)
        packed = struct.pack("<" + DTYPES[kind].char.replace("l", "q").replace("L", "Q"), value)
    return int.from_bytes(packed, "little")


def _struct_type(source: Any) -> Any:
    """The Struct class of a Struct or of ``Generic[int]`` over one; None for anything else."""
    origin = typing.get_origin(source) or source
    return origin if isinstance(origin, type) and issubclass(origin, msgspec.Struct) else None


def _spell(annotation: Any) -> str:
    """An annotation as the user would write it."""
    if typing.get_origin(annotation) is None and hasattr(annotation, "__name__"):
        return str(annotation.__name__)
    return str(annotation).replace("typing.", "")[:200]
