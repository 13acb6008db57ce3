"""What a pool process tells the runtime about a batch beyond its outputs: the notes in a slot's errors region."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

#: Longest traceback that is kept whole; of a longer one the middle is left out.
TRACEBACK_CHARACTERS = 8000
#: Where there is no room for all texts: what is kept, first more, then less. A character takes up to four bytes, and a
#: region of errors has 64 KiB beside what its rows take.
_SHORTER = ((8, 150, 600), (0, 80, 0))  #: exception types told apart, characters of a reason, of a traceback
_KEPT = (8, 80)  #: columns named there, characters of a name

#: How the reason of a row that killed begins; behind it stands in brackets how the process ended.
DIED = "the handler's process died on this row"
NO_ROOM = " (said of the first of these rows: there was no room for what is said of the others)"


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
    circuit: Literal["answered", "outage", "smaller", ""] = ""  #: what its calls tell of the service (circuit.py)
    outage: str = ""  #: the exception that told of it

    def __bool__(self) -> bool:
        return bool(self.errors or self.kept or self.stop or self.circuit)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Notes)


def write_notes(notes: Notes, region: memoryview) -> int:
    """Encode into the region and return the bytes used.

    The rows always have room there. Where the texts have not, rows of one exception type share what the first of them
    says, so that whoever reads the dead letters knows a cause for each.
    """
    # Each that killed stays alone as long as there is room: how its holder died is told beside, in the same order.
    killed = [note for note in notes.errors if note.kind == "killed"]
    others = [note for note in notes.errors if note.kind != "killed"]
    same = [_first(group) for group in _groups(others, "kind", "reason", "attempts", "error", "traceback")]
    packed = _encoder.encode(msgspec.structs.replace(notes, errors=killed + same))
    for types, reason, text in _SHORTER:
        if len(packed) <= len(region):
            break
        of_types = _groups(same, "kind", "error")
        rest = [note for group in of_types[types:] for note in group]
        groups = (
            of_types[:types]
            + _groups(rest, "kind")
            + ([[note] for note in killed] if types else _groups(killed, "kind"))
        )
        short = [_with_one_text(group, reason, text) for group in groups]
        stop = notes.stop[: TRACEBACK_CHARACTERS // 4]
        kept = [name[: _KEPT[1]] for name in notes.kept[: _KEPT[0]]]
        packed = _encoder.encode(Notes(short, kept, stop, notes.circuit, notes.outage))
    region[: len(packed)] = packed
    return len(packed)


def _groups(errors: list[RowErrors], *alike: str) -> list[list[RowErrors]]:
    """Those that are alike in all these fields together, in the order of the first of each."""
    groups: dict[tuple[Any, ...], list[RowErrors]] = {}
    for note in errors:
        groups.setdefault(tuple(getattr(note, name) for name in alike), []).append(note)
    return list(groups.values())


def _first(group: list[RowErrors]) -> RowErrors:
    return msgspec.structs.replace(group[0], rows=b"".join(note.rows for note in group))


def _with_one_text(group: list[RowErrors], reason_characters: int, traceback_characters: int) -> RowErrors:
    first = group[0]
    reason = first.reason[:reason_characters]
    if len(group) > 1 and not reason.endswith(NO_ROOM):
        reason += NO_ROOM
    return RowErrors(
        first.kind,
        b"".join(note.rows for note in group),
        reason,
        max(note.attempts for note in group),
        first.error[:reason_characters],
        first.traceback[len(first.traceback) - traceback_characters :] if traceback_characters else "",
    )


def read_notes(region: memoryview) -> Notes:
    """What ``write_notes`` wrote."""
    return _decoder.decode(region) if len(region) else Notes()
