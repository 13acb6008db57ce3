"""What a pool process tells the runtime about a batch beyond its outputs: the notes in a slot's errors region."""

from __future__ import annotations

import traceback
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

#: Longest traceback that is kept whole; of a longer one the middle is left out.
TRACEBACK_CHARACTERS = 8000


class RowErrors(msgspec.Struct):
    """Rows that are given up, and why."""

    kind: Literal["rejected", "failed", "killed"]
    rows: bytes  #: uint32 row indices, little endian
    reason: str
    attempts: int = 1
    error: str = ""  #: exception type
    traceback: str = ""

    def indices(self) -> npt.NDArray[np.uint32]:
        return np.frombuffer(self.rows, dtype="<u4")


class Notes(msgspec.Struct):
    """All that one handling of a batch has to say."""

    errors: list[RowErrors] = []
    kept: list[str] = []  #: columns of which a view outlived the batch
    stop: str = ""  #: traceback of the exception that is to end the run
    circuit: Literal["answered", "outage", ""] = ""  #: what its calls tell of the service; "": there was none
    outage: str = ""  #: the exception that told of it

    def __bool__(self) -> bool:
        return bool(self.errors or self.kept or self.stop or self.circuit)


def reason_of(error: BaseException) -> str:
    """An exception as a sentence. Not str(error): that runs the user's code, which may raise."""
    return "".join(traceback.format_exception_only(error)).strip()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Notes)


def write_notes(notes: Notes, region: memoryview) -> int:
    """Encode into the region and return the bytes used; texts are left out where they would not fit."""
    packed = _encoder.encode(notes)
    if len(packed) > len(region):
        short = [
            RowErrors(note.kind, note.rows, note.reason[:100], note.attempts, note.error[:100]) for note in notes.errors
        ]
        packed = _encoder.encode(msgspec.structs.replace(notes, errors=short, stop=notes.stop[:TRACEBACK_CHARACTERS]))
    if len(packed) > len(region):
        # Too many different reasons: the rows matter, and there is always room for these.
        rows: dict[str, list[bytes]] = {}
        for note in notes.errors:
            rows.setdefault(note.kind, []).append(note.rows)
        merged = [
            RowErrors(kind, b"".join(parts), "many different reasons; no room to tell them apart")  # type: ignore[arg-type]
            for kind, parts in rows.items()
        ]
        stop = notes.stop[: TRACEBACK_CHARACTERS // 4]
        packed = _encoder.encode(Notes(merged, [], stop, notes.circuit, notes.outage))
    region[: len(packed)] = packed
    return len(packed)


def read_notes(region: memoryview) -> Notes:
    """What ``write_notes`` wrote."""
    return _decoder.decode(region) if len(region) else Notes()
