"""One returned column -> the row encoder: NumPy, our own, pyarrow, polars, pandas, lists.

Numbers, bools, datetimes, our own columns, lists and Structs among them, and Arrow's strings are handed over as the
memory they are; anything else (lists of lists, Decimals, Structs as objects) is encoded by msgspec, value by value.

What becomes of values that JSON has no word for:

| value                                  | JSON                          | MessagePack                |
|----------------------------------------|-------------------------------|----------------------------|
| NaN, infinity                          | null                          | as they are                |
| NaT, masked, Arrow null, None          | null                          | nil                        |
| datetime64 (taken as UTC)              | "2026-01-31T12:00:00.000001Z" | timestamp extension        |
| timedelta64, timedelta                 | "P1DT2.5S" (ISO 8601)         | the same text              |
| bytes                                  | base64 string                 | bin                        |
| float32                                | the exact value, as a double  | float 32                   |

A numeric column of a batch is a plain array, which ``Batch.with_nulls`` gives its nulls where it is returned as it is;
what is computed of it has those of ``np.ma.masked_array(..., ~batch.valid(name))``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.ma  # NumPy would do so at a first array, in the time of a call that somebody watches
import numpy.typing as npt

from pythia_fast._ext import row_encoder as rows_c
from pythia_fast._ext.row_encoder import RowEncoder
from pythia_fast.columns import BytesColumn, RawColumn, StringColumn
from pythia_fast.error_text import reason_of
from pythia_fast.errors import OutputValueError, ResultError
from pythia_fast.nested_columns import ListColumn, StructColumn
from pythia_fast.results.arrow_arrays import plain_array, python_values
from pythia_fast.results.arrow_types import field_named_twice, is_binary, is_text
from pythia_fast.results.given_items import given_items
from pythia_fast.results.plain_values import NO_LENGTH, OUT_OF_RANGE, has_length, polars_values, to_microseconds
from pythia_fast.results.raw_values import raw_writer

_KINDS = {
    ("b", 1): rows_c.BOOL,
    ("i", 1): rows_c.INT8,
    ("i", 2): rows_c.INT16,
    ("i", 4): rows_c.INT32,
    ("i", 8): rows_c.INT64,
    ("u", 1): rows_c.UINT8,
    ("u", 2): rows_c.UINT16,
    ("u", 4): rows_c.UINT32,
    ("u", 8): rows_c.UINT64,
    ("f", 4): rows_c.FLOAT32,
    ("f", 8): rows_c.FLOAT64,
}


_KEY_TYPES = frozenset({str, bytes, type(None)})


class ColumnWriter:
    """Adds the columns of one result to a RowEncoder.

    ``encode_value`` turns one Python object into JSON or MessagePack. ``names``: of the columns, as the RowEncoder
    counts them. ``faults``: by row, what cannot be sent on; such a row's place in the RowEncoder holds null, or
    anything, and is not to be written.
    """

    def __init__(self, rows: RowEncoder, encode_value: Callable[[Any], bytes], *, msgpack: bool) -> None:
        self.names: list[str] = []
        self.faults: dict[int, OutputValueError] = {}
        self._rows = rows
        self._encode_value = encode_value
        self._msgpack = msgpack
        self._lists: list[npt.NDArray[np.int32]] = []  # offsets of the lists that we are inside of

    def add(self, name: str, column: Any) -> None:
        """Add a column under the name that its values have in each object.

        Raises ResultError naming the column where it cannot be sent on whatever its values are.
        """
        self._column(name, self._prefix(name), column)

    def add_key(self, name: str, column: Any) -> None:
        """Add the column of the records' keys. Raises ResultError."""
        self._column(name, None, column)

    def _prefix(self, name: str) -> bytes:
        try:
            return msgspec.msgpack.encode(name) if self._msgpack else msgspec.json.encode(name) + b":"
        except UnicodeEncodeError:
            raise ResultError(f"the column name {name!r} holds a lone surrogate, which no UTF-8 has") from None

    def _column(self, name: str, prefix: bytes | None, column: Any, valid: npt.NDArray[np.bool_] | None = None) -> None:
        """``prefix``: what stands before each value; None makes it the records' key. ``valid``: of an array."""
        library = type(column).__module__.partition(".")[0]
        if prefix is not None:
            self.names.append(name)
        if isinstance(column, np.ndarray):
            self._array(name, prefix, column, valid)
        elif isinstance(column, RawColumn) and prefix is not None:
            self._raw(name, prefix, column)
        elif isinstance(column, (StringColumn, BytesColumn)):
            self._text(prefix, column)
        elif isinstance(column, ListColumn) and prefix is not None:
            self._list(name, prefix, column)
        elif isinstance(column, StructColumn) and prefix is not None:
            self._structs(name, prefix, column)
        elif library == "pyarrow":
            self._arrow(name, prefix, column)
        elif library == "polars":
            self._polars(name, prefix, column)
        elif library == "pandas":
            self._pandas(name, prefix, column)
        elif hasattr(column, "__array__") and not isinstance(column, Sequence):
            self._array(name, prefix, np.asarray(column))
        elif isinstance(column, StructColumn):
            self._objects(name, prefix, column.tolist())
        else:
            self._objects(name, prefix, given_items(f"column {name!r}", column))

    # -- columns of batches

    def _text(self, prefix: bytes | None, column: StringColumn | BytesColumn) -> None:
        kind = rows_c.STRING if isinstance(column, StringColumn) else rows_c.BYTES
        self._rows.add_spans(prefix, kind, column.offsets, column.data, _valid_bytes(column))

    def _raw(self, name: str, prefix: bytes, column: RawColumn) -> None:
        """Values that stand in payloads, as they stand there; in JSON on one line, which they may not be."""
        encoding = "msgpack" if self._msgpack else "json"
        if column.encoding == encoding and (self._msgpack or not (column.data == ord("\n")).any()):
            self._rows.add_spans(prefix, rows_c.ENCODED, column.offsets, column.data, _valid_bytes(column))
            return
        write = raw_writer(column.encoding, encoding, self._encode_value)
        encoded = self._encode_all(name, column.tolist(), lambda value: value and write(value))
        self._rows.add_objects(prefix, rows_c.ENCODED, tuple(encoded))

    def _list(self, name: str, prefix: bytes, column: ListColumn) -> None:
        self._rows.begin_list(prefix, column.offsets, _valid_bytes(column))
        self._lists.append(column.offsets)
        self._column(f"{name}[]", b"", column.values, column.value_valid)
        self._lists.pop()
        self._rows.end()

    def _structs(self, name: str, prefix: bytes, column: StructColumn) -> None:
        self._rows.begin_struct(prefix, _valid_bytes(column))
        for key, values, valid in column.encoded():
            self._column(f"{name}.{key}", self._prefix(key), values, valid)
        self._rows.end()

    # -- NumPy

    def _array(
        self, name: str, prefix: bytes | None, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None
    ) -> None:
        if isinstance(values, np.ma.MaskedArray) and values.ndim == 1:
            mask = np.ma.getmaskarray(values)
            values, valid = np.asarray(values.data), ~mask if valid is None else valid & ~mask
        dtype = values.dtype
        if dtype.kind == "m" and not has_length(dtype):
            raise ResultError(f"column {name!r} is {dtype}: {NO_LENGTH}")
        if dtype.names is not None:
            raise ResultError(
                f"column {name!r} is a structured array: give its fields ({', '.join(dtype.names)}) as columns of "
                "their own"
            )
        if dtype.kind == "c" or (dtype.kind == "f" and dtype.itemsize > 8):
            raise ResultError(f"column {name!r} of dtype {dtype} cannot be sent on; use float64 columns")
        if values.ndim == 1 and dtype.kind == "M":
            if prefix is None:
                raise _no_keys(name, dtype)
            self._values(name, prefix, rows_c.DATETIME, self._microseconds(name, values, valid), valid)
        elif values.ndim == 1 and dtype.kind in "biuf":
            if dtype == np.float16:
                values = values.astype(np.float32)
            elif not dtype.isnative:
                values = values.astype(dtype.newbyteorder("="))
            self._values(name, prefix, _KINDS[values.dtype.kind, values.dtype.itemsize], values, valid)
        else:
            objects = list(values) if dtype.kind in "mM" else values.tolist()  # of which a mask makes None
            self._objects(name, prefix, objects if valid is None else _with_none(objects, valid))

    def _values(
        self,
        name: str,
        prefix: bytes | None,
        kind: int,
        values: npt.NDArray[Any],
        valid: npt.NDArray[np.bool_] | None,
    ) -> None:
        if prefix is None and not rows_c.INT8 <= kind <= rows_c.UINT64:
            raise _no_keys(name, values.dtype)
        self._rows.add_values(prefix, kind, values, None if valid is None else valid.view(np.uint8))

    def _microseconds(
        self, name: str, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.int64]:
        """datetime64 of any unit as int64 microseconds; NaT stays the smallest int64."""
        converted, wrapped = to_microseconds(values)
        for row in np.flatnonzero(wrapped if valid is None else wrapped & valid).tolist():
            self._fault(name, row, OUT_OF_RANGE)
        return converted.view(np.int64)

    # -- Python objects

    def _objects(self, name: str, prefix: bytes | None, values: list[Any]) -> None:
        if prefix is None:
            if not all(map(_KEY_TYPES.__contains__, map(type, values))):
                values = self._key_texts(name, values)
            self._texts(name, prefix, rows_c.STRING, values)
            return
        first = next((value for value in values if value is not None), None)
        if isinstance(first, (str, bytes)):
            try:
                self._texts(name, prefix, rows_c.STRING if isinstance(first, str) else rows_c.BYTES, values)
                return
            except TypeError:  # values of several types
                pass
        self._rows.add_objects(prefix, rows_c.ENCODED, tuple(self._encode_all(name, values)))

    def _texts(self, name: str, prefix: bytes | None, kind: int, values: list[Any]) -> None:
        """Add str or bytes. Raises TypeError where there are other values."""
        try:
            self._rows.add_objects(prefix, kind, tuple(values))
        except UnicodeEncodeError:
            clean = [None if isinstance(value, str) and not _is_unicode(value) else value for value in values]
            self._rows.add_objects(prefix, kind, tuple(clean))
            for row, value in enumerate(clean):
                if value is None and values[row] is not None:
                    self._fault(name, row, "a lone surrogate has no UTF-8 form")

    def _key_texts(self, name: str, values: list[Any]) -> list[str | bytes | None]:
        """Keys with the integers among them as text."""
        keys: list[str | bytes | None] = []
        for row, value in enumerate(values):
            if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
                keys.append(self._integer_text(name, row, value))
            elif value is None or isinstance(value, (str, bytes)):
                keys.append(value)
            else:
                keys.append(None)
                self._fault(name, row, f"a key is bytes, str or an integer, not {type(value).__name__}")
        return keys

    def _integer_text(self, name: str, row: int, value: Any) -> str | None:
        try:
            return str(int(value))
        except Exception as error:  # of more digits than Python makes text of; of the user's own class
            self._fault(name, row, reason_of(error))
            return None

    def _encode_all(
        self, name: str, values: list[Any], encode: Callable[[Any], bytes | None] | None = None
    ) -> list[bytes | None]:
        encoded: list[bytes | None] = []
        encode = encode or self._encode_value
        for row, value in enumerate(values):
            try:
                encoded.append(encode(value))
            except Exception as error:  # of the user's own objects too
                encoded.append(None)
                self._fault(name, row, reason_of(error))
        return encoded

    def _fault(self, name: str, row: int, why: str) -> None:
        for offsets in reversed(self._lists):
            row = int(np.searchsorted(offsets, row, side="right")) - 1
        self.faults.setdefault(row, OutputValueError(row, why, name))

    # -- Arrow

    def _arrow(self, name: str, prefix: bytes | None, column: Any) -> None:
        pa = sys.modules["pyarrow"]
        column = plain_array(pa, column)
        kind = column.type
        if pa.types.is_float16(kind):
            column = column.cast(pa.float32())
        elif pa.types.is_timestamp(kind):
            valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
            self._instants(name, prefix, column.view(pa.int64()).fill_null(0).to_numpy(), kind.unit, valid)
            return
        self._arrow_buffers(name, prefix, column)

    def _arrow_buffers(self, name: str, prefix: bytes | None, column: Any) -> None:
        pa = sys.modules["pyarrow"]
        kind, offset, length = column.type, column.offset, len(column)
        validity, *buffers = column.buffers() if kind.num_fields == 0 else (None,)
        if pa.types.is_boolean(kind):
            if prefix is None:
                raise _no_keys(name, kind)
            self._rows.add_bits(prefix, rows_c.BOOL_BITS, buffers[0], offset)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            dtype = np.dtype(kind.to_pandas_dtype())
            values = np.frombuffer(buffers[0], dtype)[offset : offset + length]
            self._values(name, prefix, _KINDS[dtype.kind, dtype.itemsize], values, None)
        elif buffers and (is_text(pa, kind) or is_binary(pa, kind)):
            wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
            offsets = np.frombuffer(buffers[0], np.int64 if wide else np.int32)[offset : offset + length + 1]
            data = np.frombuffer(buffers[1], np.uint8) if buffers[1] is not None and buffers[1].size else b""
            self._rows.add_spans(prefix, rows_c.STRING if is_text(pa, kind) else rows_c.BYTES, offsets, data)
        else:
            twice = field_named_twice(pa, kind)
            if twice is not None:
                raise ResultError(
                    f"column {name!r} holds structs with more than one field {twice!r}; an object can hold one of that "
                    "name: rename the others, or leave them out"
                )
            self._objects(name, prefix, self._tried(name, column, partial(python_values, pa)))
            return
        if validity is not None:
            self._rows.set_valid_bits(validity, offset, key=prefix is None)

    def _instants(
        self,
        name: str,
        prefix: bytes | None,
        values: npt.NDArray[np.int64],
        unit: str,
        valid: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Integers since the epoch. A time zone, which they may have, only says how to show an instant."""
        self._array(name, prefix, values.view(f"datetime64[{unit}]"), valid)

    def _tried(
        self, name: str, column: Any, listed: Callable[[Any], list[Any]], panic: type[BaseException] = Exception
    ) -> list[Any]:
        """A column of Arrow or polars as Python values; a row for which there is none, a far date say, is at fault.

        ``panic``: what else than an Exception the library raises for it.
        """
        try:
            return listed(column)
        except MemoryError:  # no fault of a row
            raise
        except (Exception, panic):
            values: list[Any] = []
        for row in range(len(column)):
            try:
                values += listed(column.slice(row, 1))
            except MemoryError:
                raise
            except (Exception, panic) as error:
                values.append(None)
                self._fault(name, row, reason_of(error))
        return values

    # -- data frame columns

    def _polars(self, name: str, prefix: bytes | None, column: Any) -> None:
        pl = sys.modules["polars"]
        has_array = column.dtype.is_numeric() and not column.dtype.is_decimal() and "128" not in str(column.dtype)
        if not has_array and column.dtype not in (pl.Boolean, pl.Datetime):
            self._objects(
                name, prefix, self._tried(name, column, partial(polars_values, pl), pl.exceptions.PanicException)
            )
            return
        valid = column.is_not_null().to_numpy() if column.null_count() else None
        if column.dtype == pl.Datetime:
            self._instants(name, prefix, column.to_physical().fill_null(0).to_numpy(), column.dtype.time_unit, valid)
        else:
            filled = column if valid is None else column.fill_null(False if column.dtype == pl.Boolean else 0)
            self._array(name, prefix, filled.to_numpy(), valid)

    def _pandas(self, name: str, prefix: bytes | None, column: Any) -> None:
        pd = sys.modules["pandas"]
        if column.ndim != 1:
            raise ResultError(f"column {name!r} is a {type(column).__name__}; give its columns one by one")
        if not isinstance(column, pd.Series):  # an index, or an extension array
            column = pd.Series(column.to_flat_index() if isinstance(column, pd.MultiIndex) else column)
        dtype = column.dtype
        if isinstance(dtype, pd.ArrowDtype):
            self._arrow(name, prefix, column.array.__arrow_array__())
        elif isinstance(dtype, pd.DatetimeTZDtype):
            self._array(name, prefix, column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
        elif isinstance(dtype, np.dtype) and dtype.kind != "O":
            self._array(name, prefix, column.to_numpy())
        elif isinstance(getattr(dtype, "numpy_dtype", None), np.dtype) and dtype.numpy_dtype.kind in "biuf":
            values = column.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
            self._array(name, prefix, values, column.notna().to_numpy())
        else:
            self._objects(name, prefix, _with_none(column.tolist(), column.notna().to_numpy()))


def columns_in(column: Any) -> int:
    """How many columns of the RowEncoder a column becomes: those inside of it are more of them."""
    if isinstance(column, ListColumn):
        return 1 + columns_in(column.values)
    if isinstance(column, StructColumn):
        return 1 + sum(columns_in(values) for _, values, _ in column.encoded())
    return 1


def _valid_bytes(column: StringColumn | BytesColumn | ListColumn | StructColumn) -> npt.NDArray[np.uint8] | None:
    """One byte a value, 0 where it is null; None where none is."""
    valid = column.valid
    return None if valid.all() else valid.view(np.uint8)


def _no_keys(name: str, dtype: Any) -> ResultError:
    return ResultError(f"{name!r} must hold bytes, str or integers, not {dtype}")


def _with_none(values: list[Any], valid: npt.NDArray[np.bool_]) -> list[Any]:
    return [value if good else None for value, good in zip(values, valid.tolist(), strict=True)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
