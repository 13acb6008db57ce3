"""How often processes of one handler failed with the same traceback, which is told in full once. Pure: the caller
tells the time."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Without such a failure, after which the next one is told as the first one was.
FORGET_S = 600.0
MOST_REASONS = 100


@dataclass(slots=True)
class _Failures:
    count: int
    last_s: float


@dataclass(slots=True)
class RepeatedFailures:
    """Of one handler."""

    _reasons: dict[tuple[str, ...], _Failures] = field(default_factory=dict)

    def count(self, now_s: float, cause: str, traceback: str) -> int:
        """Count a failure at ``now_s``; how many there were for its reason, with this one.

        ``cause``: the exception in a line.
        """
        reason = _reason(cause, traceback)
        known = self._reasons.get(reason)
        if known is None or now_s - known.last_s > FORGET_S:
            if len(self._reasons) >= MOST_REASONS:
                self._reasons.clear()
            known = self._reasons[reason] = _Failures(0, now_s)
        known.count += 1
        known.last_s = now_s
        return known.count


def _reason(cause: str, traceback: str) -> tuple[str, ...]:
    """What is the same in two tracebacks from one place: the frames and the type. What the exception says may have
    numbers in it that differ each time."""
    frames = [line for line in traceback.splitlines() if line.startswith('  File "')]
    return (cause.partition(":")[0], *frames)
