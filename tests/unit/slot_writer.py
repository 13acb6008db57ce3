"""A batch's memory filled from Python values, as a decoder would have filled it: for tests of readers.

It shares nothing with the decoders but the Layout, and plays the slot of an arena: memory that somebody
else owns, read through an address.
"""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pythia_fast._ext.batch_memory import BatchMemory
from pythia_fast._ext.plan import Layout, Plan
from pythia_fast.batch import MESSAGE, Batch
from pythia_fast.decoders import Decoding
from pythia_fast.schema import ColumnSpec, Kind, Schema, describe

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class SlotWriter:
    """``memory``: uint8, the whole slot, 64-byte aligned."""

    def __init__(self, source: Any, rows: list[Any], payloads: list[bytes] | None = None, room: int = 4096) -> None:
        self.schema: Schema = describe(source)
        self.plan = Plan(self.schema)
        payloads = [msgspec.json.encode(row) for row in rows] if payloads is None else payloads
        capacity = max(len(rows), 1)
        status_at = -(-capacity * 48 // 64) * 64
        columns_at = status_at + -(-capacity // 64) * 64
        self.layout = Layout(self.plan, capacity, room, columns_at)
        self.raw_at = columns_at + self.layout.bytes
        raw = b"".join(payloads)
        block = np.full(self.raw_at + len(raw) + 128, 0xAA, np.uint8)  # what nobody wrote must not matter
        start = -block.ctypes.data % 64
        self.memory = block[start : start + self.raw_at + len(raw)]
        self.memory[self.raw_at :] = np.frombuffer(raw, np.uint8)
        self.memory[status_at:columns_at] = 0
        self.places = self.layout.describe()
        self.lengths = [0] * len(self.schema.columns)
        for spec in self.schema.columns:
            if self.places[spec.index]["offsets"] is not None:
                self._array(spec, "offsets", np.int32, 1)[0] = 0
        for row in rows:
            for spec in self.schema.children():
                self._write(spec, getattr(row, spec.name))
        self._write_messages(payloads)
        self.batch_memory = BatchMemory(
            self.layout, self.memory.ctypes.data, len(rows), 0, status_at, self.raw_at, len(raw), block
        )

    def batch(self) -> Batch[Any]:
        return Batch(self.batch_memory, Decoding("json", self.schema, self.plan))

    def _array(self, spec: ColumnSpec, part: str, dtype: npt.DTypeLike, n: int) -> npt.NDArray[Any]:
        at = self.places[spec.index][part]
        return self.memory[at : at + n * np.dtype(dtype).itemsize].view(dtype)

    def _write_messages(self, payloads: list[bytes]) -> None:
        at = 0
        for row, payload in enumerate(payloads):
            message = self.memory[row * 48 : row * 48 + 48].view(MESSAGE)
            message["offset"], message["timestamp_ms"], message["partition"] = 100 + row, 1_000 * row - 1, 7
            message["payload_at"], message["payload_size"] = at, len(payload)
            message["key_at"], message["key_size"] = at, (-1 if row % 2 else 1)
            message["headers_at"], message["headers_size"], message["attempts"] = 0, 0, row
            at += len(payload)

    def _write(self, spec: ColumnSpec, value: Any) -> None:
        i = self.lengths[spec.index]
        self.lengths[spec.index] += 1
        if spec.nullable:
            bits = self._array(spec, "validity", np.uint8, i // 8 + 1)
            bits[i // 8] = (int(bits[i // 8]) & ~(1 << i % 8)) | ((value is not None) << i % 8)
        if spec.kind is Kind.STRUCT:
            for child in self.schema.children(spec):
                self._write(child, None if value is None else getattr(value, child.name.rpartition(".")[2]))
        elif spec.kind is Kind.LIST:
            for item in value or ():
                self._write(self.schema.columns[spec.index + 1], item)
            self._array(spec, "offsets", np.int32, i + 2)[i + 1] = self.lengths[spec.index + 1]
        elif spec.kind.variable:
            text = value.encode() if isinstance(value, str) else bytes(value or b"")
            offsets = self._array(spec, "offsets", np.int32, i + 2)
            data = self._array(spec, "data", np.uint8, offsets[i] + len(text))
            data[offsets[i] :] = np.frombuffer(text, np.uint8)
            offsets[i + 1] = offsets[i] + len(text)
        else:
            assert spec.dtype is not None
            if isinstance(value, datetime.datetime):
                value = (value - EPOCH) // datetime.timedelta(microseconds=1)
            stored = np.int64 if spec.kind is Kind.DATETIME else spec.dtype
            self._array(spec, "data", stored, i + 1)[i] = 0 if value is None else value
