"""How many deaths a handler may cost before it is paused: those that get it nowhere are counted.

    a row was settled, or handled before the death   it gets somewhere: everything is counted anew
    the death convicted a row                        that row is left out from now on; still, rows_in_a_row of them
                                                     without one that is handled means that no row can be
    the death narrowed the search for such a row     not counted: the search comes to an end (pool/parts.py)
    nothing of this                                  at most deaths_in_vain of these within period_s
    the process was not up yet                       as well, and at most so many in a row, however long each took:
                                                     a setup() that hangs until its deadline takes minutes

A row that kills costs some four deaths, so a batch may cost hundreds of deaths and be worth them. What a spent budget
means is the flow control's to say (runtime/flow.py): the handler rests, and tries again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pythia_fast.dead_letter_limit import DeadLetterLimit

DEATHS_IN_VAIN = 20
PERIOD_S = 60.0
ROWS_IN_A_ROW = 50

#: What a death tells about the rows: one is convicted, those in hand are fewer now, or nothing.
Found = Literal["row", "part", "nothing"]


class Death(NamedTuple):
    """What the death of a process tells about its handler."""

    at_s: float  #: time.monotonic()
    settled: int  #: rows settled in this run so far, those that killed not among them
    found: Found
    handled: bool  #: rows of the batch in hand were handled since the death before
    booted: bool = True  #: its setup() had returned


@dataclass(slots=True)
class RestartBudget:
    """The deaths of one handler's processes since it last got somewhere."""

    deaths_in_vain: int = DEATHS_IN_VAIN
    period_s: float = PERIOD_S
    rows_in_a_row: float = ROWS_IN_A_ROW
    _settled: int = 0
    _rows: int = 0
    _setups: int = 0  #: in vain, one after the other
    _in_vain: deque[float] = field(default_factory=deque)

    @classmethod
    def of(cls, limit: DeadLetterLimit | None) -> RestartBudget:
        """That of a handler with this limit, which may allow every row to go to the dead letters."""
        return cls(rows_in_a_row=inf if limit is None or limit.ratio == 1 else ROWS_IN_A_ROW)

    def spend(self, death: Death) -> str | None:
        """Count a death; why restarting at once does not help (then rows are counted anew), or None where it may."""
        if death.settled > self._settled or death.handled:
            self._settled = death.settled
            self._rows = self._setups = 0
            self._in_vain.clear()
        self._setups = 0 if death.booted else self._setups + 1
        if death.found == "row":
            self._rows += 1
            self._in_vain.clear()
            if self._rows > self.rows_in_a_row:
                found, self._rows = self._rows, 0
                return f"{found} rows, one after the other, each killed the processes that handled it alone"
        if death.found != "nothing":
            return None
        self._in_vain.append(death.at_s)
        while self._in_vain[0] < death.at_s - self.period_s:
            self._in_vain.popleft()
        if len(self._in_vain) > self.deaths_in_vain:
            died = f"{len(self._in_vain)} of its processes died within {self.period_s:.0f} s"
            return f"{died} and no row was settled between"
        if self._setups > self.deaths_in_vain:
            return (
                f"{self._setups} of its processes, one after the other, did not come up and no row was settled between"
            )
        return None
