"""Batch: the rows that a handler gets in one call, as columns.

A Batch copies nothing and makes nothing before it is asked: a one-row batch costs a few microseconds.
Arrays are views of shared memory and read-only, because the same bytes serve the retry of a batch, its
dead letters, and its second handling when a process died in the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeAlias, TypeVar, cast, get_args, overload

import numpy as np
import numpy.typing as npt

from pythia_fast import options
from pythia_fast._ext import arrow
from pythia_fast._ext.batch_memory import NO_PAYLOAD, ROW_REJECTED, ROW_RETRY, BatchMemory, decode_private
from pythia_fast.brokers.framing import decode_headers
from pythia_fast.columns import read_bits, read_column, read_structs, view
from pythia_fast.decoders import DecoderLike, Decoding, Tombstones, choose_decoder
from pythia_fast.errors import BATCH_IS_OVER, HandlerError, MarkError, UnknownColumnError
from pythia_fast.message_extras import header_bytes, key_bytes, timestamps_ms
from pythia_fast.nested_columns import StructColumn
from pythia_fast.options import named_options
from pythia_fast.refusal import Reason, refusal_text
from pythia_fast.schema import ColumnSpec, Kind
from pythia_fast.selection import BoolArray, bits_to_mask, marked_rows
from pythia_fast.spans import Spans, nothing

T = TypeVar("T")
S = TypeVar("S")

Payload: TypeAlias = bytes | bytearray | memoryview | None  #: None: a null value
HeaderDict: TypeAlias = dict[str, bytes | None]

#: pf_message of ext/arena_layout.h
MESSAGE = np.dtype(
    [
        ("offset", "<i8"), ("timestamp_ms", "<i8"), ("partition", "<u4"),
        ("payload_at", "<u4"), ("payload_size", "<u4"), ("key_at", "<u4"), ("key_size", "<i4"),
        ("headers_at", "<u4"), ("headers_size", "<u4"), ("attempts", "<u2"), ("deliveries", "<u2"),
    ]
)  # fmt: skip
NO_REASON = "rejected without a reason"
POSITION = np.dtype([("partition", np.int32), ("offset", np.int64)])

#: partition index of an assignment -> (topic, partition number)
PartitionName = Callable[[int], tuple[str, int]]


@dataclass(frozen=True, slots=True)
class BadPayload:
    """A payload that Batch.decode refused."""

    index: int  #: of the payload among those given
    at: int  #: byte offset into it
    reason: str
    payload: Any  #: as it was given


class Batch(Generic[T]):
    """Rows as columns.

    ``batch["price"]`` is a read-only NumPy view of shape (rows,):

    | field                         | column                                                               |
    |-------------------------------|----------------------------------------------------------------------|
    | int, float, bool, datetime    | array: int64, float64, bool, ``datetime64[us]`` (UTC), or as annotated |
    | str; bytes, msgspec.Raw       | StringColumn; BytesColumn                                            |
    | list[X]                       | ListColumn: ``.offsets`` and ``.values``                             |
    | Optional[X]                   | as X, zero (or empty) where ``batch.valid("price")`` is False        |
    | a Struct                      | no column of its own: ``batch["customer.name"]``                     |

    ``batch["items[]"]`` and ``batch["items[].sku"]`` are the values of a list column, all rows' together.

    Made by the runtime, or by ``Batch.decode``. Its views are good until the handler returns: what is to be
    kept must be copied. ``len(batch)`` is the number of rows.
    """

    __slots__ = (
        "_bad",
        "_closed",
        "_decoding",
        "_memory",
        "_messages",
        "_name_of",
        "_reasons",
        "_retries",
        "_status",
        "_views",
    )

    def __init__(self, memory: BatchMemory, decoding: Decoding, name_of: PartitionName | None = None) -> None:
        self._memory = memory
        self._name_of = name_of
        self._decoding = decoding
        self._views: dict[str, Any] = {}
        self._messages: npt.NDArray[Any] | None = None
        self._status: npt.NDArray[np.uint8] | None = None
        self._reasons: list[tuple[npt.NDArray[np.int64], str]] = []
        self._bad: tuple[BadPayload, ...] = ()
        self._closed = False

    @overload
    @staticmethod
    def decode(
        payloads: Iterable[Payload],
        schema: type[S],
        decoder: DecoderLike = ...,
        *,
        keys: Sequence[bytes | None] | None = ...,
        headers: Sequence[HeaderDict | None] | None = ...,
        timestamps: Sequence[int] | None = ...,
        tombstones: Tombstones = ...,
    ) -> Batch[S]: ...
    @overload
    @staticmethod
    def decode(
        payloads: Iterable[Payload],
        schema: np.dtype[Any] | None = ...,
        decoder: DecoderLike = ...,
        *,
        keys: Sequence[bytes | None] | None = ...,
        headers: Sequence[HeaderDict | None] | None = ...,
        timestamps: Sequence[int] | None = ...,
        tombstones: Tombstones = ...,
    ) -> Batch[Any]: ...
    @staticmethod
    @named_options("Batch.decode")
    def decode(
        payloads: Iterable[Payload],
        schema: Any = None,
        decoder: DecoderLike = "json",
        *,
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[HeaderDict | None] | None = None,
        timestamps: Sequence[int] | None = None,
        tombstones: Tombstones = "dead_letter",
    ) -> Batch[Any]:
        """The columns of some payloads, without a runtime: for notebooks and tests of handlers.

        Parameters:
            payloads: one message each; None is a null value.
            schema: a msgspec.Struct type; none for decoder="raw" or a structured dtype.
            decoder: "json", "msgpack", "raw", a structured NumPy dtype, or an Avro, Protobuf or JsonSchema.
            keys, headers, timestamps: one a payload; timestamps in milliseconds since the epoch, -1 for none.
            tombstones: what becomes of a null value, as of ``App.batch_handler``; by default it is refused.

        The batch holds the good rows, ``batch.bad`` the refused payloads. Raises ConfigError where schema and
        decoder do not fit and for extras of another length or type, TypeError for a payload that is not bytes-like,
        ValueError for more than 2 GiB of payloads.
        """
        options.choice("Batch.decode", "tombstones", tombstones, get_args(Tombstones))
        decoding = choose_decoder(schema, decoder, tombstones)
        given = list(options.items("Batch.decode", "payloads", payloads, "a sequence of payloads: [payload] for one"))
        return Batch.of_payloads(given, decoding, keys, headers, timestamps)

    @staticmethod
    def of_payloads(
        given: list[Payload],
        decoding: Decoding,
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[HeaderDict | None] | None = None,
        timestamps: Sequence[int] | None = None,
    ) -> Batch[Any]:
        """For whoever has a decoding already; as ``decode``."""
        for name, extra in (("keys", keys), ("headers", headers), ("timestamps", timestamps)):
            if extra is not None:
                options.one_each("Batch.decode", name, extra, len(given), "payloads")
        memory, refusals = decode_private(
            decoding.plan,
            decoding.native(),
            given,
            None if keys is None else key_bytes("Batch.decode", keys),
            None if headers is None else header_bytes("Batch.decode", headers),
            None if timestamps is None else timestamps_ms("Batch.decode", timestamps),
        )
        batch: Batch[Any] = Batch(memory, decoding)
        batch._bad = tuple(
            BadPayload(index, at, refusal_text(decoding.schema, reason, found, column, at, given[index]), given[index])
            for index, reason, found, column, at in refusals
            if reason != Reason.NULL or decoding.tombstones != "skip"
        )
        return batch

    # -- columns

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold one value a row, in the schema's order."""
        return tuple(column.name for column in self._decoding.schema.row_columns())

    def __len__(self) -> int:
        return self._memory.rows

    __iter__ = None  # a batch is walked by column, or by batch.rows()

    def __contains__(self, name: object) -> bool:
        spec = self._decoding.schema.by_name.get(name) if isinstance(name, str) else None
        return spec is not None and (spec.kind is not Kind.STRUCT or spec.list >= 0)

    def __getitem__(self, name: str) -> Any:
        """The column; see the table above. Raises UnknownColumnError."""
        try:
            return self._views[name]
        except (KeyError, TypeError):  # a list of names cannot be looked up
            pass
        spec = self._spec(name)
        if spec.kind is Kind.STRUCT and spec.list < 0:
            inner = ", ".join(child.name for child in self._decoding.schema.children(spec))
            raise UnknownColumnError(f"{name!r} is a Struct and has no column of its own; its fields are {inner}")
        column = self._views[name] = read_column(self._memory, self._decoding, spec)
        return column

    def valid(self, name: str) -> BoolArray:
        """bool[n], a copy: where the column has a value. All True for a column that is not Optional."""
        spec = self._spec(name)
        n = self._memory.count(spec.index)
        return bits_to_mask(read_bits(self._memory, spec, n), n)

    def _spec(self, name: str) -> ColumnSpec:
        self._check_open()
        if not isinstance(name, str):
            raise UnknownColumnError(
                f"a column is read by its name, a str, and not by {type(name).__name__}; the columns are "
                f"{', '.join(self.columns)}"
            )
        spec = self._decoding.schema.by_name.get(name)
        if spec is None:
            near = get_close_matches(str(name), self._decoding.schema.by_name, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the columns are {', '.join(self.columns)}"
            raise UnknownColumnError(f"{self._decoding.schema.name} has no column {name!r}{hint}")
        return spec

    # -- rows and what came with them

    def rows(self) -> Sequence[T]:
        """One object a row, decoded from its payload each time it is asked for: a Struct of the schema; a NumPy
        record for a fixed layout; bytes for decoder="raw". Of a tombstone a Struct of what its columns hold, else None.
        """
        return self._spans("rows", "payload", self._decoding.row, self._decoding.null_row)

    @property
    def tombstones(self) -> BoolArray:
        """bool[rows], a copy: which payloads are null. None is, unless the handler has ``tombstones="rows"``."""
        nulls: BoolArray = self._table()["payload_size"] == NO_PAYLOAD
        return nulls

    @property
    def raw(self) -> Sequence[memoryview | None]:
        """The payloads, as read-only views; None for a tombstone."""
        return self._cached("raw", lambda: self._spans("raw", "payload", _same, nothing))

    @property
    def keys(self) -> Sequence[bytes | None]:
        """The messages' keys, None where there is none."""
        return self._cached("keys", lambda: self._spans("keys", "key", bytes, nothing))

    @property
    def headers(self) -> Sequence[HeaderDict]:
        """The messages' headers; of a name that comes twice, the last."""
        return self._cached("headers", lambda: self._spans("headers", "headers", _headers, dict))

    @property
    def positions(self) -> npt.NDArray[Any]:
        """Where each message stands: a copy, fields ``partition`` (int32: the broker's partition number; for files
        the index of the file) and ``offset`` (int64: Kafka offset, byte offset in a file, index in Batch.decode)."""
        table = self._table()
        positions = np.empty(len(table), POSITION)
        positions["partition"] = table["partition"]
        positions["offset"] = table["offset"]
        if self._name_of is not None:
            indices, places = np.unique(table["partition"], return_inverse=True)
            numbers = [self._name_of(index)[1] for index in indices.tolist()]
            positions["partition"] = np.array(numbers, np.int32)[places]
        return positions

    @property
    def topics(self) -> list[str]:
        """The topic, file or queue that each message came from; empty strings in Batch.decode."""
        indices = self._table()["partition"].tolist()
        if self._name_of is None:
            return [""] * len(indices)
        names = {index: self._name_of(index)[0] for index in set(indices)}
        return [names[index] for index in indices]

    @property
    def timestamps(self) -> npt.NDArray[np.datetime64]:
        """``datetime64[ms]``, a copy; NaT where the source gave none."""
        milliseconds = self._table()["timestamp_ms"].copy()
        timestamps = milliseconds.view("datetime64[ms]")
        timestamps[milliseconds == -1] = np.datetime64("NaT", "ms")
        return timestamps

    @property
    def attempts(self) -> npt.NDArray[np.uint32]:
        """uint32[rows], a copy: how often each row has been given to a handler before.

        Calls that ended with the death of their process count until the row has waited for a retry, not beyond it. One
        that came early, because the run was stopped or the partition taken away, and that failed, does not count.
        """
        return self._table()["attempts"].astype(np.uint32)

    @property
    def delivery_counts(self) -> npt.NDArray[np.uint32]:
        """uint32[rows], a copy: how often the broker had delivered each row before; 0 where it does not count.

        RabbitMQ's quorum queues, Redis Streams and Kafka's share groups count; each to 65,535 here.
        """
        return self._table()["deliveries"].astype(np.uint32)

    @property
    def bad(self) -> tuple[BadPayload, ...]:
        """What Batch.decode refused. Under the runtime these are dead letters and no concern of the handler."""
        return self._bad

    def _table(self) -> npt.NDArray[Any]:
        self._check_open()
        if self._messages is None:
            self._messages = view(self._memory.messages(), MESSAGE)
        return self._messages

    def _spans(self, name: str, part: str, make: Callable[[memoryview], Any], null: Callable[[], Any]) -> Spans[Any]:
        table = self._table()
        sizes = table[f"{part}_size"]
        if part == "payload" and (nulls := self.tombstones).any():
            sizes = np.where(nulls, -1, sizes.astype(np.int64))
        return Spans(memoryview(self._memory.raw(name)), table[f"{part}_at"], sizes, make, null)

    def _cached(self, name: str, make: Callable[[], S]) -> S:
        self._check_open()
        name = f".{name}"  # no column can be called that
        if name not in self._views:
            self._views[name] = make()
        return cast("S", self._views[name])

    # -- Arrow

    def __arrow_c_schema__(self) -> object:
        """The columns' Arrow types; see https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html"""
        self._check_open()
        return arrow.schema_capsule(self._decoding.schema)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """The rows as an Arrow struct array, zero-copy but for bool columns.

        Nested Structs are flattened to dotted names, as in ``columns``; ``requested_schema`` is not followed,
        which the protocol leaves open.
        """
        self._check_open()
        schema = self._decoding.schema
        return arrow.schema_capsule(schema), arrow.array_capsule(self._memory, schema)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The same as a stream of one record batch."""
        self._check_open()
        return arrow.stream_capsule(self._memory, self._decoding.schema)

    # -- what becomes of the rows

    def reject(self, rows: npt.ArrayLike, *, reason: str) -> None:
        """Give up rows: they go to the dead letters with ``reason``; without one, they say so.

        ``rows``: bool[rows], or integer row indices. A row rejected twice keeps its first reason; one that is
        also marked for retry is rejected. Raises MarkIndexError (an IndexError) for a mask of another
        length or an index out of range, MarkError (a TypeError) for numbers that look like a mask, and other types, and
        for a reason that is no str.
        """
        self._check_open()
        if not isinstance(reason, str | None):
            raise MarkError(f"batch.reject: reason must be one str for all these rows, not {type(reason).__name__}")
        indices = marked_rows(rows, len(self), "batch.reject: rows")
        status = self._marks()
        before = status == ROW_REJECTED
        status[indices] = ROW_REJECTED
        fresh = np.flatnonzero((status == ROW_REJECTED) & ~before)
        if len(fresh):
            self._reasons.append((fresh, reason or NO_REASON))

    def retry(self, rows: npt.ArrayLike) -> None:
        """Have rows handled again later. ``rows`` as for ``reject``."""
        self._check_open()
        indices = marked_rows(rows, len(self), "batch.retry: rows")
        status = self._marks()
        status[indices[status[indices] != ROW_REJECTED]] = ROW_RETRY

    @property
    def marked(self) -> bool:
        """Whether the handler has rejected rows or asked for them again."""
        return self._status is not None

    @property
    def rejected(self) -> list[tuple[npt.NDArray[np.int64], str]]:
        """(row indices, reason) of each call of ``reject``."""
        return list(self._reasons)

    @property
    def retried(self) -> npt.NDArray[np.int64]:
        """Row indices marked for retry."""
        return np.empty(0, np.int64) if self._status is None else np.flatnonzero(self._status == ROW_RETRY)

    @property
    def given_back(self) -> npt.NDArray[np.int64]:
        """Row indices marked for either: what is returned for them is not sent on."""
        if self._status is None:
            return np.empty(0, np.int64)
        return np.flatnonzero((self._status == ROW_REJECTED) | (self._status == ROW_RETRY))

    def _marks(self) -> npt.NDArray[np.uint8]:
        if self._status is None:
            self._status = view(self._memory.status(), np.uint8)
        return self._status

    def as_structs(self) -> StructColumn:
        """For results/outputs.py: the rows as one column of Structs."""
        self._check_open()
        return read_structs(self._memory, self._decoding)

    def with_nulls(self, result: Any) -> Any:
        """For whoever sends a handler's result on: views of this batch among its columns, which are read-only, get
        the nulls that stand in them as zeros; anything else stays as it is."""
        if not isinstance(result, Mapping):
            return result
        names = {id(view): name for name, view in self._views.items() if isinstance(view, np.ndarray)}
        return {key: self._masked(column, names.get(id(column))) for key, column in result.items()}

    def _masked(self, column: Any, name: str | None) -> Any:
        if name is None or not self._spec(name).nullable:
            return column
        valid = self.valid(name)
        return column if valid.all() else np.ma.masked_array(column, ~valid)

    def forwarded_parts(self) -> tuple[BatchMemory, PartitionName | None]:
        """For results/forwarding.py: where the messages lie, and what their partitions stand for."""
        self._check_open()
        return self._memory, self._name_of

    # -- the end of it

    def kept_views(self) -> list[str]:
        """Names of the columns (and of ``raw``, ``rows``, ``keys``, ``headers``) that somebody still looks at.

        For the runtime, once the handler has returned and its result was encoded: the batch drops what it
        has cached itself, so whatever is left is a view, or an Arrow export, that was kept elsewhere.
        """
        self._drop()
        return self._memory.kept()

    def close(self) -> None:
        """End the batch: nothing can be read through it any more. Arrays that are already out stay valid in
        memory of their own process only; see ``kept_views``."""
        self._drop()
        self._closed = True

    def _drop(self) -> None:
        self._views.clear()
        self._messages = None
        self._status = None

    def _check_open(self) -> None:
        if self._closed:
            raise HandlerError(BATCH_IS_OVER)

    def __repr__(self) -> str:
        if self._closed:
            return "<Batch, over>"
        return f"<Batch of {len(self)} rows: {', '.join(self.columns)}>"


def _same(payload: memoryview) -> memoryview:
    return payload


def _headers(encoded: memoryview) -> HeaderDict:
    return dict(decode_headers(encoded))
