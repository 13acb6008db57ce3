"""What a handler returned -> framed records for the sink, written into the slot's output region.

| returned                                                      | records                                     |
|---------------------------------------------------------------|---------------------------------------------|
| None                                                          | none                                        |
| a dict of equally long columns, a NumPy structured array      | one object a row                            |
| a pyarrow Table or RecordBatch, a polars or pandas DataFrame, | one object a row                            |
| or any other holder of Arrow columns                          |                                             |
| a list: bytes, str                                            | each as it is                               |
| a list: Structs, dicts, anything else that msgspec encodes    | each encoded                                |

Objects are JSON or MessagePack, as the sink says. A result may have fewer or more rows than the batch
(handlers filter and explode), but all columns of one result are equally long. A column named
``__key__`` (bytes, str or integers) is the records' key and no part of their payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np

from pythia_fast._ext import row_encoder as rows_c
from pythia_fast._ext.row_encoder import RowEncoder, encode_payloads
from pythia_fast.brokers.base import NO_BYTES, RECORD_HEADER_BYTES
from pythia_fast.errors import HandlerError
from pythia_fast.runtime.output_columns import ColumnWriter

KEY_COLUMN = "__key__"
_LARGEST_MEASURED = 1 << 30  #: bytes; how far the error for a record that does not fit looks for its size


class Encoded(NamedTuple):
    """What one call of ``encode`` wrote."""

    bytes: int  #: used of the region
    records: int
    done: bool  #: nothing is left
    resume: int  #: ``start`` of the next call, once the region was drained


class OutputEncoder:
    """Encodes results, one after the other; belongs to one pool process.

    Parameters:
        encoding: of the objects: ``json`` or ``msgpack``.
    """

    def __init__(self, encoding: Literal["json", "msgpack"] = "json") -> None:
        self._msgpack = encoding == "msgpack"
        encoder = msgspec.msgpack.Encoder if self._msgpack else msgspec.json.Encoder
        self._encode_value: Callable[[Any], bytes] = encoder(enc_hook=_plain).encode
        self._open: _Records | None = None

    def encode(self, result: Any, region: memoryview, start: int = 0) -> Encoded:
        """Write the records of ``result`` to ``region`` until all are written or it is full.

        ``start=0`` begins a result. Where ``done`` is False, drain the region and call again with the same
        result and ``start=resume``. Views that the result holds must stay valid until then.

        Raises HandlerError naming column and row for what cannot be sent on: columns of unequal length, a
        type without a JSON form, text that is not UTF-8, a record larger than the whole region. After an
        error the same ``start`` may be tried with another region.
        """
        if start == 0 or self._open is None:
            self._open = self._prepare(result)
        opened, self._open = self._open, None  # whatever happens, nothing is held that the result looked at
        if opened is None:
            return Encoded(0, 0, True, 0)
        written = opened.write(region, start)
        if not written.done:
            self._open = opened
        return written

    def _prepare(self, result: Any) -> _Records | None:
        """The records of a result; None when there are none."""
        if result is None:
            return None
        if isinstance(result, (list, tuple)):
            return _Payloads([self._payload(i, item) for i, item in enumerate(result)]) if result else None
        columns = columns_of(result)
        n = _common_length(columns)
        if n == 0:
            return None
        names = [name for name in columns if name != KEY_COLUMN]
        rows = RowEncoder(n, self._msgpack, len(names))
        writer = ColumnWriter(rows, self._encode_value)
        for name, prefix in zip(names, self._prefixes(names), strict=True):
            writer.add(name, prefix, columns[name])
        if KEY_COLUMN in columns:
            writer.add(KEY_COLUMN, None, columns[KEY_COLUMN])
        return _Rows(rows, names)

    def _prefixes(self, names: list[str]) -> list[bytes]:
        if not self._msgpack:
            return [(b"," if i else b"{") + msgspec.json.encode(name) + b":" for i, name in enumerate(names)]
        return [(b"" if i else _map_head(len(names))) + msgspec.msgpack.encode(name) for i, name in enumerate(names)]

    def _payload(self, index: int, item: Any) -> bytes:
        if isinstance(item, bytes):
            return item
        if item is None:
            raise HandlerError(f"element {index} of the returned list is None; leave out what is not to be sent")
        try:
            if isinstance(item, str):
                return item.encode()
            if isinstance(item, (bytearray, memoryview)):
                return bytes(item)
            return self._encode_value(item)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise HandlerError(f"element {index} of the returned list ({type(item).__name__}): {error}") from error


class _Records(Protocol):
    def write(self, region: memoryview, start: int) -> Encoded: ...


class _Rows:
    """Columns, written a row at a time by the C kernel."""

    def __init__(self, rows: RowEncoder, names: list[str]) -> None:
        self._rows = rows
        self._names = names

    def write(self, region: memoryview, start: int) -> Encoded:
        code, row, column, size, records = self._rows.encode(region, start)
        if code not in (rows_c.DONE, rows_c.FULL):
            where = f"column {self._names[column]!r}, row {row}" if column >= 0 else f"row {row}"
            raise HandlerError(f"{where}: {_FAILURES[code]}")
        if code == rows_c.FULL and records == 0:
            raise _too_large(row, len(region), self._measure(row, len(region)))
        return Encoded(size, records, code == rows_c.DONE, row)

    def _measure(self, row: int, too_small: int) -> int | None:
        """Bytes of the record at ``row``; None above _LARGEST_MEASURED."""
        size = max(2 * too_small, 1 << 16)
        while size <= _LARGEST_MEASURED:
            scratch = bytearray(size)
            if self._rows.encode(scratch, row)[4]:
                key, headers, payload = struct.unpack_from("<III", scratch)
                return RECORD_HEADER_BYTES + (0 if key == NO_BYTES else int(key)) + int(headers) + int(payload)
            size *= 2
        return None


class _Payloads:
    """Payloads that exist already."""

    def __init__(self, payloads: list[bytes]) -> None:
        self._payloads = payloads

    def write(self, region: memoryview, start: int) -> Encoded:
        code, index, size, records = encode_payloads(self._payloads, start, region)
        if code == rows_c.TOO_LARGE or (code == rows_c.FULL and records == 0):
            raise _too_large(index, len(region), RECORD_HEADER_BYTES + len(self._payloads[index]))
        return Encoded(size, records, code == rows_c.DONE, index)


_FAILURES = {
    rows_c.BAD_UTF8: "the string is not valid UTF-8",
    rows_c.BAD_DATETIME: "the datetime lies outside the years 1 to 9999",
    rows_c.TOO_LARGE: "larger than the 4 GiB that a record may have",
}


def _too_large(row: int, region: int, size: int | None) -> HandlerError:
    takes = f"{size} bytes" if size is not None else f"more than {_LARGEST_MEASURED} bytes"
    return HandlerError(
        f"record {row} of the result takes {takes}, but the output region of a batch holds {region}; "
        "return smaller records"
    )


def columns_of(result: Any) -> Mapping[str, Any]:
    """The columns of a result, by name."""
    library = type(result).__module__.partition(".")[0]
    if isinstance(result, Mapping):
        columns = result
    elif isinstance(result, np.ndarray) and result.dtype.names is not None and result.ndim == 1:
        columns = {name: result[name] for name in result.dtype.names}
    elif library == "polars" and hasattr(result, "get_columns"):
        columns = {column.name: column for column in result.get_columns()}
    elif library == "pandas" and hasattr(result, "items") and hasattr(result, "columns"):
        columns = dict(result.items())
    elif hasattr(result, "__arrow_c_stream__") or hasattr(result, "__arrow_c_array__"):
        columns = _arrow_columns(result)
    else:
        raise HandlerError(
            f"a handler cannot return {type(result).__name__}; return None, a dict of equally long arrays, "
            "an Arrow table, a polars or pandas DataFrame, or a list of Structs, dicts, bytes or str"
        )
    wrong = next((name for name in columns if not isinstance(name, str)), None)
    if wrong is not None:
        raise HandlerError(f"column names must be str, not {wrong!r}")
    if not any(name != KEY_COLUMN for name in columns):
        raise HandlerError("the result has no columns; return None to send nothing")
    return columns


def _map_head(n: int) -> bytes:
    """Head of a MessagePack map of ``n`` entries: fixmap, map 16 or map 32."""
    if n < 16:
        return bytes([0x80 | n])
    return struct.pack(">BH", 0xDE, n) if n < 1 << 16 else struct.pack(">BI", 0xDF, n)


def _arrow_columns(result: Any) -> dict[str, Any]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise HandlerError(
            f"returning {type(result).__name__} needs pyarrow; pip install 'pythia-fast[arrow]'"
        ) from error
    try:
        table = pa.table(result) if hasattr(result, "__arrow_c_stream__") else pa.record_batch(result)
    except (pa.ArrowInvalid, ValueError, TypeError) as error:
        raise HandlerError(f"the returned {type(result).__name__} is no table: {error}") from error
    return dict(zip(table.column_names, table.columns, strict=True))


def _common_length(columns: Mapping[str, Any]) -> int:
    """Rows of the result. Raises HandlerError where a value is no column, or lengths differ."""
    lengths: dict[str, int] = {}
    for name, column in columns.items():
        if isinstance(column, (str, bytes, Mapping)) or not _is_column(column):
            raise HandlerError(
                f"column {name!r} is one {type(column).__name__}, not an array with a value a row; "
                "np.full(len(batch), value) repeats a value"
            )
        lengths[name] = len(column)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise HandlerError(f"the columns of a result must be equally long: {listed}")
    return next(iter(lengths.values()))


def _is_column(value: Any) -> bool:
    return hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def _plain(value: Any) -> Any:
    """What msgspec does not know: NumPy scalars and arrays as Python values."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON or MessagePack form")
