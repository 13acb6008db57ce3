"""Circuit: a handler's circuit breaker, fed with what its pool processes report of each batch.

The state machine is pybreaker's: it counts failures in a row, opens, and decides what a probe is worth. Its timer is
not used, because it follows the wall clock, which can be set; a Gate has the time here, and tells when to half-open.

    closed ──failure_threshold failures in a row──▶ open ──recovery_timeout──▶ half-open ──success──▶ closed
                                                      ▲                            │
                                                      └──────────failure───────────┘
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, NoReturn

import pybreaker

from pythia_fast._ext.ring import CIRCUIT_CLOSED, CIRCUIT_FAILING, CIRCUIT_HALF_OPEN, CIRCUIT_OPEN
from pythia_fast.runtime.gate import Gate

if TYPE_CHECKING:
    from pythia_fast.circuit_breaker import CircuitBreaker

CircuitState = Literal["", "closed", "open", "half-open"]
#: What a batch tells of the service: it answered, it is away, a part of several rows that it was tried with failed, so
#: that a smaller one may tell more, or the handler was not called.
Report = Literal["answered", "outage", "smaller", ""]

NEVER_S = 1e9  #: pybreaker's own timer


class Outage(Exception):
    """What pybreaker is told of a batch that failed."""


class Circuit:
    """The breaker of one handler. Pure: the caller tells the time and what is reported."""

    def __init__(self, policy: CircuitBreaker, *, bounded: bool) -> None:
        timeout_s = policy.recovery_timeout_s
        self.gate = Gate(timeout_s, timeout_s, policy.probes if bounded else None)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=policy.failure_threshold, reset_timeout=NEVER_S, throw_new_error_on_trip=False
        )
        self._threshold = policy.failure_threshold
        self.failed_probes = 0  #: one after the other, those included that the gate does not count

    @property
    def state(self) -> CircuitState:
        states: dict[str, CircuitState] = {
            pybreaker.STATE_CLOSED: "closed",
            pybreaker.STATE_OPEN: "open",
            pybreaker.STATE_HALF_OPEN: "half-open",
        }
        return states[self._breaker.current_state]

    @property
    def word(self) -> int:
        """What the pool processes go by."""
        if self.state == "closed":
            return CIRCUIT_FAILING if self._breaker.fail_counter else CIRCUIT_CLOSED
        return CIRCUIT_OPEN if self.state == "open" else CIRCUIT_HALF_OPEN

    def reported(self, now_s: float, report: Report, why: str) -> None:
        """A batch was handled. Batches that were begun before the circuit opened tell nothing that is not known."""
        if self.state == "open" or not report:
            return
        probing = self.state == "half-open"
        if report == "answered":
            self._breaker.call(_answer)
            self.failed_probes = 0
            if probing:
                self.gate.reopen(now_s)
            return
        with contextlib.suppress(Outage):
            self._breaker.call(_fail)
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            failed = "the batch that was tried failed" if probing else f"{self._threshold} batches in a row failed"
            self.failed_probes += probing
            self.gate.close(now_s, f"the circuit is open: {failed}, the last with {why}", counts=report == "outage")

    def probe_died(self) -> None:
        """A process did, with the batch that was tried perhaps: the next one begins with other rows of it."""
        self.failed_probes += 1

    def begin_probe(self, now_s: float) -> bool:
        """Half-open the circuit if the pause is over; whether it was."""
        if not self.gate.begin_probe(now_s):
            return False
        self._breaker.half_open()
        return True


def _answer() -> None:
    """A call that goes well."""


def _fail() -> NoReturn:
    raise Outage
