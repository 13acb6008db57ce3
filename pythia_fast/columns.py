"""Columns that are not one NumPy array: strings, bytes, lists, and Structs inside lists.

They are laid out as Arrow lays them out, an ``offsets`` array and the values that it cuts up, and all
arrays are read-only views of the batch's memory: a batch may be handled again (a retry, a crashed
process) and must then hold what it held before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from pythia_fast._ext import text_ops
from pythia_fast.schema import ColumnSpec, Kind, Schema

if TYPE_CHECKING:
    from pythia_fast._ext.batch_memory import BatchMemory, Region

V = TypeVar("V", str, bytes)
BoolArray = npt.NDArray[np.bool_]
_FEW = 8  # values up to which isin() scans the column once for each


class _TextColumn(Generic[V]):
    """Values of any length, one after the other in ``data``.

    ``offsets``: int32[n + 1]; value i is ``data[offsets[i]:offsets[i + 1]]``. ``data``: uint8.
    ``validity``: uint8, a bitmap, least significant bit first, 1 = has a value; None where nothing is null.
    """

    __slots__ = ("data", "offsets", "validity")
    _text: bool

    def __init__(
        self, offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], bits: npt.NDArray[np.uint8] | None = None
    ) -> None:
        self.offsets = offsets
        self.data = data
        self.validity = bits

    def _encode(self, value: V) -> bytes:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """int32[n]: bytes of each value; 0 at nulls."""
        return np.diff(self.offsets)

    @property
    def valid(self) -> BoolArray:
        """bool[n]: which rows have a value."""
        return bits_to_mask(self.validity, len(self))

    @overload
    def __getitem__(self, index: SupportsIndex) -> V | None: ...
    @overload
    def __getitem__(self, index: slice | npt.ArrayLike) -> _TextColumn[V]: ...
    def __getitem__(self, index: Any) -> V | _TextColumn[V] | None:
        """One value (None at a null), or for a slice, mask or index array a new column with copies of those."""
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        if not isinstance(index, SupportsIndex) or isinstance(index, np.ndarray):
            return self.take(index)
        at = range(len(self))[index]
        if self.validity is not None and not (self.validity[at >> 3] >> (at & 7)) & 1:
            return None
        value = self.data[self.offsets[at] : self.offsets[at + 1]].tobytes()
        return cast("V", value.decode() if self._text else value)

    def __iter__(self) -> Iterator[V | None]:
        return iter(self.tolist())

    def tolist(self) -> list[V | None]:
        """One str or bytes a row, None at nulls."""
        valid = None if self.validity is None else self.valid.view(np.uint8)
        return text_ops.to_list(self.offsets, self.data, valid, self._text)

    def take(self, rows: npt.ArrayLike) -> _TextColumn[V]:
        """A new column, in memory of its own, with the rows of a bool mask or of an index array.

        Raises IndexError for an index or a mask that does not fit the column.
        """
        indices = row_indices(rows, len(self))
        offsets = np.empty(len(indices) + 1, np.int32)
        size = text_ops.gathered_offsets(self.offsets, indices, offsets)
        data = np.empty(size, np.uint8)
        text_ops.gather(self.offsets, self.data, indices, offsets, data)
        bits = None if self.validity is None else np.packbits(self.valid[indices], bitorder="little")
        return type(self)(offsets, data, bits)

    def __eq__(self, other: object) -> BoolArray:  # type: ignore[override]
        """bool[n], False at nulls. Compares with one value, or row by row with a column of this kind."""
        if isinstance(other, str if self._text else bytes):
            return self.isin((cast("V", other),))
        if type(other) is type(self):
            if len(other) != len(self):
                raise ValueError(f"columns of {len(self)} and {len(other)} rows cannot be compared")
            found = np.zeros(len(self), np.bool_)
            text_ops.equal_pairs(self.offsets, self.data, other.offsets, other.data, found.view(np.uint8))
            return found & self.valid & other.valid
        return NotImplemented

    def __ne__(self, other: object) -> BoolArray:  # type: ignore[override]
        """bool[n]: not ``==``, so True at nulls."""
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else ~equal

    __hash__ = None  # type: ignore[assignment]

    def isin(self, values: Iterable[V]) -> BoolArray:
        """bool[n]: which rows hold one of ``values``; False at nulls."""
        wanted = {self._encode(value) for value in values}
        if len(wanted) > _FEW:
            listed = text_ops.to_list(self.offsets, self.data, None, False)
            found = np.fromiter((value in wanted for value in listed), np.bool_, len(self))
        else:
            found = np.zeros(len(self), np.bool_)
            for value in wanted:
                text_ops.equal_to(self.offsets, self.data, value, found.view(np.uint8))
        return found if self.validity is None else found & self.valid

    def to_numpy(self, dtype: Any = object) -> npt.NDArray[Any]:
        """One NumPy array, copied: of Python objects by default; ``numpy.dtypes.StringDType()`` for strings."""
        values = self.tolist()
        if dtype is object:
            array = np.empty(len(self), object)
            array[:] = values
            return array
        return np.array(values, dtype=dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"a {type(self).__name__} cannot become an array without a copy")
        return self.to_numpy(object if dtype is None else dtype)

    def __repr__(self) -> str:
        shown = ", ".join(repr(self[i]) for i in range(min(5, len(self))))
        return f"<{type(self).__name__} of {len(self)}: [{shown}{', ...' if len(self) > 5 else ''}]>"


class StringColumn(_TextColumn[str]):
    """Strings as UTF-8, one after the other."""

    __slots__ = ()
    _text = True

    def _encode(self, value: str) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"a StringColumn holds str, not {type(value).__name__}")
        return value.encode()


class BytesColumn(_TextColumn[bytes]):
    """Byte strings (``bytes`` and ``msgspec.Raw`` fields), one after the other."""

    __slots__ = ()
    _text = False

    def _encode(self, value: bytes) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"a BytesColumn holds bytes, not {type(value).__name__}")
        return bytes(value)


class StructColumn(Mapping[str, Any]):
    """The Structs inside a list: one column a field, ``column["sku"]``, all of one length."""

    __slots__ = ("_fields", "_n", "validity")

    def __init__(self, fields: dict[str, tuple[Any, Any]], n: int, bits: npt.NDArray[np.uint8] | None) -> None:
        self._fields = fields  # name -> (column, its validity bits)
        self._n = n
        self.validity = bits

    def __getitem__(self, name: str) -> Any:
        return self._fields[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        """Structs, not fields."""
        return self._n

    @property
    def valid(self) -> BoolArray:
        """bool[n]: which of them are not null."""
        return bits_to_mask(self.validity, self._n)

    def tolist(self) -> list[dict[str, Any] | None]:
        """One dict a Struct."""
        lists = [column_to_list(column, bits) for column, bits in self._fields.values()]
        rows = zip(*lists, strict=True) if lists else iter([()] * self._n)
        dicts: list[dict[str, Any] | None] = [dict(zip(self._fields, row, strict=True)) for row in rows]
        return without_nulls(dicts, self.validity)

    def __repr__(self) -> str:
        return f"<StructColumn of {self._n}: {', '.join(self._fields)}>"


class ListColumn:
    """Lists of any length: ``values[offsets[i]:offsets[i + 1]]`` are those of row i.

    ``offsets``: int32[n + 1]. ``values``: an array, a StringColumn, BytesColumn, StructColumn or another
    ListColumn, with the values of all rows.
    """

    __slots__ = ("_value_bits", "offsets", "validity", "values")

    def __init__(
        self,
        offsets: npt.NDArray[np.int32],
        values: Any,
        bits: npt.NDArray[np.uint8] | None = None,
        value_bits: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.offsets = offsets
        self.values = values
        self.validity = bits
        self._value_bits = value_bits

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """int32[n]: values of each row; 0 at nulls."""
        return np.diff(self.offsets)

    @property
    def valid(self) -> BoolArray:
        """bool[n]: which rows have a list."""
        return bits_to_mask(self.validity, len(self))

    def __getitem__(self, index: SupportsIndex) -> Any:
        """The values of one row: an array for numbers, else a list; None at a null."""
        at = range(len(self))[index]
        if self.validity is not None and not (self.validity[at >> 3] >> (at & 7)) & 1:
            return None
        begin, end = self.offsets[at], self.offsets[at + 1]
        if isinstance(self.values, np.ndarray) and self._value_bits is None:
            return self.values[begin:end]
        return column_to_list(self.values, self._value_bits)[begin:end]

    def tolist(self) -> list[list[Any] | None]:
        """One list a row, None at nulls."""
        values = column_to_list(self.values, self._value_bits)
        bounds = self.offsets.tolist()
        return without_nulls([values[bounds[i] : bounds[i + 1]] for i in range(len(self))], self.validity)

    def __iter__(self) -> Iterator[list[Any] | None]:
        return iter(self.tolist())

    def __repr__(self) -> str:
        return f"<ListColumn of {len(self)} over {len(self.values)} values>"


Column = npt.NDArray[Any] | StringColumn | BytesColumn | ListColumn | StructColumn


# -- reading them from a batch's memory --------------------------------------------------------


def view(region: Region, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A read-only array over a Region; it counts as one export for as long as it, or a view of it, lives."""
    return np.frombuffer(cast("memoryview", region), dtype) if len(region) else np.empty(0, dtype)


def read_column(memory: BatchMemory, schema: Schema, spec: ColumnSpec) -> Column:
    """The column as users see it."""
    n = memory.count(spec.index)
    dtype = spec.dtype
    if dtype is not None:
        return view(memory.values(spec.index, n), dtype)
    bits = read_bits(memory, spec, n)
    if spec.kind is Kind.STRUCT:
        prefix = len(spec.name) + 1
        fields = {
            child.name[prefix:]: (
                read_column(memory, schema, child),
                read_bits(memory, child, n) if child.dtype is not None else None,
            )
            for child in schema.children(spec)
        }
        return StructColumn(fields, n, bits)
    offsets = view(memory.offsets(spec.index, n), np.int32)
    if spec.kind is Kind.LIST:
        values = schema.columns[spec.index + 1]
        value_bits = read_bits(memory, values, int(offsets[n])) if values.dtype is not None else None
        return ListColumn(offsets, read_column(memory, schema, values), bits, value_bits)
    data = view(memory.values(spec.index, int(offsets[n])), np.uint8)
    return (StringColumn if spec.kind is Kind.STRING else BytesColumn)(offsets, data, bits)


def read_bits(memory: BatchMemory, spec: ColumnSpec, n: int) -> npt.NDArray[np.uint8] | None:
    """The validity bitmap of a nullable column, else None."""
    region = memory.validity(spec.index, n)
    return None if region is None else view(region, np.uint8)


def bits_to_mask(bits: npt.NDArray[np.uint8] | None, n: int) -> BoolArray:
    """bool[n] of a validity bitmap; all True without one."""
    if bits is None:
        return np.ones(n, np.bool_)
    return np.unpackbits(bits, count=n, bitorder="little").view(np.bool_)


def column_to_list(column: Any, bits: npt.NDArray[np.uint8] | None) -> list[Any]:
    """Python values of a column, None at its nulls."""
    return without_nulls(column.tolist(), bits)


L = TypeVar("L")


def without_nulls(values: list[L], bits: npt.NDArray[np.uint8] | None) -> list[L]:
    """``values`` with None wherever the bitmap says null."""
    if bits is not None:
        for null in np.flatnonzero(~bits_to_mask(bits, len(values))).tolist():
            values[null] = cast("L", None)
    return values


def row_indices(rows: npt.ArrayLike, n: int, what: str = "a mask") -> npt.NDArray[np.int64]:
    """Indices of the rows that a bool mask of length n or an integer index array names; negative ones count from
    the end.

    Raises IndexError when mask or indices do not fit n rows, TypeError for anything else.
    """
    array = np.asarray(rows)
    if array.dtype == np.bool_:
        if array.shape != (n,):
            raise IndexError(f"{what} must be bool[{n}], one value a row, not {_shape(array)}")
        return np.flatnonzero(array)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise TypeError(f"{what} must be bool[{n}] or integer row indices, not {_shape(array)}")
    indices = np.atleast_1d(array)
    if (indices >= n).any() or (array.dtype.kind == "i" and (indices < -n).any()):
        raise IndexError(f"a row index is out of range for {n} rows")
    indices = indices.astype(np.int64)
    return np.where(indices < 0, indices + n, indices)


def marked_rows(rows: npt.ArrayLike, n: int, what: str) -> npt.NDArray[np.int64]:
    """``row_indices`` for rows that are given up or put off: numbers that look like a mask are none of the two.

    Raises IndexError, TypeError.
    """
    array = np.asarray(rows)
    if n > 2 and array.shape == (n,) and array.dtype.kind in "iu" and ((array == 0) | (array == 1)).all():
        raise TypeError(
            f"{what} is {_shape(array)} of nothing but 0 and 1, which reads as a mask but would name rows 0 and 1: "
            "give bool values (.astype(bool)) for a mask, and each row once for indices"
        )
    return row_indices(array, n, what)


def _shape(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]" if array.ndim else f"one {array.dtype}"
