"""RowKeeper: sees to it that every row of a batch is handled, or given up with a reason.

The batch is given to the handler whole. What then is not done is handled in parts of it, decoded again from
the payloads that the slot keeps:

    raised              on_error="isolate": halves, and halves of those, until the rows that raise are alone
    returned what       on_error="isolate": that row is left out of what is sent on, if it is known which row a record
    cannot be encoded   is of (output_rows="same"); else as if the handler had raised, before anything is sent on
    asked for retry     those rows, at once, while attempts are left
    too wide            the rows' columns do not fit the slot all at once (defaults can make a row much larger than
                        its payload): in memory of their own, in halves where that exceeds 2 GiB
    killed its holder   the first time whole again; then a row at a time, each noted in the slot before it is
                        begun, so that the next holder knows which row killed this one and leaves it out

Everything that is given up goes to the dead letters with its reason; nothing is tried for ever.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections import deque
from collections.abc import Iterable
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
from pythia_fast.errors import HandlerError, OutputValueError
from pythia_fast.pool.forked import leave_if_forked
from pythia_fast.pool.messages import shorten
from pythia_fast.runtime.kept_rows import rows_to_send
from pythia_fast.runtime.notes import TRACEBACK_CHARACTERS, Notes, RowErrors, reason_of
from pythia_fast.runtime.outputs import Encoded, OutputEncoder, Records

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.handlers import HandlerCall
    from pythia_fast.registration import Handler

RowIndices = npt.NDArray[np.uint32]

#: Which attempt it is of a row that is handled alone, however many deaths its neighbours cost: the whole came twice.
ALONE_ATTEMPT = 3


@dataclass(slots=True)
class Outcome:
    """What became of one batch."""

    output_bytes: int = 0
    output_records: int = 0
    rejected: int = 0
    retried: int = 0
    failed: int = 0
    notes: Notes = field(default_factory=Notes)


class _Held:
    """The batch in hand: its slot, its memory, and what has become of its rows."""

    __slots__ = ("_status", "memory", "outcome", "slot")

    def __init__(self, slot: int, memory: BatchMemory) -> None:
        self.slot = slot
        self.memory = memory
        self.outcome = Outcome()
        self._status: npt.NDArray[np.uint8] | None = None

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        """uint8[rows], of the slot: made when it is asked for, which a batch that goes well never does."""
        if self._status is None:
            self._status = view(self.memory.status(), np.uint8)
        return self._status

    def rows_of(self, part: _Part) -> RowIndices:
        return np.arange(self.memory.rows, dtype=np.uint32) if part.rows is None else part.rows

    def close(self) -> None:
        """Look at the slot no longer."""
        self._status = None


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
        self._pid = os.getpid()
        self._offsets = arena.offsets
        self._decoder = handler.decoding.native()
        self._encoder = OutputEncoder(handler.sink.encoding() if handler.sink is not None else "json")

    def handle(self, slot: int) -> Outcome:
        fits = self._arena.decode(slot, self._decoder)
        rows = self._arena.rows(slot)
        if rows == 0:
            return Outcome()
        held = _Held(slot, self._memory(slot, rows))
        parts = self._first_parts(held, None if fits else np.arange(rows, dtype=np.uint32))
        while parts:
            part = parts.popleft()
            parts.extendleft(reversed(self._handle_part(held, part)))
            if held.outcome.notes.stop:
                return held.outcome
        held.close()
        held.outcome.notes.kept = self._detach_kept(held)
        return held.outcome

    def _detach_kept(self, held: _Held) -> list[str]:
        """Leave views that are still looked at a copy of their own, which goes with the last of them; their names."""
        memory = held.memory
        if not memory.kept():
            return []
        gc.collect()  # a reference cycle, such as an exception that its own frame holds, keeps nothing
        kept = memory.kept()
        if kept:
            memory.hand_over(self._arena.detach_slot(held.slot))
        return kept

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

    def _first_parts(self, held: _Held, everything: RowIndices | None) -> deque[_Part]:
        crashes = self._arena.crashes(held.slot)
        if crashes == 0:
            return deque((_Part(everything, 1),))
        status, outcome = held.status, held.outcome
        status[status != ROW_KILLED] = 0
        row = self._arena.row_in_hand(held.slot)
        if row is not None:
            status[row] = ROW_KILLED
            self._arena.set_row_in_hand(held.slot, None)
        killed = np.flatnonzero(status == ROW_KILLED).astype(np.uint32)
        if len(killed):
            outcome.notes.errors.append(
                RowErrors("killed", killed.tobytes(), "the handler's process died on this row", ALONE_ATTEMPT)
            )
            outcome.failed += len(killed)
        if crashes == 1:
            return deque([_Part(everything, 2)])
        rest = np.flatnonzero(status == 0).astype(np.uint32)
        return deque(_Part(rest[i : i + 1], ALONE_ATTEMPT, marked=True) for i in range(len(rest)))

    def _handle_part(self, held: _Held, part: _Part) -> list[_Part]:
        """Handle one part; the parts that it leaves to be handled next, in order."""
        part_memory = held.memory
        if part.rows is not None:
            try:
                part_memory = decode_rows(held.memory, self._decoder, part.rows, part.attempt - 1)
            except (ColumnTooLargeError, MemoryError):
                if len(part.rows) == 1:
                    raise
                return _halves(part.rows, part)
        batch: Batch[Any] = Batch(part_memory, self._handler.decoding, self._arena.partition_name)
        if part.marked and part.rows is not None:
            self._arena.set_row_in_hand(held.slot, int(part.rows[0]))
        held.outcome.retried += 0 if part.attempt == 1 else part_memory.rows
        try:
            faults = self._call_and_emit(held.slot, batch, held.outcome)
        except BaseException as error:  # sys.exit() too is one batch's misfortune, not the end of the process
            leave_if_forked(self._pid, error)
            left = self._raised(error, held, part)
            batch.close()  # whoever kept it must not read the batches that come to lie there
            return left
        finally:
            if part.marked:
                self._arena.set_row_in_hand(held.slot, None)
        if not faults and not batch.marked:
            batch.close()
            return []
        rows, status = held.rows_of(part), held.status
        for same in _grouped(faults):
            faulty = rows[[fault.row for fault in same]]
            more = f" (and {len(same) - 1} more rows of the batch)" if len(same) > 1 else ""
            name = type(same[0]).__name__
            self._give_up(held, "failed", faulty, f"{same[0]}{more}", part.attempt, name)
        for indices, reason in batch.rejected:
            self._give_up(held, "rejected", rows[indices], reason, part.attempt)
        again = rows[batch.retried]
        status[again] = 0
        batch.close()
        if not len(again):
            return []
        if part.attempt >= self._handler.max_attempts:
            reason = f"the handler asked for another attempt after {part.attempt} of {self._handler.max_attempts}"
            self._give_up(held, "failed", again, reason, part.attempt)
            return []
        # What is left of this part is done; without this mark a whole batch's retry would do it again.
        done = rows[status[rows] == 0]
        status[np.setdiff1d(done, again, assume_unique=True)] = ROW_OK
        return [_Part(again, part.attempt + 1, part.marked and len(again) == 1)]

    def _raised(self, error: BaseException, held: _Held, part: _Part) -> list[_Part]:
        rows = held.rows_of(part)
        text = "".join(traceback.format_exception(error))
        traceback.clear_frames(error.__traceback__)  # its frames hold views of the batch
        policy = self._handler.on_error
        of_a_row = isinstance(error, OutputValueError) or not isinstance(error, HandlerError)
        if policy == "stop" or not of_a_row:
            held.outcome.notes.stop = shorten(text, TRACEBACK_CHARACTERS)
            return []
        if policy == "dead_letter" or len(rows) == 1:
            name = type(error).__name__
            reason = str(error) if isinstance(error, OutputValueError) else reason_of(error)
            self._give_up(held, "failed", rows, reason, part.attempt, name, text)
            return []
        return _halves(rows, part)

    def _give_up(
        self, held: _Held, kind: Any, rows: RowIndices, reason: str, attempts: int, error: str = "", text: str = ""
    ) -> None:
        rejected = kind == "rejected"
        outcome = held.outcome
        held.status[rows] = ROW_REJECTED if rejected else ROW_FAILED
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

    def _call_and_emit(self, slot: int, batch: Batch[Any], outcome: Outcome) -> list[OutputValueError]:
        """Call the handler and encode what it returned; the rows of the batch whose records cannot be sent on.

        Whatever it raises, nothing of the result is sent on. Only its frame holds the result, which may look at the
        batch.
        """
        result = self._call(batch)
        leave_if_forked(self._pid)
        if result is None:
            return []
        result, kept = rows_to_send(self._handler, result, len(batch), batch.given_back)
        records = self._encoder.open(result)
        if kept is None or self._handler.on_error != "isolate":
            self._emit_all(slot, records, outcome)
            return []
        faults = self._emit_good(slot, records, outcome)
        places = np.flatnonzero(kept) if faults else kept
        return [OutputValueError(int(places[fault.row]), fault.why, fault.column) for fault in faults]

    def _emit_good(self, slot: int, records: Records, outcome: Outcome) -> list[OutputValueError]:
        """Write the records behind what the slot's output region holds already; those that cannot be sent on."""
        faults: list[OutputValueError] = []
        start, done = 0, False
        while not done:
            written = self._write(slot, records, start, outcome)
            start, done = written.resume, written.done
            if written.fault is not None:
                faults.append(written.fault)
                start += 1
            elif not done:
                self._spill(slot, outcome)
        return faults

    def _emit_all(self, slot: int, records: Records, outcome: Outcome) -> None:
        """Write all records behind what the slot's output region holds already, or none of them.

        Raises OutputValueError for one that cannot be sent on: the rows are then handled again, or given up. What
        was spilled cannot be taken back, so a result that does not fit in the region is gone through once before.
        """
        before = outcome.output_bytes, outcome.output_records
        written = self._write(slot, records, 0, outcome)
        if written.done:
            return
        outcome.output_bytes, outcome.output_records = before
        if written.fault is not None:
            raise written.fault
        if outcome.output_bytes:
            self._spill(slot, outcome)
        self._go_through(slot, records, written.resume)
        self._emit_good(slot, records, outcome)

    def _go_through(self, slot: int, records: Records, start: int) -> None:
        """Raise OutputValueError if a record from ``start`` on cannot be sent on. The output region is overwritten."""
        region = self._arena.view(slot, self._offsets["output"], self._offsets["output_bytes"])
        done = False
        while not done:
            written = records.write(region, start)
            if written.fault is not None:
                raise written.fault
            start, done = written.resume, written.done

    def _write(self, slot: int, records: Records, start: int, outcome: Outcome) -> Encoded:
        at, size, used = self._offsets["output"], self._offsets["output_bytes"], outcome.output_bytes
        written = records.write(self._arena.view(slot, at + used, size - used), start, whole=used == 0)
        outcome.output_bytes += written.bytes
        outcome.output_records += written.records
        return written

    def _spill(self, slot: int, outcome: Outcome) -> None:
        self._arena.spill(slot, outcome.output_bytes, outcome.output_records)
        outcome.output_bytes = outcome.output_records = 0


def _halves(rows: RowIndices, part: _Part) -> list[_Part]:
    middle = len(rows) // 2
    return [_Part(rows[:middle], part.attempt), _Part(rows[middle:], part.attempt)]


def _grouped(faults: Iterable[OutputValueError]) -> Iterable[list[OutputValueError]]:
    """Those of one column and reason together: a slot has no room for a text a row."""
    groups: dict[tuple[str | None, str], list[OutputValueError]] = {}
    for fault in faults:
        groups.setdefault((fault.column, fault.why), []).append(fault)
    return groups.values()
