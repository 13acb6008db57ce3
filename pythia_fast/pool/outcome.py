"""What has become of one batch: its records, how many rows, and the notes of those that are given up.

Of a batch that killed a holder it is written down in its slot, part for part (ext/journal.h), and read again by the
next holder. There are two halves of notes: those that count stay whole while new ones are written beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pythia_fast.error_text import reason_of, type_name
from pythia_fast.errors import OutputValueError
from pythia_fast.pool.messages import shorten
from pythia_fast.pool.notes import TRACEBACK_CHARACTERS, Notes, RowErrors, read_notes, write_notes
from pythia_fast.pool.records import Written
from pythia_fast.pool.users_frames import format_error

if TYPE_CHECKING:
    from pythia_fast._ext.journal import Journal, Progress

RowIndices = npt.NDArray[np.uint32]


@dataclass(slots=True)
class Outcome:
    """What became of one batch, or of as much of it as is done."""

    output: Written = field(default_factory=Written)
    rejected: int = 0
    retried: int = 0
    failed: int = 0
    killed: int = 0  #: of the failed
    notes: Notes = field(default_factory=Notes)
    error_half: int = 0  #: half of the error region that the notes belong in
    due_ns: int = 0  #: when the batch goes on with rows that wait; 0: there are none

    @classmethod
    def so_far(cls, done: Progress, errors: memoryview) -> Outcome:
        """What a dead holder's journal says. ``errors``: the half of the error region that counts."""
        return cls(
            Written(done.output_bytes, done.output_records),
            done.rejected,
            done.retried,
            done.failed,
            done.killed,
            read_notes(errors[: done.error_bytes]),
            done.error_half,
        )

    def write(self, journal: Journal, rows_done: int, errors: memoryview) -> None:
        """Write it into the journal: the rows before ``rows_done`` are done. ``errors``: the other half, which counts
        from then on."""
        half = 1 - self.error_half
        error_bytes = write_notes(self.notes, errors) if self.notes else 0
        journal.commit(
            rows_done,
            self.output.bytes,
            self.output.records,
            half,
            error_bytes,
            self.rejected,
            self.retried,
            self.failed,
            self.killed,
        )
        self.error_half = half

    def give_up(
        self,
        kind: Literal["rejected", "failed", "killed"],
        rows: RowIndices,
        reason: str,
        attempts: int,
        error: str = "",
        text: str = "",
    ) -> None:
        """The rows go to the dead letters. ``error``, ``text``: the exception's type and traceback, if there is one."""
        if kind == "rejected":
            self.rejected += len(rows)
        else:
            self.failed += len(rows)
        if kind == "killed":
            self.killed += len(rows)
        self.notes.errors.append(
            RowErrors(
                kind,
                np.ascontiguousarray(rows, "<u4").tobytes(),
                shorten(reason, 1000),
                attempts,
                error,
                shorten(text, TRACEBACK_CHARACTERS),
            )
        )

    def fail(self, rows: RowIndices, error: BaseException, attempts: int) -> None:
        """Give up rows because of an exception."""
        reason = str(error) if isinstance(error, OutputValueError) else reason_of(error)
        self.give_up("failed", rows, reason, attempts, type_name(error), format_error(error))

    def stop(self, error: BaseException) -> None:
        """The exception ends the run."""
        self.notes.stop = shorten(format_error(error), TRACEBACK_CHARACTERS)


def grouped(faults: Iterable[OutputValueError]) -> Iterable[list[OutputValueError]]:
    """Those of one column and reason together: a slot has no room for a text a row."""
    groups: dict[tuple[str | None, str], list[OutputValueError]] = {}
    for fault in faults:
        groups.setdefault((fault.column, fault.why), []).append(fault)
    return groups.values()
