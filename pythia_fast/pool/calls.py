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
is to try. So the next probe is a quarter of its batch's rows, the one after it a sixteenth, from another place, and so
on: a part without such a row is answered. Then the circuit closes, and the other rows have their turn in the next
round, so that what was answered is done whatever becomes of them. How many probes have failed is a word of the arena:
a process that dies or is recycled takes nothing with it, and all processes of a handler count together.

A batch that killed a process is handled in parts (pool/parts.py), and one of these that meets an outage does not end
the round: a row that makes the service fail would else hide one that kills, which lies behind it, for ever. Rows of
its lanes that come behind it wait. Should the round end before the row that kills is found, the next one has parts as
small (later_rows in ext/journal.h), so the search goes on instead of costing a death each round.
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
    from pythia_fast.pool.waiting import LanesInHand

    Found: TypeAlias = tuple[int, BaseException]  #: a row, and what it raised

#: Until rows whose call failed are handled again, while the circuit is closed.
OUTAGE_WAIT_S = 0.1
OUTAGE_WAIT_NS = int(OUTAGE_WAIT_S * 1e9)
#: At most so long a half-open circuit is left to a batch that is read for it, before one that failed is tried again.
HEAD_START_S = 1.0
#: Parts of a batch that killed a process which fail one after the other before the service is taken for away.
PARTS_IN_A_ROW = 3
REASON_CHARACTERS = 300
RowIndices = npt.NDArray[np.uint32]
EXPECTED = "CircuitBreaker(expected=)"
#: Raised before the handler was called.
ROWS_DO_NOT_FIT = (ColumnTooLargeError, MemoryError)


def place(number: int) -> float:
    """Where in its batch a probe takes its rows, from 0 to 1: halves, quarters, eighths, each once (van der Corput)."""
    found, share = 0.0, 0.5
    while number:
        found += share * (number & 1)
        number, share = number >> 1, share / 2
    return found


def probe_part(rows: int, failed: int, lane_of: npt.NDArray[np.intp] | None) -> npt.NDArray[np.intp]:
    """Which of so many rows the probe tries that comes after ``failed`` ones; ascending.

    ``lane_of``: the lane of each row, where no row may be handled before others of its lane. None: rows have no order.
    """
    size = max(1, rows >> min(2 * failed, 64))
    if lane_of is None:
        first = round(place(failed) * (rows - size))
        return np.arange(first, first + size)
    different, numbers = np.unique(lane_of, return_inverse=True)
    turned = (numbers - int(place(failed) * len(different))) % len(different)
    return np.sort(np.argsort(turned, kind="stable")[:size])


@dataclass(slots=True)
class Calls:
    """The calls of the batch in hand. Made before the first of them."""

    breaker: CircuitBreaker
    arena: Arena
    max_attempts: int
    early: bool = False  #: the round of the batch is, so none of its calls costs an attempt
    answers: int = 0  #: calls that were answered
    outage: str = ""  #: the expected exception that ended the calls
    in_vain: bool = False  #: the rows were searched at their last attempt, and none is known to be at fault
    costs_an_attempt: bool = False  #: the outage does, and all rows of the batch alike, or they would leave their order
    by_parts: bool = False  #: the batch killed a process and is handled in parts, so that each is a small probe
    most: int = (
        0  #: rows of one call, for a search for a row that kills was not over when the round before ended; 0: any
    )
    tried: int = 0  #: rows of the part that a small probe was
    is_probe: bool = field(init=False)  #: of a half-open circuit, which is open for all others meanwhile
    _failed: int = field(init=False)  #: probes before, one after the other
    _aside: str = ""  #: the outage that a part met, after which the round went on
    _in_a_row: int = 0  #: parts that met one

    def __post_init__(self) -> None:
        self.is_probe = self.arena.circuit == CIRCUIT_OPEN
        self._failed = self.arena.failed_probes

    @property
    def is_small_probe(self) -> bool:
        """Whether the batch is a probe, and others failed: it tries a part of its rows."""
        return self.is_probe and self._failed > 0 and not self.by_parts

    @property
    def left_rows(self) -> bool:
        """Whether the batch is handled further at once, since a part of it was answered."""
        return self.tried > 0 and not self.outage

    def rows_of_probe(self, rows: int) -> int:
        """How many of so many rows a small probe tries at most; 0: the batch is none."""
        return max(1, rows >> min(2 * self._failed, 64)) if self.is_small_probe else 0

    def part_of(self, groups: list[RowIndices], lanes: LanesInHand) -> tuple[int, npt.NDArray[np.intp]]:
        """What a small probe tries: (the group that it is of, which of its rows).

        The groups in turn, for a row that fails again and again is in one of its own; but none before rows of its lane.
        """
        number = self._failed % len(groups)
        may_come = lanes.none_of(groups[number], groups[:number])
        if not len(may_come):
            number, may_come = 0, np.arange(len(groups[0]))
        chosen = probe_part(len(may_come), self._failed, lanes.of(groups[number][may_come]))
        chosen = chosen[: self.most or None]
        self.tried = len(chosen)
        return number, may_come[chosen]

    def part_ended(self, answers: int) -> None:
        """Of a batch that killed a process. ``answers``: those before the part.

        A part that meets an outage may do so for a row of its own; the round ends where several in turn do.
        """
        if not self.by_parts:
            return
        if self.outage:
            self._in_a_row += 1
            if self._in_a_row < PARTS_IN_A_ROW:
                self._aside, self.outage = self.outage, ""
        elif self.answers > answers:
            self._in_a_row = 0

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
        # Where the part before met one as well, nothing tells whose fault it is.
        self.costs_an_attempt = not self.early and not self._in_a_row and self.arena.circuit == CIRCUIT_CLOSED
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

    @property
    def _away(self) -> str:
        """The outage that counts: not one of a part of a batch that was answered otherwise."""
        return self.outage or ("" if self.answers else self._aside)

    def report(self, notes: Notes) -> None:
        """Note for the runtime what the batch tells."""
        notes.outage = self._away
        if notes.outage:
            notes.circuit = "smaller" if self.tried > 1 else "outage"
        else:
            notes.circuit = "answered" if self.answers else ""

    @property
    def wait_ns(self) -> int:
        """Until rows that met an outage are handled again; 0: none did."""
        if not (self.outage or self._aside):
            return 0
        if not (self.is_probe and self._away) or self._failed % 2 == 1:
            return OUTAGE_WAIT_NS
        # The next probe is of a batch that is read for it, if one comes by then (runtime/flow.py).
        timeout_s = self.breaker.recovery_timeout_s
        return OUTAGE_WAIT_NS + int((timeout_s + min(timeout_s, HEAD_START_S)) * 1e9)


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
