"""Calls: what the calls of one batch tell of the service behind the handler, for its circuit breaker.

A call that raises an expected exception is no fault of its rows: they are noted for the next round, and the service
is not called again for this batch. That costs an attempt only where the batch that was told of last was answered: an
outage does not use attempts up, while rows that make the service fail are given up in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_fast._ext.batch_memory import ColumnTooLargeError
from pythia_fast._ext.ring import CIRCUIT_CLOSED
from pythia_fast.errors import HandlerError
from pythia_fast.pool.exception_types import is_named
from pythia_fast.runtime.notes import Notes, reason_of

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.circuit_breaker import CircuitBreaker

#: Until rows whose call failed are handled again, while the circuit is closed.
OUTAGE_WAIT_NS = 100_000_000
REASON_CHARACTERS = 300
EXPECTED = "CircuitBreaker(expected=)"
#: Raised before the handler was called.
ROWS_DO_NOT_FIT = (ColumnTooLargeError, MemoryError)


@dataclass(slots=True)
class Calls:
    """The calls of the batch in hand."""

    breaker: CircuitBreaker
    arena: Arena
    answered: bool = False
    outage: str = ""  #: the expected exception that ended the calls
    costs_an_attempt: bool = False  #: the outage does, and all rows of the batch alike, or they would leave their order

    def ended(self, error: BaseException | None) -> bool:
        """A call ended; whether the service is away."""
        if isinstance(error, ROWS_DO_NOT_FIT):
            return False
        # What is wrong with a result is no outage, even where every Exception is expected to be one.
        if isinstance(error, HandlerError) or not is_named(error, self.breaker.expected, EXPECTED):
            self.answered = True
            return False
        assert error is not None
        self.outage = reason_of(error)[:REASON_CHARACTERS]
        self.costs_an_attempt = self.arena.circuit == CIRCUIT_CLOSED
        return True

    def spent(self, attempt: int) -> int:
        """Attempts that rows have spent whose ``attempt``-th one met the outage, or was left out for it."""
        return attempt if self.costs_an_attempt else attempt - 1

    def report(self, notes: Notes) -> None:
        """Note for the runtime what the batch tells."""
        notes.outage = self.outage
        notes.circuit = "outage" if self.outage else "answered" if self.answered else ""
