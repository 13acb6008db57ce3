"""SlotReader: a completed slot as the runtime process reads it: its outputs, and the rows that were given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pythia_fast._ext.intake import NO_PAYLOAD, SPOOLED, SPOOLED_HEAD, SPOOLED_MOST
from pythia_fast.batch import MESSAGE
from pythia_fast.brokers.base import FailedRecord, Partition
from pythia_fast.brokers.framing import FramedRecord, iterate_records
from pythia_fast.pool.notes import Notes, read_notes
from pythia_fast.refusal import Reason, large_row_text, oversize_text, refusal_text
from pythia_fast.runtime.dead_letter_form import DeadLetter
from pythia_fast.selection import BoolArray

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena, SlotFacts
    from pythia_fast.pool.obituary import Obituary
    from pythia_fast.registration import Handler


#: pf_refused of ext/arena_layout.h
REFUSED = np.dtype(
    [
        ("reason", "<u1"), ("found", "<u1"), ("reserved", "<u2"), ("column", "<i4"), ("at", "<u8"),
        ("message", "<u4"), ("more", "<u4"),
    ]
)  # fmt: skip

#: Said of what is refused in a batch that a process died with.
OVERWRITTEN = (
    "; a process that had this batch died before, and may have written over it: the message as it came is at its "
    "position in the source"
)


class SlotReader:
    """Reads slots between their completion and their release; used by the completion thread."""

    def __init__(self, arena: Arena, handler: Handler, partitions: Mapping[int, Partition], spool_dir: Path) -> None:
        self._arena = arena
        self._handler = handler
        self._partitions = partitions
        self._spool_dir = spool_dir
        self._at = arena.offsets

    def output(self, slot: int, size: int) -> memoryview:
        """The framed records of the slot."""
        return self._arena.view(slot, self._at["output"], size)

    def notes(self, slot: int, facts: SlotFacts) -> Notes:
        """What the pool process had to say about the batch."""
        return read_notes(self._arena.view(slot, facts.error_at, facts.error_bytes))

    def dead_letters(self, slot: int, facts: SlotFacts, notes: Notes, deaths: Sequence[Obituary]) -> list[DeadLetter]:
        """Every row given up in this round: refused by the decoder, rejected or failed in the handler, or fatal to its
        process.

        ``deaths``: how the process ended that had it in hand, for each row that killed, in their order.
        """
        letters = self._refused(slot, facts) if facts.refused and (facts.round == 1 or facts.gathered) else []
        if notes.errors:
            table = self._messages(slot, self._arena.rows_at(slot))
            obituaries = iter(deaths)
            for error in notes.errors:
                death = next(obituaries, None) if error.kind == "killed" else None
                letters.extend(
                    self._letter(
                        table[row],
                        self._record(slot, table[row]),
                        reason=error.reason if death is None else f"{error.reason} ({death.how})",
                        error=error.error,
                        traceback=error.traceback if death is None else death.said,
                        attempts=error.attempts,
                    )
                    for row in error.indices().tolist()
                )
        return letters

    def failed_records(self, slot: int, size: int, failed: Sequence[FailedRecord]) -> list[DeadLetter]:
        """Records that the sink refused for good, as dead letters of their own."""
        reasons = {record.index: record.reason for record in failed}
        sink = self._handler.sink.describe() if self._handler.sink is not None else ""
        return [
            DeadLetter(
                payload=record.payload,
                key=record.key,
                headers=record.headers,
                topic=sink,
                partition=-1,
                offset=-1,
                timestamp_ms=-1,
                reason=f"output refused by {sink}: {reasons[index]}",
                error="",
                traceback="",
                attempts=1,
            )
            for index, record in enumerate(iterate_records(self.output(slot, size)))
            if index in reasons
        ]

    def discard_spooled(self, slot: int, facts: SlotFacts) -> None:
        """Remove the files of oversize payloads, whose dead letters are durable now."""
        if not facts.refused:
            return
        table = self._messages(slot, self._at["messages"])
        indices = self._refusals(slot, facts)["message"]
        for index in indices[table["payload_at"][indices] == SPOOLED].tolist():
            self._spooled(slot, index).unlink(missing_ok=True)

    def tombstones_skipped(self, slot: int, facts: SlotFacts) -> int:
        """How many of the refused messages are no dead letters, but tombstones that are skipped."""
        return int(self._are_skipped(slot, facts).sum()) if facts.refused else 0

    def _are_skipped(self, slot: int, facts: SlotFacts) -> BoolArray:
        """bool[refused messages]; one whose key and headers are too large is a tombstone, too."""
        refusals = self._refusals(slot, facts)
        if self._handler.decoding.tombstones != "skip":
            return np.zeros(len(refusals), np.bool_)
        sizes = self._messages(slot, self._at["messages"])["payload_size"][refusals["message"]]
        too_large = (refusals["reason"] == Reason.TOO_LARGE) & (sizes == NO_PAYLOAD)
        skipped: BoolArray = too_large | (refusals["reason"] == Reason.NULL)
        return skipped

    def _refusals(self, slot: int, facts: SlotFacts) -> npt.NDArray[Any]:
        return np.frombuffer(self._arena.view(slot, self._at["refusals"], facts.refused * REFUSED.itemsize), REFUSED)

    def discard_all_spooled(self, slot: int, messages: int) -> None:
        """The same of a batch that comes to nothing, and may not have been decoded. ``messages``: it has so many."""
        table = self._messages(slot, self._at["messages"])[:messages]
        for index in np.flatnonzero(table["payload_at"] == SPOOLED).tolist():
            self._spooled(slot, index).unlink(missing_ok=True)

    def _refused(self, slot: int, facts: SlotFacts) -> list[DeadLetter]:
        table = self._messages(slot, self._at["messages"])
        doubt = OVERWRITTEN if facts.crashes else ""
        given_up = self._refusals(slot, facts)[~self._are_skipped(slot, facts)]
        return [
            self._refused_letter(slot, table[index], index, (reason, found, column, at), doubt)
            for reason, found, _, column, at, index, _ in given_up.tolist()
        ]

    def _refused_letter(self, slot: int, message: Any, index: int, why: Sequence[int], doubt: str) -> DeadLetter:
        reason, found, column, at = why
        limit = self._handler.max_batch_bytes
        if message["payload_at"] == SPOOLED:
            (record,) = iterate_records(self._spooled(slot, index).read_bytes())
        else:
            record = self._record(slot, message)
        if reason == Reason.TOO_LARGE and message["payload_at"] == SPOOLED:
            payload = 0 if record.payload is None else int(message["payload_size"])
            text = oversize_text(payload, len(record.key or b"") + len(record.headers), limit)
        elif reason == Reason.ROW_TOO_LARGE:
            text = large_row_text(limit)
        else:
            text = refusal_text(self._handler.decoding.schema, reason, found, column, at, record.payload)
        return self._letter(message, record, reason=text + self._cut(message) + doubt, error="DecodeError")

    def _letter(
        self,
        message: Any,
        record: FramedRecord,
        *,
        reason: str,
        error: str = "",
        traceback: str = "",
        attempts: int = 1,
    ) -> DeadLetter:
        partition = self._partitions.get(int(message["partition"]))
        return DeadLetter(
            payload=record.payload,
            key=record.key,
            headers=record.headers,
            topic=partition.topic if partition is not None else "",
            partition=partition.partition if partition is not None else -1,
            offset=int(message["offset"]),
            timestamp_ms=int(message["timestamp_ms"]),
            reason=reason,
            error=error,
            traceback=traceback,
            attempts=attempts,
        )

    def _record(self, slot: int, message: Any) -> FramedRecord:
        null = message["payload_size"] == NO_PAYLOAD
        return FramedRecord(
            None if message["key_size"] < 0 else self._raw(slot, message["key_at"], message["key_size"]),
            self._raw(slot, message["headers_at"], message["headers_size"]),
            None if null else self._raw(slot, message["payload_at"], message["payload_size"]),
        )

    def _raw(self, slot: int, at: int, size: int) -> bytes:
        return bytes(self._arena.view(slot, self._at["raw"] + int(at), int(size)))

    def _messages(self, slot: int, at: int) -> npt.NDArray[Any]:
        return np.frombuffer(self._arena.view(slot, at, self._arena.capacity * MESSAGE.itemsize), MESSAGE)

    def _cut(self, message: Any) -> str:
        """What is to be said of a payload of which a dead letter holds the beginning only."""
        if message["payload_at"] != SPOOLED or not SPOOLED_MOST < message["payload_size"] < NO_PAYLOAD:
            return ""
        whole = (
            "the whole lies where it came from, at this offset"
            if self._handler.source.byte_stream() is None
            else "the rest went by, for a pipe holds nothing that was read"
        )
        return (
            f"; it has {message['payload_size']:,} bytes or more, of which the letter holds the first "
            f"{SPOOLED_HEAD:,}: {whole}"
        )

    def _spooled(self, slot: int, index: int) -> Path:
        return self._spool_dir / f"oversize-{slot}-{index}"
