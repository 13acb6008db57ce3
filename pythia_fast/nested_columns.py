"""Columns whose values are columns again: lists, and the Structs inside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from pythia_fast.column_tree import StructSpec
from pythia_fast.offsets_column import OffsetsColumn
from pythia_fast.selection import BoolArray, bits_at, bits_between, bits_to_mask, row_indices, without_nulls


class _ComparedWithNone:
    """``column == None`` is a mask of the nulls, as of every column; nested values are not compared row by row."""

    __slots__ = ()

    @property
    def valid(self) -> BoolArray:
        raise NotImplementedError

    def __eq__(self, other: object) -> BoolArray:  # type: ignore[override]
        """bool[n]: the nulls. Raises TypeError for anything but None, for which Python would say one plain False."""
        if other is None:
            return ~self.valid
        raise TypeError(
            f"a {type(self).__name__} is compared with None only, not with {type(other).__name__}: compare its values"
        )

    def __ne__(self, other: object) -> BoolArray:  # type: ignore[override]
        """bool[n]: the rows with a value, for ``!= None``."""
        return ~self.__eq__(other)

    __hash__ = None  # type: ignore[assignment]


class StructColumn(_ComparedWithNone, Mapping[str, Any]):  # type: ignore[misc]
    """The Structs inside a list: one column a field, ``column["sku"]``, all of one length."""

    __slots__ = ("_fields", "_n", "_spec", "validity")

    def __init__(
        self,
        fields: dict[str, tuple[Any, Any]],
        n: int,
        bits: npt.NDArray[np.uint8] | None,
        spec: StructSpec | None = None,
    ) -> None:
        self._fields = fields  # name -> (column, its validity bits)
        self._n = n
        self._spec = spec
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

    def encoded(self) -> Iterator[tuple[str, Any, BoolArray | None]]:
        """The columns of what is written for the Structs: key, values, and which of them are no nulls where the values
        do not tell it themselves. Fields have their keys of payloads; a tag is one more, in front."""
        keys = self._fields.keys() if self._spec is None else [field.name for field in self._spec.fields]
        if self._spec is not None and self._spec.tag_field is not None:
            tag = self._spec.tag
            yield self._spec.tag_field, [tag] * self._n if isinstance(tag, str) else np.full(self._n, tag), None
        for key, (column, bits) in zip(keys, self._fields.values(), strict=True):
            yield key, column, None if bits is None else bits_to_mask(bits, self._n)

    def tolist(self) -> list[dict[str, Any] | None]:
        """One dict a Struct."""
        lists = [column_to_list(column, bits) for column, bits in self._fields.values()]
        rows = zip(*lists, strict=True) if lists else iter([()] * self._n)
        dicts: list[dict[str, Any] | None] = [dict(zip(self._fields, row, strict=True)) for row in rows]
        return without_nulls(dicts, self.validity)

    def take(self, rows: npt.ArrayLike) -> StructColumn:
        """A new column, in memory of its own, with the Structs of a bool mask or of an index array.

        Raises IndexError for an index or a mask that does not fit the column.
        """
        indices = row_indices(rows, self._n)
        fields = {
            name: (_values_at(column, indices), bits_at(bits, self._n, indices))
            for name, (column, bits) in self._fields.items()
        }
        return StructColumn(fields, len(indices), bits_at(self.validity, self._n, indices), self._spec)

    def window(self, begin: int, end: int) -> StructColumn:
        """The Structs from ``begin`` up to ``end`` as a column that looks at the same values."""
        fields = {
            name: (_values_between(column, begin, end), bits_between(bits, begin, end))
            for name, (column, bits) in self._fields.items()
        }
        return StructColumn(fields, end - begin, bits_between(self.validity, begin, end), self._spec)

    def __repr__(self) -> str:
        return f"<StructColumn of {self._n}: {', '.join(self._fields)}>"


class ListColumn(OffsetsColumn, _ComparedWithNone):
    """Lists of any length: ``values[offsets[i]:offsets[i + 1]]`` are those of row i.

    ``values``: an array, a StringColumn, BytesColumn, StructColumn or another
    ListColumn, with the values of all rows.
    """

    __slots__ = ("_value_bits", "values")

    def __init__(
        self,
        offsets: npt.NDArray[np.int32],
        values: Any,
        bits: npt.NDArray[np.uint8] | None = None,
        value_bits: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        super().__init__(offsets, bits)
        self.values = values
        self._value_bits = value_bits

    @property
    def value_valid(self) -> BoolArray | None:
        """bool[values]: which values are no nulls, where ``values`` is an array and does not tell it itself."""
        return None if self._value_bits is None else bits_to_mask(self._value_bits, len(self.values))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice | npt.ArrayLike) -> ListColumn: ...
    def __getitem__(self, index: Any) -> Any:
        """The values of one row: an array for numbers, else a list; None at a null.

        For a slice, mask or index array a ListColumn of those rows. One of neighbours, ``column[a:b]``, looks at
        the same values, as an array of one row does; the others are copies.
        """
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            return self.window(begin, max(begin, end)) if step == 1 else self.take(np.arange(begin, end, step))
        if not isinstance(index, SupportsIndex) or isinstance(index, np.ndarray):
            return self.take(index)
        at = range(len(self))[index]
        if self.validity is not None and not (self.validity[at >> 3] >> (at & 7)) & 1:
            return None
        begin, end = self.offsets[at : at + 2].tolist()
        values = _values_between(self.values, begin, end)
        if isinstance(values, np.ndarray) and self._value_bits is None:
            return values
        return column_to_list(values, bits_between(self._value_bits, begin, end))

    def take(self, rows: npt.ArrayLike) -> ListColumn:
        """A new column, in memory of its own, with the rows of a bool mask or of an index array.

        Raises IndexError for an index or a mask that does not fit the column, ValueError for more values than
        int32 offsets can count.
        """
        indices = row_indices(rows, len(self))
        lengths = self.lengths[indices]
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        if offsets[-1] > np.iinfo(np.int32).max:
            raise ValueError(f"the {len(indices)} lists taken hold {offsets[-1]} values, more than int32 offsets count")
        # Each value's own index: its place among those taken, moved by as much as its row was.
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], lengths)
        values, value_bits = _values_at(self.values, at), bits_at(self._value_bits, len(self.values), at)
        return ListColumn(offsets.astype(np.int32), values, bits_at(self.validity, len(self), indices), value_bits)

    def window(self, begin: int, end: int) -> ListColumn:
        """The rows from ``begin`` up to ``end`` as a column that looks at the same values."""
        offsets = self.offsets[begin : end + 1]
        first, last = offsets[[0, -1]].tolist()
        values, value_bits = _values_between(self.values, first, last), bits_between(self._value_bits, first, last)
        return ListColumn(offsets - first, values, bits_between(self.validity, begin, end), value_bits)

    def tolist(self) -> list[list[Any] | None]:
        """One list a row, None at nulls."""
        values = column_to_list(self.values, self._value_bits)
        bounds = self.offsets.tolist()
        return without_nulls([values[bounds[i] : bounds[i + 1]] for i in range(len(self))], self.validity)

    def __iter__(self) -> Iterator[list[Any] | None]:
        return iter(self.tolist())

    def __repr__(self) -> str:
        return f"<ListColumn of {len(self)} over {len(self.values)} values>"


def column_to_list(column: Any, bits: npt.NDArray[np.uint8] | None) -> list[Any]:
    """Python values of a column, None at its nulls."""
    return without_nulls(column.tolist(), bits)


def _values_between(column: Any, begin: int, end: int) -> Any:
    return column[begin:end] if isinstance(column, np.ndarray) else column.window(begin, end)


def _values_at(column: Any, indices: npt.NDArray[np.int64]) -> Any:
    return column[indices] if isinstance(column, np.ndarray) else column.take(indices)
