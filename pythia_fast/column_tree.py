"""The columns of a schema as a flat tree: the description that decoders, batches and refusals share.

The tree stands flat, depth first, as ext/column.h wants it. Everything here is plain Python: ext/plan.pyx turns it into
the C structs of ext/plan.h. Who grows it: pythia_fast/schema.py from a Struct, record_columns.py from a NumPy dtype.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np

from pythia_fast.errors import SchemaError

MAX_FIELDS = 1024  #: fields of one Struct
MAX_COLUMNS = 65536  #: columns of one schema, nested ones included

SchemaLike: TypeAlias = Any  #: a Struct type, a structured dtype, or None for one ``payload`` column of bytes


class Kind(IntEnum):
    """What a column holds; the numbers are those of ext/column.h."""

    BOOL = 1
    INT8 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    UINT8 = 6
    UINT16 = 7
    UINT32 = 8
    UINT64 = 9
    FLOAT32 = 10
    FLOAT64 = 11
    DATETIME = 12
    STRING = 13
    BYTES = 14
    RAW = 15
    LIST = 16
    STRUCT = 17

    @property
    def variable(self) -> bool:
        """Offsets and data rather than values of one width."""
        return self in (Kind.STRING, Kind.BYTES, Kind.RAW)


class Fallback(IntEnum):
    """What a missing key means; the numbers are those of ext/plan.h."""

    REQUIRED = 0
    NULL = 1
    BITS = 2
    BYTES = 3
    EMPTY = 4
    STRUCT = 5


DTYPES: dict[Kind, np.dtype[Any]] = {
    Kind.BOOL: np.dtype(np.bool_),
    Kind.INT8: np.dtype(np.int8),
    Kind.INT16: np.dtype(np.int16),
    Kind.INT32: np.dtype(np.int32),
    Kind.INT64: np.dtype(np.int64),
    Kind.UINT8: np.dtype(np.uint8),
    Kind.UINT16: np.dtype(np.uint16),
    Kind.UINT32: np.dtype(np.uint32),
    Kind.UINT64: np.dtype(np.uint64),
    Kind.FLOAT32: np.dtype(np.float32),
    Kind.FLOAT64: np.dtype(np.float64),
    Kind.DATETIME: np.dtype("datetime64[us]"),
}
KIND_OF_DTYPE = {dtype: kind for kind, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds from ``msgspec.Meta``; None where there is none."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    tz: bool | None = None


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One node of the column tree."""

    index: int
    name: str  #: ``price``, ``customer.name``, ``items[]``, ``items[].sku``
    kind: Kind
    nullable: bool  #: has a validity bitmap: optional itself, or a field of an optional Struct
    optional: bool  #: null is a value of the column itself
    n_children: int
    end: int  #: index just past the last descendant
    list: int  #: index of the nearest enclosing list column, -1 at row level
    bounds: Bounds
    struct: int  #: index into ``Schema.structs``, -1 where the column is no Struct

    @property
    def width(self) -> int:
        """Bytes a value; 0 for string, bytes, raw, list and struct."""
        return DTYPES[self.kind].itemsize if self.kind in DTYPES else 0

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """NumPy type of the values; None for string, bytes, raw, list and struct."""
        return DTYPES.get(self.kind)

    @property
    def type_name(self) -> str:
        """``int64``, ``string``, ``datetime`` and so on."""
        return self.kind.name.lower()


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One key of a Struct and the column that it fills."""

    name: str  #: key in the payload
    column: int
    fallback: Fallback = Fallback.REQUIRED
    bits: int = 0  #: unsigned 64 bits; the low ``width`` bytes are the value as stored
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class StructSpec:
    """One Struct, as often as it stands in the tree."""

    fields: tuple[FieldSpec, ...]
    forbid_unknown: bool = False
    tag_field: str | None = None
    tag: str | int | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of one handler.

    ``source`` is what the user wrote: a Struct type, a structured ``numpy.dtype``, or None.
    """

    source: SchemaLike
    columns: tuple[ColumnSpec, ...]
    structs: tuple[StructSpec, ...]
    by_name: dict[str, ColumnSpec] = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """Name of the Struct, or what stands for it."""
        if self.source is None:
            return "payload"
        return getattr(self.source, "__name__", str(self.source))

    def row_columns(self) -> Iterator[ColumnSpec]:
        """Columns that hold one value a row: everything outside lists but for the Structs themselves."""
        return (column for column in self.columns if column.list < 0 and column.kind is not Kind.STRUCT)

    def children(self, column: ColumnSpec | None = None) -> Iterator[ColumnSpec]:
        """The direct children of a column; of the row itself without one."""
        at, end = (0, len(self.columns)) if column is None else (column.index + 1, column.end)
        while at < end:
            yield self.columns[at]
            at = self.columns[at].end


class ColumnTree:
    """Grows the flat lists; whoever walks a type derives from it."""

    def __init__(self) -> None:
        self.columns: list[ColumnSpec] = []
        self.structs: list[StructSpec] = []

    def begin(
        self, name: str, kind: Kind, nullable: bool, list_index: int, bounds: Bounds, where: str, optional: bool = False
    ) -> int:
        index = len(self.columns)
        if index >= MAX_COLUMNS:
            raise SchemaError(f"{where}: more than {MAX_COLUMNS} columns in one schema; keep part of it as msgspec.Raw")
        self.columns.append(ColumnSpec(index, name, kind, nullable, optional, 0, index + 1, list_index, bounds, -1))
        return index

    def finish(self, index: int, n_children: int, struct_index: int = -1) -> None:
        self.columns[index] = dataclasses.replace(
            self.columns[index], n_children=n_children, end=len(self.columns), struct=struct_index
        )
