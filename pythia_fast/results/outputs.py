"""What a handler returned -> framed records for the sink, written into the slot's output region.

| returned                                                      | records                                     |
|---------------------------------------------------------------|---------------------------------------------|
| None                                                          | none                                        |
| a dict of equally long columns, a NumPy structured array      | one object a row                            |
| a Batch: its columns, as msgspec writes its Structs           | one object a row                            |
| a pyarrow Table or RecordBatch, a polars or pandas DataFrame, | one object a row                            |
| or any other holder of Arrow columns                          |                                             |
| a list, batch.rows(), batch.raw: bytes, str                   | each as it is                               |
| a list: Structs, dicts, anything else that msgspec encodes    | each encoded                                |
| Forwarded                                                     | the batch's messages as they came           |

Objects are JSON or MessagePack, as the sink says. All columns of one result are equally long. A column named
``__key__`` (bytes, str or integers) is the records' key and no part of their payload.

A result that is none of these is the handler's fault: ResultError. A value that has no form in JSON or MessagePack
is the fault of its row: OutputValueError, told for that row while the others are written.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard

import msgspec
import numpy as np

from pythia_fast._ext import row_encoder as rows_c
from pythia_fast._ext.message_records import BROKEN, encode_messages
from pythia_fast._ext.row_encoder import RowEncoder, encode_payloads
from pythia_fast.batch import MESSAGE, Batch
from pythia_fast.brokers.base import RECORD_HEADER_BYTES
from pythia_fast.error_text import reason_of
from pythia_fast.errors import OutputValueError, ResultError
from pythia_fast.nested_columns import StructColumn
from pythia_fast.results.forwarding import Forwarded
from pythia_fast.results.output_columns import ColumnWriter, columns_in
from pythia_fast.results.plain_values import OUT_OF_RANGE, plain
from pythia_fast.results.raw_values import MOST_TYPES, RawValues, raw_writer
from pythia_fast.selection import BoolArray
from pythia_fast.spans import Spans

if TYPE_CHECKING:
    from pythia_fast.registration import Handler

KEY_COLUMN = "__key__"
_LARGEST_MEASURED = 1 << 30  #: bytes; how far the error for a record that does not fit looks for its size


class Encoded(NamedTuple):
    """What one call of ``Records.write`` did."""

    bytes: int  #: used of the region
    records: int
    done: bool  #: nothing is left
    resume: int  #: the first row that was not written: ``start`` of the next call
    fault: OutputValueError | None = None  #: why row ``resume`` cannot be sent on; go on with ``start=resume + 1``


class OutputEncoder:
    """Prepares results to be written; holds nothing of them.

    Parameters:
        encoding: of the objects: ``json`` or ``msgpack``.
        decoder: the name of the handler's, in whose encoding each ``msgspec.Raw`` is.
    """

    def __init__(self, encoding: Literal["json", "msgpack"] = "json", decoder: str = "") -> None:
        self._msgpack = encoding == "msgpack"
        encoder = msgspec.msgpack.Encoder if self._msgpack else msgspec.json.Encoder
        self._encode: Callable[[Any], bytes] = encoder(enc_hook=plain).encode
        self._raws = RawValues(raw_writer(decoder, encoding, self._encode))
        self._direct: set[type] = set()  # types of records that are encoded as they are

    def open(self, result: Any) -> Records:
        """The records of ``result``, which looks at the result's memory as long as it lives.

        Raises ResultError for what is no result: not a table, columns of unequal length, a type that has no form
        in JSON or MessagePack. A single row that cannot be sent on is told when ``write`` comes to it.
        """
        if result is None:
            return _Payloads([], {})
        if isinstance(result, Forwarded):
            return _Messages(result)
        if is_list(result):
            return self._payloads(result)
        columns = columns_of(result)
        n = length_of(columns)
        if n == 0:
            return _Payloads([], {})
        objects = {name: column for name, column in columns.items() if name != KEY_COLUMN}
        rows = RowEncoder(n, self._msgpack, sum(map(columns_in, objects.values())))
        writer = ColumnWriter(rows, self._encode_value, msgpack=self._msgpack)
        for name, column in objects.items():
            writer.add(name, column)
        if KEY_COLUMN in columns:
            writer.add_key(KEY_COLUMN, columns[KEY_COLUMN])
        return _Rows(rows, writer.names, writer.faults)

    def _payloads(self, items: Sequence[Any]) -> _Payloads:
        payloads: list[bytes] = []
        faults: dict[int, OutputValueError] = {}
        for row, item in enumerate(items):
            try:
                payloads.append(self.payload(item))
            except Exception as error:  # of the user's own objects too
                payloads.append(b"")
                faults[row] = OutputValueError(row, reason_of(error))
        return _Payloads(payloads, faults)

    def payload(self, item: Any) -> bytes:
        """One element of a list as a payload. Raises whatever says that it has none."""
        if type(item) in self._direct:
            return self._encode(item)
        if type(item) is bytes:
            return item
        if item is None:
            raise TypeError("None is no record; batch.reject() gives a row up, output_rows='any' lets it be left out")
        # What a subclass makes of encode() and __bytes__() may be no bytes.
        if isinstance(item, str):
            return str.encode(item)
        if isinstance(item, bytes):
            return b"".join((item,))
        if isinstance(item, (bytearray, memoryview)):
            return memoryview(item).tobytes()
        payload = self._encode_value(item)
        if not payload:
            raise TypeError("a msgspec.Raw without bytes is no record")
        if self._raws.in_none_of(type(item)):
            if len(self._direct) > MOST_TYPES:
                self._direct.clear()
            self._direct.add(type(item))
        return payload

    def _encode_value(self, value: Any) -> bytes:
        """``value`` in the sink's encoding; nothing for a Raw that its payload did not have."""
        walked = self._raws(value)
        return b"" if walked is msgspec.UNSET and walked is not value else self._encode(walked)


def output_encoder(handler: Handler) -> OutputEncoder:
    """The encoder of what a handler returns; JSON where it has no sink and a result is only tried out."""
    return OutputEncoder(handler.sink.encoding() if handler.sink is not None else "json", handler.decoding.name)


class Records(ABC):
    """One result, ready to be written.

    Parameters:
        rows: records there are.
        faults: those that cannot be sent on, as far as it is known beforehand.
    """

    def __init__(self, rows: int, faults: dict[int, OutputValueError]) -> None:
        self.rows = rows
        self._faults = faults
        self._faulty = sorted(faults)

    def write(self, region: memoryview, start: int = 0, *, whole: bool = True) -> Encoded:
        """Write records from ``start`` on until all are written, the region is full, or one cannot be sent on.

        ``whole``: the region is as large as one ever is, so that a record which does not fit in it never will.
        """
        place = bisect_left(self._faulty, start)
        end = self._faulty[place] if place < len(self._faulty) else self.rows
        code, row, column, size, records = self._encode(region, start, end)
        fault = None
        if code == rows_c.DONE:
            fault = self._faults.get(end)
        elif code != rows_c.FULL:
            fault = OutputValueError(row, _FAILURES[code], self._column(column))
        elif records == 0 and whole:
            fault = _too_large(row, len(region), self._measure(row, len(region)))
        return Encoded(size, records, code == rows_c.DONE and end == self.rows, row, fault)

    @abstractmethod
    def _encode(self, region: memoryview | bytearray, start: int, end: int) -> tuple[int, int, int, int, int]:
        """As RowEncoder.encode."""

    @abstractmethod
    def _column(self, index: int) -> str | None:
        """Name of the column in which a row failed."""

    @abstractmethod
    def _measure(self, row: int, too_small: int) -> int | None:
        """Bytes of the record at ``row``; None where it cannot be measured."""


def faults_in(records: Records, region: memoryview, start: int = 0) -> Iterator[OutputValueError]:
    """What cannot be sent on from row ``start`` on. The records are written to know it: the region is overwritten."""
    done = False
    while not done:
        written = records.write(region, start)
        start, done = written.resume, written.done
        if written.fault is not None:
            yield written.fault
            start += 1


class _Rows(Records):
    """Columns, written a row at a time by the C kernel."""

    def __init__(self, rows: RowEncoder, names: list[str], faults: dict[int, OutputValueError]) -> None:
        super().__init__(rows.rows, faults)
        self._rows = rows
        self._names = names

    def _encode(self, region: memoryview | bytearray, start: int, end: int) -> tuple[int, int, int, int, int]:
        return self._rows.encode(region, start, end)

    def _column(self, index: int) -> str | None:
        return self._names[index] if index >= 0 else None

    def _measure(self, row: int, too_small: int) -> int | None:
        size = max(2 * too_small, 1 << 16)
        with contextlib.suppress(MemoryError):
            while size <= _LARGEST_MEASURED:
                code, _, _, used, _ = self._rows.encode(bytearray(size), row, row + 1)
                if code == rows_c.DONE:
                    return used
                size *= 2
        return None


class _Payloads(Records):
    """Payloads that exist already."""

    def __init__(self, payloads: list[bytes], faults: dict[int, OutputValueError]) -> None:
        super().__init__(len(payloads), faults)
        self._payloads = payloads

    def _encode(self, region: memoryview | bytearray, start: int, end: int) -> tuple[int, int, int, int, int]:
        code, row, size, records = encode_payloads(self._payloads, region, start, end)
        return code, row, -1, size, records

    def _column(self, index: int) -> str | None:
        return None

    def _measure(self, row: int, too_small: int) -> int | None:
        return RECORD_HEADER_BYTES + len(self._payloads[row])


class _Messages(Records):
    """The messages of a batch as they came."""

    def __init__(self, forwarded: Forwarded) -> None:
        super().__init__(len(forwarded), {})
        memory, name_of = forwarded.batch.forwarded_parts()
        self._what = forwarded.what
        self._table = memory.messages()
        self._raw = memory.raw("forwarded")
        self._places: list[tuple[int, bytes, int]] = []
        if self._what and name_of is not None:
            table = np.frombuffer(memoryview(self._table), MESSAGE)
            for index in np.unique(table["partition"]).tolist():
                topic, number = name_of(index)
                self._places.append((index, topic.encode("utf-8", "surrogateescape"), number))

    def _encode(self, region: memoryview | bytearray, start: int, end: int) -> tuple[int, int, int, int, int]:
        code, row, size = encode_messages(self._table, self._raw, self._places, self._what, region, start, end)
        if code == BROKEN:
            raise RuntimeError(f"message {row} of a batch lies outside of it")
        return (rows_c.DONE if row == end else rows_c.FULL), row, -1, size, row - start

    def _column(self, index: int) -> str | None:
        return None

    def _measure(self, row: int, too_small: int) -> int | None:
        return None


_FAILURES = {
    rows_c.BAD_UTF8: "the string is not valid UTF-8",
    rows_c.BAD_DATETIME: OUT_OF_RANGE,
    rows_c.TOO_LARGE: "larger than the 4 GiB that a record may have",
}


def _too_large(row: int, region: int, size: int | None) -> OutputValueError:
    takes = f"{size} bytes" if size is not None else "more bytes than can be measured"
    return OutputValueError(
        row,
        f"its record takes {takes}, but the output region of a batch holds {region}; "
        "return smaller records, or raise max_batch_bytes",
    )


def is_list(result: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a result is a list of records: the rows of a batch, or its payloads, are one."""
    return isinstance(result, (list, tuple, Spans))


def columns_of(result: Any) -> Mapping[str, Any]:
    """The columns of a result, by name."""
    library = type(result).__module__.partition(".")[0]
    if isinstance(result, Batch):
        encoded = result.as_structs().encoded()
        columns: Mapping[Any, Any] = {key: _with_nulls(column, valid) for key, column, valid in encoded}
    elif isinstance(result, Mapping):
        columns = result
    elif isinstance(result, np.ndarray) and result.dtype.names is not None and result.ndim == 1:
        columns = {name: result[name] for name in result.dtype.names}
    elif library == "polars" and hasattr(result, "get_columns"):
        columns = {column.name: column for column in result.get_columns()}
    elif library == "pandas" and hasattr(result, "items") and hasattr(result, "columns"):
        columns = _by_name(result.items())
    elif hasattr(result, "__arrow_c_stream__") or hasattr(result, "__arrow_c_array__"):
        columns = _arrow_columns(result)
    else:
        raise ResultError(
            f"a handler cannot return {type(result).__name__}{_hint(result)}; return None, a dict of equally long "
            "arrays, the batch itself, an Arrow table, a polars or pandas DataFrame, or a list of Structs, dicts, "
            "bytes or str"
        )
    wrong = next((name for name in columns if not isinstance(name, str)), None)
    if wrong is not None:
        raise ResultError(f"column names must be str, not {wrong!r}")
    if not all(type(name) is str for name in columns):  # of a subclass, as NumPy's: msgspec knows str itself
        columns = _by_name((str.__str__(name), column) for name, column in columns.items())
    if not any(name != KEY_COLUMN for name in columns):
        raise ResultError("the result has no columns; return None to send nothing")
    return columns


def _with_nulls(column: Any, valid: BoolArray | None) -> Any:
    """A column of a batch. A numeric one is a plain array there, which does not tell of its nulls."""
    return column if valid is None or valid.all() else np.ma.masked_array(column, ~valid)


def _hint(result: Any) -> str:
    return ' without a name for its column, as in {"x": array}' if isinstance(result, np.ndarray) else ""


def _arrow_columns(result: Any) -> dict[str, Any]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ResultError(
            f"returning {type(result).__name__} needs pyarrow; pip install 'pythia-fast[arrow]'"
        ) from error
    try:
        table = pa.table(result) if hasattr(result, "__arrow_c_stream__") else pa.record_batch(result)
    except (pa.ArrowInvalid, ValueError, TypeError) as error:
        raise ResultError(f"the returned {type(result).__name__} is no table: {error}") from error
    return _by_name(zip(table.column_names, table.columns, strict=True))


def _by_name(columns: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The columns of a table, in which a name may come more than once."""
    found: dict[Any, Any] = {}
    for name, column in columns:
        if name in found:
            raise ResultError(f"the result has more than one column {name!r}; a record can hold one of that name")
        found[name] = column
    return found


def length_of(columns: Mapping[str, Any]) -> int:
    """Rows of the columns. Raises ResultError where a value is no column, or lengths differ."""
    lengths: dict[str, int] = {}
    for name, column in columns.items():
        if not _is_column(column):
            raise ResultError(
                f"column {name!r} is one {type(column).__name__}, not an array with a value a row; "
                "np.full(len(batch), value) repeats a value"
            )
        if isinstance(column, (set, frozenset)):
            raise ResultError(f"column {name!r} is a {type(column).__name__}, which has no order: give a list")
        try:
            lengths[name] = len(column)
        except TypeError as error:  # as of a sparse matrix of SciPy
            raise ResultError(f"column {name!r} is a {type(column).__name__}, which has no length: {error}") from error
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise ResultError(f"the columns of a result must be equally long: {listed}")
    return next(iter(lengths.values()))


def _is_column(value: Any) -> bool:
    if isinstance(value, (str, bytes, Mapping)):
        return isinstance(value, StructColumn)
    return hasattr(type(value), "__len__") and getattr(value, "ndim", 1) > 0
