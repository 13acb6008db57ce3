"""Columns that are not one NumPy array: strings, bytes, lists, and Structs inside lists.

They are laid out as Arrow lays them out, an ``offsets`` array and the values that it cuts up, and all
arrays are read-only views of the batch's memory: a batch may be handled again (a retry, a crashed
process) and must then hold what it held before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from pythia_fast._ext import text_ops
from pythia_fast.nested_columns import ListColumn, StructColumn
from pythia_fast.offsets_column import OffsetsColumn
from pythia_fast.schema import ColumnSpec, Kind
from pythia_fast.selection import BoolArray, bits_at, bits_between, row_indices

if TYPE_CHECKING:
    from pythia_fast._ext.batch_memory import BatchMemory, Region
    from pythia_fast.decoders import Decoding

V = TypeVar("V", str, bytes)
_FEW = 8  # values up to which isin() scans the column once for each


class _TextColumn(OffsetsColumn, Generic[V]):
    """Values of any length, one after the other in ``data``: value i is ``data[offsets[i]:offsets[i + 1]]``.

    ``data``: uint8.
    """

    __slots__ = ("data",)
    _text: bool

    def __init__(
        self, offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], bits: npt.NDArray[np.uint8] | None = None
    ) -> None:
        super().__init__(offsets, bits)
        self.data = data

    def _encode(self, value: V) -> bytes:
        raise NotImplementedError

    def _like(
        self, offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], bits: npt.NDArray[np.uint8] | None
    ) -> _TextColumn[V]:
        """A column of this kind."""
        return type(self)(offsets, data, bits)

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
        return self._like(offsets, data, bits_at(self.validity, len(self), indices))

    def window(self, begin: int, end: int) -> _TextColumn[V]:
        """The rows from ``begin`` up to ``end`` as a column that looks at the same data."""
        offsets = self.offsets[begin : end + 1]
        data = self.data[offsets[0] : offsets[-1]]
        return self._like(offsets - offsets[0], data, bits_between(self.validity, begin, end))

    def __eq__(self, other: object) -> BoolArray:  # type: ignore[override]
        """bool[n], False at nulls. Compares with one value, or row by row with a column of this kind; None: the nulls.

        Raises TypeError for anything else, for which Python would compare identities and say one plain False.
        """
        if other is None:
            return ~self.valid
        if isinstance(other, str if self._text else (bytes, bytearray, memoryview)):
            return self.isin((cast("V", other),))
        if isinstance(other, _TextColumn) and other._text is self._text:
            if len(other) != len(self):
                raise ValueError(f"columns of {len(self)} and {len(other)} rows cannot be compared")
            found = np.zeros(len(self), np.bool_)
            text_ops.equal_pairs(self.offsets, self.data, other.offsets, other.data, found.view(np.uint8))
            return found & self.valid & other.valid
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy compares row by row, with the column as an array
        one, name = "str" if self._text else "bytes", type(self).__name__
        raise TypeError(
            f"a {name} is compared with {one}, None or a column of its kind, not with {type(other).__name__}; "
            "isin() takes several values"
        )

    def __ne__(self, other: object) -> BoolArray:  # type: ignore[override]
        """bool[n]: not ``==``, so True at nulls, but for ``!= None``, which asks for the rows with a value."""
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else ~equal

    __hash__ = None  # type: ignore[assignment]

    def isin(self, values: Iterable[V]) -> BoolArray:
        """bool[n]: which rows hold one of ``values``; False at nulls. Raises TypeError for values of another type, and
        for a single text, which would be taken for its characters."""
        if isinstance(values, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"isin() takes a list of values, not one {type(values).__name__}: put it in a list")
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


class RawColumn(BytesColumn):
    """``msgspec.Raw`` fields: what each payload has there, undecoded; nothing where it did not have the key."""

    __slots__ = ("encoding",)

    def __init__(
        self,
        offsets: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
        bits: npt.NDArray[np.uint8] | None = None,
        encoding: str = "json",
    ) -> None:
        super().__init__(offsets, data, bits)
        self.encoding = encoding  # "json" or "msgpack"

    def _like(
        self, offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], bits: npt.NDArray[np.uint8] | None
    ) -> RawColumn:
        return RawColumn(offsets, data, bits, self.encoding)


Column = npt.NDArray[Any] | StringColumn | BytesColumn | ListColumn | StructColumn


# -- reading them from a batch's memory --------------------------------------------------------


def view(region: Region, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A read-only array over a Region; it counts as one export for as long as it, or a view of it, lives."""
    return np.frombuffer(cast("memoryview", region), dtype) if len(region) else np.empty(0, dtype)


def read_column(memory: BatchMemory, decoding: Decoding, spec: ColumnSpec) -> Column:
    """The column as users see it."""
    n = memory.count(spec.index)
    dtype = spec.dtype
    if dtype is not None:
        return view(memory.values(spec.index, n), dtype)
    bits = read_bits(memory, spec, n)
    if spec.kind is Kind.STRUCT:
        return read_structs(memory, decoding, spec)
    offsets = view(memory.offsets(spec.index, n), np.int32)
    if spec.kind is Kind.LIST:
        values = decoding.schema.columns[spec.index + 1]
        value_bits = read_bits(memory, values, int(offsets[n])) if values.dtype is not None else None
        return ListColumn(offsets, read_column(memory, decoding, values), bits, value_bits)
    data = view(memory.values(spec.index, int(offsets[n])), np.uint8)
    if spec.kind is Kind.RAW:
        return RawColumn(offsets, data, bits, decoding.name)
    return (StringColumn if spec.kind is Kind.STRING else BytesColumn)(offsets, data, bits)


def read_structs(memory: BatchMemory, decoding: Decoding, spec: ColumnSpec | None = None) -> StructColumn:
    """The columns of a Struct's fields; those of the rows without one."""
    schema = decoding.schema
    n = memory.rows if spec is None else memory.count(spec.index)
    prefix = 0 if spec is None else len(spec.name) + 1
    fields = {
        child.name[prefix:]: (
            read_column(memory, decoding, child),
            read_bits(memory, child, n) if child.dtype is not None else None,
        )
        for child in schema.children(spec)
    }
    if spec is None:
        return StructColumn(fields, n, None, schema.structs[0])
    return StructColumn(fields, n, read_bits(memory, spec, n), schema.structs[spec.struct])


def read_bits(memory: BatchMemory, spec: ColumnSpec, n: int) -> npt.NDArray[np.uint8] | None:
    """The validity bitmap of a nullable column, else None."""
    region = memory.validity(spec.index, n)
    return None if region is None else view(region, np.uint8)
