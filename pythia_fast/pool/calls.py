"""Calls: what the calls of one batch tell of the service behind the handler, for its circuit breaker.

A call that raises an expected exception is no fault of its rows: they are noted for the next round, and the service
is not called again for this batch. That costs an attempt only where the batch that was told of last was answered: an
outage does not use attempts up, while rows that make the service fail are given up in the end.

At their last attempt such rows are searched by halves, as others that raise are. What is found tells less, since the
service may have gone away meanwhile: a row that fails alone is given up once another call of the search is answered.
Where two rows in turn fail alone and nothing was answered between, the service is taken for away, and all wait, with
their attempts spent. So that a batch of nothing but such rows comes to an end too, its next search gives up its first
row with no answer, as a batch of one row is given up.

A half-open circuit tries a batch whole. Where that failed, the row that makes the service fail may be in all that there
is to try. So the next probe of the process begins with a part of its rows, and the one after it with a smaller one: a
part without such a row is answered. Then the service is there, whatever becomes of the other rows, which are handled at
once: where they fail, that costs an attempt as while the circuit is closed, and it closes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from pythia_fast._ext.batch_memory import ColumnTooLargeError
from pythia_fast._ext.ring import CIRCUIT_CLOSED, CIRCUIT_OPEN
from pythia_fast.error_text import reason_of
from pythia_fast.errors import HandlerError
from pythia_fast.pool.exception_types import is_named
from pythia_fast.pool.notes import Notes

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.circuit_breaker import CircuitBreaker

    Found: TypeAlias = tuple[int, BaseException]  #: a row, and what it raised

#: Until rows whose call failed are handled again, while the circuit is closed.
OUTAGE_WAIT_NS = 100_000_000
REASON_CHARACTERS = 300
RowIndices = npt.NDArray[np.uint32]
EXPECTED = "CircuitBreaker(expected=)"
#: Raised before the handler was called.
ROWS_DO_NOT_FIT = (ColumnTooLargeError, MemoryError)


@dataclass(slots=True)
class Probes:
    """The probes of one process that failed, one after the other.

    ``ordered``: rows must not be handled before others of their batch.
    """

    ordered: bool
    failed: int = 0

    def part(self, rows: RowIndices) -> tuple[RowIndices, RowIndices]:
        """(Rows that the next probe begins with, the others.) Without an order they are of either end in turn."""
        halvings = self.failed if self.ordered else (self.failed + 1) // 2
        size = max(1, len(rows) >> halvings)
        if not self.ordered and self.failed and self.failed % 2 == 0:
            return rows[-size:], rows[:-size]
        return rows[:size], rows[size:]


@dataclass(slots=True)
class Calls:
    """The calls of the batch in hand. Made before the first of them."""

    breaker: CircuitBreaker
    arena: Arena
    max_attempts: int
    probes: Probes
    early: bool = False  #: the round of the batch is, so none of its calls costs an attempt
    answers: int = 0  #: calls that were answered
    outage: str = ""  #: the expected exception that ended the calls
    in_vain: bool = False  #: the rows were searched at their last attempt, and none is known to be at fault
    costs_an_attempt: bool = False  #: the outage does, and all rows of the batch alike, or they would leave their order
    is_probe: bool = field(init=False)  #: of a half-open circuit, which is open for all others meanwhile

    def __post_init__(self) -> None:
        self.is_probe = self.arena.circuit == CIRCUIT_OPEN

    @property
    def is_small_probe(self) -> bool:
        """Whether the batch is a probe, and others failed: it begins with a part of its rows."""
        return self.is_probe and self.probes.failed > 0

    @property
    def _is_there(self) -> bool:
        """Whether the service is, as the part shows that the probe began with."""
        return self.is_small_probe and self.answers > 0

    def in_parts(self, groups: list[tuple[RowIndices, int]]) -> list[tuple[RowIndices, int]]:
        """What is to be handled, one after the other, with the part first that a small probe begins with."""
        if not self.is_small_probe or self.answers or self.outage:
            return groups
        (first, given), *others = groups
        return [*((part, given) for part in self.probes.part(first) if len(part)), *others]

    def ended(self, error: BaseException | None) -> bool:
        """A call ended; whether the service is away."""
        if isinstance(error, ROWS_DO_NOT_FIT):
            return False
        # What is wrong with a result is no outage, even where every Exception is expected to be one.
        if isinstance(error, HandlerError) or not is_named(error, self.breaker.expected, EXPECTED):
            self.answers += 1
            return False
        assert error is not None
        self.outage = reason_of(error)[:REASON_CHARACTERS]
        self.costs_an_attempt = not self.early and (self.arena.circuit == CIRCUIT_CLOSED or self._is_there)
        return True

    def spent(self, attempt: int) -> int:
        """Attempts that rows have spent whose ``attempt``-th one met the outage."""
        return attempt if self.costs_an_attempt else attempt - 1

    def left_out(self, attempt: int) -> int:
        """The same of rows that were not given to the handler: not the last one, unless they were searched."""
        if self.in_vain and attempt >= self.max_attempts:
            return self.max_attempts
        return min(self.spent(attempt), max(self.max_attempts, attempt) - 1)

    def used_up(self, attempt: int) -> bool:
        """Whether the ``attempt``-th attempt, which met the outage, was the last one."""
        return self.costs_an_attempt and attempt >= self.max_attempts

    def report(self, notes: Notes) -> None:
        """Note for the runtime what the batch tells."""
        notes.outage = self.outage
        away = self.outage != "" and not self._is_there
        notes.circuit = "outage" if away else "answered" if self.answers else ""
        if notes.circuit == "answered":
            self.probes.failed = 0
        elif away and self.is_probe:
            self.probes.failed += 1


class Doubt:
    """Of the rows that a search finds, which make the service fail, and which may have met an outage.

    ``attempt``: of the rows. One that is beyond the last says that they were searched in vain before.
    """

    def __init__(self, calls: Calls, attempt: int) -> None:
        self.waiting: list[int] = []  #: rows that have failed alone and are to be handled again
        self._calls = calls
        self._why, calls.outage = calls.outage, ""  # the search goes on with calls
        self._answers = calls.answers
        self._answered = False  # a call of the search was
        self._bold = attempt > calls.max_attempts
        self._row: Found | None = None  # the one in doubt: no call was answered since it failed

    def told(self, error: BaseException | None, found: Found | None) -> list[Found]:
        """What the call of the search has raised that has just ended, and the row that it found with it; what is given
        up now."""
        calls, sure = self._calls, []
        if calls.answers > self._answers:
            self._answers, self._answered = calls.answers, True
            sure += [self._row] if self._row is not None else []
            self._row = None
        away = error is not None and calls.outage != ""  # where only the latter holds, the rows are noted
        if away:
            self._why, calls.outage = calls.outage, ""
        if found is None:
            return sure
        if not away or self._bold:
            self._bold = self._bold and not away
            return [*sure, found]
        if self._row is None:
            self._row = found
        else:
            self._give_in(found[0])
        return sure

    def ended(self) -> list[Found]:
        """The search has: what is given up in the end."""
        if self._row is None:
            return []
        if not self._answered or self._calls.outage:
            self._give_in()
            return []
        return [self._row]

    def _give_in(self, *rows: int) -> None:
        """The service is taken for away."""
        assert self._row is not None
        self.waiting += [self._row[0], *rows]
        self._row = None
        if not self._calls.outage:
            self._calls.outage, self._calls.in_vain = self._why, True
