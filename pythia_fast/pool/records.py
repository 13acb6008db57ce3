"""RecordWriter: calls the handler, and writes what it returned into the slot's output region."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pythia_fast.error_text import reason_of
from pythia_fast.errors import OutputValueError, PartlySentError
from pythia_fast.pool.forked import leave_if_forked
from pythia_fast.results.arrow_imports import load_arrow, needs_arrow
from pythia_fast.results.kept_rows import rows_to_send
from pythia_fast.results.outputs import Encoded, Records, faults_in, output_encoder

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.batch import Batch
    from pythia_fast.handlers import HandlerCall
    from pythia_fast.pool.call_clock import CallClock
    from pythia_fast.registration import Handler


@dataclass(slots=True)
class Written:
    """What the slot's output region holds."""

    bytes: int = 0
    records: int = 0


class RecordWriter:
    """One pool process' way from a batch to records; holds no state between two of them."""

    def __init__(self, handler: Handler, arena: Arena, call: HandlerCall, clock: CallClock) -> None:
        self._handler = handler
        self._clock = clock
        self._arena = arena
        self._call = call
        self._pid = os.getpid()
        self._looked_at: type | None = None  # of the last result; pyarrow is ready for such
        self._at = arena.offsets["output"]
        self._size = arena.offsets["output_bytes"]
        self._encoder = output_encoder(handler)

    def call_and_write(self, slot: int, batch: Batch[Any], region: Written) -> list[OutputValueError]:
        """Call the handler and encode what it returned; the rows of the batch whose records cannot be sent on.

        Whatever it raises but PartlySentError, nothing of the result is sent on. Only its frame holds the result, which
        may look at the batch.
        """
        self._clock.start()
        result = self._call(batch)
        leave_if_forked(self._pid)
        if result is None:
            return []
        if type(result) is not self._looked_at:
            self._get_ready(result)
        result, kept = rows_to_send(self._handler, batch.with_nulls(result), len(batch), batch.given_back)
        records = self._encoder.open(result)
        if kept is None or self._handler.on_error != "isolate":
            self._write_all(slot, records, region)
            return []
        faults = self._write_good(slot, records, region)
        places = np.flatnonzero(kept) if faults else kept
        return [OutputValueError(int(places[fault.row]), fault.why, fault.column) for fault in faults]

    def nearly_full(self, region: Written) -> bool:
        """Whether the region has less room left than it holds."""
        return 2 * region.bytes > self._size

    def _get_ready(self, result: Any) -> None:
        """Import what writing it takes, in time that is not the call's."""
        self._looked_at = type(result)
        if needs_arrow(result):
            self._clock.stop()
            load_arrow()
            self._clock.start()

    def _write_good(self, slot: int, records: Records, region: Written) -> list[OutputValueError]:
        """Write the records behind what the region holds already; those that cannot be sent on.

        Should writing raise once some were spilled, all that are left cannot: handled again, the others would be sent
        twice.
        """
        faults: list[OutputValueError] = []
        before = region.bytes, region.records
        start, done, spilled = 0, False, False
        while not done:
            try:
                written = self._write(slot, records, start, region)
            except BaseException as error:
                if isinstance(error, MemoryError) or not spilled:
                    region.bytes, region.records = (0, 0) if spilled else before
                    raise
                return faults + [OutputValueError(row, reason_of(error)) for row in range(start, records.rows)]
            start, done = written.resume, written.done
            if written.fault is not None:
                faults.append(written.fault)
                start += 1
            elif not done:
                self.spill(slot, region)
                spilled = True
        return faults

    def _write_all(self, slot: int, records: Records, region: Written) -> None:
        """Write all records behind what the region holds already, or none of them.

        Raises OutputValueError for one that cannot be sent on: the rows are then handled again, or given up. What
        was spilled cannot be taken back, so a result that does not fit in the region is gone through once before.
        """
        before = region.bytes, region.records
        written = self._write(slot, records, 0, region)
        if written.done:
            return
        region.bytes, region.records = before
        if written.fault is not None:
            raise written.fault
        if region.bytes:
            self.spill(slot, region)
        for fault in faults_in(records, self._arena.view(slot, self._at, self._size), written.resume):
            raise fault
        for fault in self._write_good(slot, records, region):
            raise PartlySentError(f"{fault.row} of {records.rows} records were sent on, the others not: {fault.why}")

    def _write(self, slot: int, records: Records, start: int, region: Written) -> Encoded:
        used = region.bytes
        written = records.write(self._arena.view(slot, self._at + used, self._size - used), start, whole=used == 0)
        region.bytes += written.bytes
        region.records += written.records
        return written

    def spill(self, slot: int, region: Written) -> None:
        """Have the region emptied: what it holds is sent on for good. The wait for that is not the call's."""
        self._clock.stop()
        self._arena.spill(slot, region.bytes, region.records)
        self._clock.start()
        region.bytes = region.records = 0
