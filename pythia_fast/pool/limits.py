"""When a pool process has done enough: after so many batches, or with so much memory of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pythia_fast.errors import ConfigError

#: What a pool process exits with that leaves because of its limits; a successor has its place at once.
EXIT_RECYCLED = 5
LOOK_EVERY_S = 0.1
TELL_EVERY_S = 60.0
#: The supervisor ends a process that has grown so far beyond its limit within one batch.
HARD_FACTOR = 1.5


def own_memory_mb(pid: int | str = "self") -> float:
    """Memory of a process, without files and the arena (RssAnon, proc(5)), in 10**6 bytes; 0 where that is not told."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError):
        return 0.0
    return 0.0


class Limits:
    """Asked after each batch of this process.

    ``max_batches``, ``max_memory_mb``: None is no limit.
    """

    def __init__(
        self,
        max_batches: int | None,
        max_memory_mb: float | None,
        memory_mb: Callable[[], float] = own_memory_mb,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left = max_batches
        self._max_memory_mb = max_memory_mb
        self._memory_mb = memory_mb
        self._clock = clock
        self._next_look = 0.0

    def reached(self) -> bool:
        """One more batch is done: whether it was the last one."""
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                return True
        if self._max_memory_mb is None or self._clock() < self._next_look:
            return False
        self._next_look = self._clock() + LOOK_EVERY_S
        return self._memory_mb() > self._max_memory_mb


def check_after_setup(max_memory_mb: float | None, memory_mb: Callable[[], float] = own_memory_mb) -> None:
    """Refuse a limit that a process has reached before its first batch: each of them would leave after its first one.

    Raises ConfigError.
    """
    if max_memory_mb is not None and (taken := memory_mb()) > max_memory_mb:
        raise ConfigError(
            f"max_memory_mb={max_memory_mb:g} is less than what a process of this handler has after setup(), "
            f"{taken:,.0f} MB; give it some times as much"
        )


class Recycled:
    """What is told of processes that made room for a fresh one: the first at once, the others in sums."""

    def __init__(self) -> None:
        self._untold = 0
        self._next_s = float("-inf")

    def line(self, now_s: float, process: str) -> str:
        """One more did, at ``now_s``; what is to be told, empty for nothing yet."""
        self._untold += 1
        if now_s < self._next_s:
            return ""
        others = f" (as {self._untold - 1:,} others did since this was last told)" if self._untold > 1 else ""
        self._untold = 0
        self._next_s = now_s + TELL_EVERY_S
        return f"{process} has reached its limits; a fresh one takes its place{others}"
