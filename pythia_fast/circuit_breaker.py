"""CircuitBreaker: when a handler's source is paused because a service that the handler calls is away."""

from __future__ import annotations

from dataclasses import dataclass

from pythia_fast import options
from pythia_fast.options import named_options

MAX_FAILURES = 1000
MAX_PROBES = 1000


@dataclass(frozen=True, slots=True, init=False)
class CircuitBreaker:
    """Calls of the handler that raise ``expected`` are failures of the service behind it, not of their rows.

    ``failure_threshold``: batches in a row that fail so, over all processes of the handler, before the circuit opens:
    then the source is paused, and batches in hand wait in shared memory. ``recovery_timeout``: seconds before one batch
    is tried: when it goes well the circuit closes, and else it stays open as long again.
    ``expected``: an exception type, or a tuple of them. ``probes``: batches that are tried in vain before a run with
    until="end" is ended; until="forever" goes on trying.

    Raises ConfigError, UnknownOptionError.
    """

    failure_threshold: int
    recovery_timeout_s: float
    expected: tuple[type[Exception], ...]
    probes: int

    @named_options("CircuitBreaker")
    def __init__(
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 30.0,
        expected: type[Exception] | tuple[type[Exception], ...] = (ConnectionError, TimeoutError),
        *,
        probes: int = 10,
    ) -> None:
        where = "CircuitBreaker"
        types = expected if isinstance(expected, tuple) else (expected,)
        if not types or not all(isinstance(each, type) and issubclass(each, Exception) for each in types):
            raise options.refusal(where, "expected", expected, "an exception type, or a tuple of them")
        takes = "seconds, from 0.01 to 86,400"
        timeout_s = options.number(where, "recovery_timeout", recovery_timeout, 0.01, 86_400, takes)
        failures = options.whole(where, "failure_threshold", failure_threshold, 1, MAX_FAILURES, "batches")
        set_field = object.__setattr__  # the class is frozen
        set_field(self, "failure_threshold", failures)
        set_field(self, "recovery_timeout_s", timeout_s)
        set_field(self, "expected", types)
        set_field(self, "probes", options.whole(where, "probes", probes, 1, MAX_PROBES, "batches"))
