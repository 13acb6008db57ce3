"""Gate: whether a handler's source is read, why not, and when that is tried again. Pure: the caller tells the time.

    open ──close──▶ closed ──pause is over──▶ probing ──reopen──▶ open
                       ▲                         │
                       └────── close again ──────┘   the next pause is twice as long

Everything that pauses a source on purpose has a gate of its own; the source is read while all of them are open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GateState = Literal["open", "closed", "probing"]


@dataclass(slots=True)
class Gate:
    """See the module's docstring. Times are seconds of one monotonic clock."""

    pause_s: float  #: the first one
    max_pause_s: float
    probes: int | None  #: failed ones before it is exhausted; None: it never is
    state: GateState = "open"
    why: str = ""  #: a sentence, while it is not open
    failed_probes: int = 0  #: since it was open
    times_closed: int = 0  #: from open
    next_probe_s: float = 0.0
    _closed_at_s: float = 0.0
    _closed_s: float = 0.0

    def close(self, now_s: float, why: str, *, counts: bool = True) -> None:
        """Close an open gate, or one whose probe failed. ``counts``: whether that was one of those it may have."""
        if self.state == "open":
            self.times_closed += 1
            self._closed_at_s = now_s
        elif self.state == "probing":
            self.failed_probes += counts
        self.state = "closed"
        self.why = why
        self.next_probe_s = now_s + self.current_pause_s

    def begin_probe(self, now_s: float) -> bool:
        """Begin to probe if the pause is over; whether it was."""
        if self.state != "closed" or self.exhausted or now_s < self.next_probe_s:
            return False
        self.state = "probing"
        return True

    def reopen(self, now_s: float) -> None:
        """The probe went well."""
        if self.state != "open":
            self._closed_s += now_s - self._closed_at_s
        self.state = "open"
        self.why = ""
        self.failed_probes = 0

    @property
    def exhausted(self) -> bool:
        """Whether no further probe is worth it."""
        return self.probes is not None and self.failed_probes >= self.probes

    @property
    def current_pause_s(self) -> float:
        """Seconds from closing to the next probe."""
        return min(self.pause_s * 2.0 ** min(self.failed_probes, 64), self.max_pause_s)

    def closed_s(self, now_s: float) -> float:
        """Seconds in all that it was not open."""
        return self._closed_s + (now_s - self._closed_at_s if self.state != "open" else 0.0)
