"""The columns of a NumPy structured dtype: fixed layouts, each field where the dtype says.

| field                              | column                                                      |
|------------------------------------|-------------------------------------------------------------|
| integers, floats, bool             | that type; float16: float32; any byte order                 |
| ``S``, ``V``; ``U``                | bytes; string                                               |
| ``datetime64`` in s, ms, us or ns  | int64 microseconds since 1970 UTC, ``datetime64[us]``       |
| a nested dtype                     | dotted columns, one a field                                 |
| a subarray                         | a list of so many values, one list a dimension              |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pythia_fast.column_tree import KIND_OF_DTYPE, MAX_FIELDS, Bounds, ColumnTree, FieldSpec, Kind, StructSpec
from pythia_fast.errors import SchemaError


class RecordColumns(ColumnTree):
    """Walks a structured dtype."""

    def record(self, dtype: np.dtype[Any]) -> None:
        if dtype.names is None:
            raise SchemaError(f"a fixed layout needs a structured dtype with field names, not {dtype!r}")
        self.record_fields(dtype, "", -1)

    def record_fields(self, dtype: np.dtype[Any], prefix: str, list_index: int) -> int:
        assert dtype.names is not None
        assert dtype.fields is not None
        if len(dtype.names) > MAX_FIELDS:
            raise SchemaError(f"the dtype has {len(dtype.names)} fields, at most {MAX_FIELDS} can be columns")
        index = len(self.structs)
        self.structs.append(StructSpec(()))
        fields = []
        for name in dtype.names:
            column = self.record_column(dtype.fields[name][0], prefix + name, list_index)
            fields.append(FieldSpec(name, column))
        self.structs[index] = StructSpec(tuple(fields))
        return index

    def record_column(self, dtype: np.dtype[Any], name: str, list_index: int) -> int:
        where = f"dtype field {name!r}"
        if dtype.subdtype is not None:
            base, shape = dtype.subdtype
            index = self.begin(name, Kind.LIST, False, list_index, Bounds(), where)
            inner = np.dtype((base, shape[1:])) if len(shape) > 1 else base
            self.record_column(inner, f"{name}[]", index)
            self.finish(index, 1)
            return index
        if dtype.names is not None:
            index = self.begin(name, Kind.STRUCT, False, list_index, Bounds(), where)
            struct_index = self.record_fields(dtype, f"{name}.", list_index)
            self.finish(index, len(dtype.names), struct_index)
            return index
        if dtype.kind == "S":
            kind = Kind.BYTES
        elif dtype.kind == "U":
            kind = Kind.STRING
        elif dtype.kind == "V":
            kind = Kind.BYTES
        elif dtype.kind == "M" and np.datetime_data(dtype) in (("s", 1), ("ms", 1), ("us", 1), ("ns", 1)):
            kind = Kind.DATETIME
        elif dtype.newbyteorder("=") == np.float16:
            kind = Kind.FLOAT32
        elif (found := KIND_OF_DTYPE.get(dtype.newbyteorder("="))) is not None and dtype.kind != "M":
            kind = found
        else:
            raise SchemaError(
                f"{where}: {dtype} cannot become a column; use an integer, float16, float32, float64, bool, "
                "'S', 'U', 'V' or datetime64 in s, ms, us or ns"
            )
        return self.begin(name, kind, False, list_index, Bounds(), where)
