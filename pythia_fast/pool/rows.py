"""RowKeeper: sees to it that every row of a batch is handled, or given up with a reason.

The batch is given to the handler whole. What then is not done is handled in parts of it, decoded again from
the payloads that the slot keeps:

    raised              on_error="isolate": halves, and halves of those, until the rows that raise are alone
    asked for retry     those rows, at once, while attempts are left
    too wide            the rows' columns do not fit the slot all at once (defaults can make a row much larger than
                        its payload): in memory of their own, in halves where that exceeds 2 GiB
    killed its holder   the first time whole again; then a row at a time, each noted in the slot before it is
                        begun, so that the next holder knows which row killed this one and leaves it out

Everything that is given up goes to the dead letters with its reason; nothing is tried for ever.
"""

from __future__ import annotations

import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pythia_fast._ext.batch_memory import (
    ROW_FAILED,
    ROW_KILLED,
    ROW_OK,
    ROW_REJECTED,
    BatchMemory,
    ColumnTooLargeError,
    decode_rows,
)
from pythia_fast.batch import Batch
from pythia_fast.columns import view
from pythia_fast.errors import HandlerError
from pythia_fast.pool.messages import shorten
from pythia_fast.runtime.kept_rows import without_rows
from pythia_fast.runtime.notes import TRACEBACK_CHARACTERS, Notes, RowErrors
from pythia_fast.runtime.outputs import OutputEncoder

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.handlers import HandlerCall
    from pythia_fast.registration import Handler

RowIndices = npt.NDArray[np.uint32]


@dataclass(slots=True)
class Outcome:
    """What became of one batch."""

    output_bytes: int = 0
    output_records: int = 0
    rejected: int = 0
    retried: int = 0
    failed: int = 0
    notes: Notes = field(default_factory=Notes)


@dataclass(slots=True)
class _Part:
    """Rows of the slot still to be handled. ``rows`` None: all of them, in the slot's own columns."""

    rows: RowIndices | None
    attempt: int  #: 1 the first time
    marked: bool = False  #: note the row in the slot while it is handled


class RowKeeper:
    """One pool process' way with batches; holds no state between two of them."""

    def __init__(self, handler: Handler, arena: Arena, call: HandlerCall) -> None:
        self._handler = handler
        self._arena = arena
        self._call = call
        self._offsets = arena.offsets
        self._decoder = handler.decoding.native()
        self._encoder = OutputEncoder(handler.sink.encoding() if handler.sink is not None else "json")

    def handle(self, slot: int) -> Outcome:
        fits = self._arena.decode(slot, self._decoder)
        rows = self._arena.rows(slot)
        if rows == 0:
            return Outcome()
        outcome = Outcome()
        memory = self._memory(slot, rows)
        status = view(memory.status(), np.uint8)
        parts = self._first_parts(slot, status, outcome, None if fits else np.arange(rows, dtype=np.uint32))
        while parts:
            part = parts.popleft()
            parts.extendleft(reversed(self._handle_part(slot, memory, status, part, outcome)))
            if outcome.notes.stop:
                return outcome
        status[status == 0] = ROW_OK
        del status
        outcome.notes.kept = [*outcome.notes.kept, *memory.kept()]
        return outcome

    def _memory(self, slot: int, rows: int) -> BatchMemory:
        at = self._offsets
        return BatchMemory(
            self._arena.layout,
            self._arena.slot_address(slot),
            rows,
            self._arena.rows_at(slot),
            at["status"],
            at["raw"],
            self._arena.raw_bytes,
        )

    def _first_parts(
        self, slot: int, status: npt.NDArray[np.uint8], outcome: Outcome, everything: RowIndices | None
    ) -> deque[_Part]:
        crashes = self._arena.crashes(slot)
        if crashes == 0:
            status[:] = 0
            return deque([_Part(everything, 1)])
        status[status != ROW_KILLED] = 0
        row = self._arena.row_in_hand(slot)
        if row is not None:
            status[row] = ROW_KILLED
            self._arena.set_row_in_hand(slot, None)
        killed = np.flatnonzero(status == ROW_KILLED).astype(np.uint32)
        if len(killed):
            outcome.notes.errors.append(
                RowErrors("killed", killed.tobytes(), "the handler's process died on this row", attempts=crashes)
            )
            outcome.failed += len(killed)
        if crashes == 1:
            return deque([_Part(everything, 2)])
        rest = np.flatnonzero(status == 0).astype(np.uint32)
        return deque(_Part(rest[i : i + 1], crashes + 1, marked=True) for i in range(len(rest)))

    def _handle_part(
        self, slot: int, memory: BatchMemory, status: npt.NDArray[np.uint8], part: _Part, outcome: Outcome
    ) -> list[_Part]:
        """Handle one part; the parts that it leaves to be handled next, in order."""
        whole = part.rows is None
        rows = np.arange(memory.rows, dtype=np.uint32) if part.rows is None else part.rows
        try:
            part_memory = memory if whole else decode_rows(memory, self._decoder, rows, part.attempt - 1)
        except ColumnTooLargeError:
            return _halves(rows, part)
        batch: Batch[Any] = Batch(part_memory, self._handler.decoding, self._arena.partition_name)
        if part.marked:
            self._arena.set_row_in_hand(slot, int(rows[0]))
        outcome.retried += 0 if part.attempt == 1 else len(rows)
        try:
            # No name for the result: it may hold views of the batch, which is closed below.
            self._emit(slot, without_rows(self._call(batch), len(rows), batch.given_back), outcome)
        except Exception as error:
            return self._raised(error, rows, part, status, outcome)
        finally:
            if part.marked:
                self._arena.set_row_in_hand(slot, None)
        for indices, reason in batch.rejected:
            self._give_up("rejected", rows[indices], status, outcome, reason, part.attempt)
        again = rows[batch.retried]
        status[again] = 0
        batch.close()
        if not len(again):
            return []
        if part.attempt >= self._handler.max_attempts:
            reason = f"the handler asked for another attempt after {part.attempt} of {self._handler.max_attempts}"
            self._give_up("failed", again, status, outcome, reason, part.attempt)
            return []
        # What is left of this part is done; without this mark a whole batch's retry would do it again.
        done = rows[status[rows] == 0]
        status[np.setdiff1d(done, again, assume_unique=True)] = ROW_OK
        return [_Part(again, part.attempt + 1, part.marked and len(again) == 1)]

    def _raised(
        self, error: Exception, rows: RowIndices, part: _Part, status: npt.NDArray[np.uint8], outcome: Outcome
    ) -> list[_Part]:
        text = "".join(traceback.format_exception(error))
        traceback.clear_frames(error.__traceback__)  # its frames hold views of the batch
        policy = self._handler.on_error
        if policy == "stop" or isinstance(error, HandlerError):
            outcome.notes.stop = shorten(text, TRACEBACK_CHARACTERS)
            return []
        if policy == "dead_letter" or len(rows) == 1:
            name = type(error).__name__
            # Not str(error): that runs the user's code, which may raise.
            reason = "".join(traceback.format_exception_only(error)).strip()
            self._give_up("failed", rows, status, outcome, reason, part.attempt, name, text)
            return []
        return _halves(rows, part)

    def _give_up(
        self,
        kind: Any,
        rows: RowIndices,
        status: npt.NDArray[np.uint8],
        outcome: Outcome,
        reason: str,
        attempts: int,
        error: str = "",
        text: str = "",
    ) -> None:
        rejected = kind == "rejected"
        status[rows] = ROW_REJECTED if rejected else ROW_FAILED
        if rejected:
            outcome.rejected += len(rows)
        else:
            outcome.failed += len(rows)
        outcome.notes.errors.append(
            RowErrors(
                kind,
                np.ascontiguousarray(rows, "<u4").tobytes(),
                shorten(reason, 1000),
                attempts,
                error,
                shorten(text, TRACEBACK_CHARACTERS),
            )
        )

    def _emit(self, slot: int, result: Any, outcome: Outcome) -> None:
        """Encode the handler's result behind what the slot's output region holds already."""
        if result is None:
            return
        if self._handler.sink is None:
            raise HandlerError(
                f"handler {self._handler.name!r} returned a {type(result).__name__} but has no sink: "
                "give it one with sink=, or return None"
            )
        at, size = self._offsets["output"], self._offsets["output_bytes"]
        start = 0
        while True:
            if outcome.output_bytes >= size:
                self._spill(slot, outcome)
            used = outcome.output_bytes
            try:
                written = self._encoder.encode(result, self._arena.view(slot, at + used, size - used), start)
            except HandlerError:
                if used == 0:
                    raise
                self._spill(slot, outcome)  # too large for what is left of the region, perhaps not for all of it
                continue
            outcome.output_bytes += written.bytes
            outcome.output_records += written.records
            if written.done:
                return
            start = written.resume
            self._spill(slot, outcome)

    def _spill(self, slot: int, outcome: Outcome) -> None:
        self._arena.spill(slot, outcome.output_bytes, outcome.output_records)
        outcome.output_bytes = outcome.output_records = 0


def _halves(rows: RowIndices, part: _Part) -> list[_Part]:
    middle = len(rows) // 2
    return [_Part(rows[:middle], part.attempt), _Part(rows[middle:], part.attempt)]
