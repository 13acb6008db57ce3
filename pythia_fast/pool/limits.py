"""When a pool process has done enough: after so many batches, or with so much memory of its own."""

from __future__ import annotations

import errno
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path

from pythia_fast.errors import ConfigError

LOOK_EVERY_S = 0.1
TELL_EVERY_S = 60.0
#: The supervisor ends a process that has grown so far beyond its limit within one batch.
HARD_FACTOR = 1.5
#: Of the descriptors that a process may open after setup(): with so many it makes room, before it has none left.
SHARE_OF_DESCRIPTORS = 0.75


def own_memory_mb(pid: int | str = "self") -> float:
    """Memory of a process, without files and the arena (RssAnon, proc(5)), in 10**6 bytes; 0 where that is not told."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError):
        return 0.0
    return 0.0


def lowest_free_descriptor() -> int:
    """The number that the next descriptor gets, which is at most how many are open; the limit where none is left."""
    try:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return descriptor_limit() if error.errno == errno.EMFILE else 0  # the machine may have none left, say
    os.close(fd)
    return fd


def has_no_descriptor() -> bool:
    """Whether this process may open none any more, whatever is collected: it leaks them, or its limit was lowered."""
    if lowest_free_descriptor() < descriptor_limit():
        return False
    gc.collect()  # files that only a reference cycle holds, such as an exception with its own frame
    return lowest_free_descriptor() >= descriptor_limit()


def descriptor_limit() -> int:
    """How many descriptors this process may have open (``ulimit -n``)."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class Limits:
    """Asked after each batch of this process. To be made after ``setup()``, whose descriptors do not count.

    ``max_batches``, ``max_memory_mb``: None is no limit.
    """

    def __init__(
        self,
        max_batches: int | None,
        max_memory_mb: float | None,
        memory_mb: Callable[[], float] = own_memory_mb,
        clock: Callable[[], float] = time.monotonic,
        open_descriptors: Callable[[], int] = lowest_free_descriptor,
    ) -> None:
        self._max_batches = max_batches
        self._batches = 0
        self._max_memory_mb = max_memory_mb
        self._memory_mb = memory_mb
        self._clock = clock
        self._next_look = 0.0
        self._open_descriptors = open_descriptors
        at_first = open_descriptors()
        self._most_descriptors = at_first + int((descriptor_limit() - at_first) * SHARE_OF_DESCRIPTORS)

    def reached(self) -> str:
        """One more batch is done: which limit that reaches, as a sentence's end; empty: none."""
        self._batches += 1
        if self._max_batches is not None and self._batches >= self._max_batches:
            return f"has handled as many batches as max_batches_per_process={self._max_batches} lets it"
        descriptors, may_open = self._open_descriptors(), descriptor_limit()  # which a handler may lower
        if descriptors >= min(self._most_descriptors, may_open):
            return (
                f"has {descriptors:,} descriptors open of the {may_open:,} that it may (ulimit -n): does the "
                "handler close the files and connections that it opens?"
            )
        if self._max_memory_mb is None or self._clock() < self._next_look:
            return ""
        self._next_look = self._clock() + LOOK_EVERY_S
        if (taken := self._memory_mb()) > self._max_memory_mb:
            return f"takes {taken:,.0f} MB, more than max_memory_mb={self._max_memory_mb:g}"
        return ""


def check_after_setup(max_memory_mb: float | None, memory_mb: Callable[[], float] = own_memory_mb) -> None:
    """Refuse a limit that a process has reached before its first batch: each of them would leave after its first one.

    Raises ConfigError.
    """
    if max_memory_mb is not None and (taken := memory_mb()) > max_memory_mb:
        raise ConfigError(
            f"max_memory_mb={max_memory_mb:g} is less than what a process of this handler has after setup(), "
            f"{ceil(taken * 10) / 10:,.1f} MB; give it some times as much"
        )


class Recycled:
    """What is told of processes that made room for a fresh one: the first at once, the others in sums."""

    def __init__(self) -> None:
        self._untold = 0
        self._next_s = float("-inf")

    def line(self, now_s: float, process: str, why: str) -> str:
        """One more did, at ``now_s``, as it has reached this limit; what is to be told, empty for nothing yet."""
        self._untold += 1
        if now_s < self._next_s:
            return ""
        others = f" (as {self._untold - 1:,} others did since this was last told)" if self._untold > 1 else ""
        self._untold = 0
        self._next_s = now_s + TELL_EVERY_S
        return f"{process} has reached its limits, and a fresh one takes its place{others}: it {why}"
