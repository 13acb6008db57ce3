"""How a pool process ended, as a person is told."""

from __future__ import annotations

import signal
from typing import NamedTuple

from pythia_fast.pool.messages import Lacking

#: Lines of a traceback of setup() or teardown() that are told: the place and the error stand last.
LAST_LINES = 6


class Obituary(NamedTuple):
    """The end of one process."""

    how: str  #: "was killed by SIGSEGV"
    said: str = ""  #: its last words: the stacks of all its threads, or a traceback
    recycled: bool = False  #: it left because of its limits, which is no crash
    in_vain: str = ""  #: why another process at once does not help, a sentence; empty where it may


_LACKING: dict[Lacking, str] = {
    "memory": "ran out of memory (MemoryError",
    "descriptors": "could open no descriptor any more (EMFILE",
}


def describe_status(status: int, *, ended_by_us: bool = False, lacking: Lacking | None = None) -> str:
    """How a process ended: status is an exit code, or minus a signal number.

    ``ended_by_us``: one of its limits was reached, so who sent the signal is known. ``lacking``: for want of what it
    left, as it said.
    """
    if lacking is not None:
        return f"{_LACKING[lacking]}, exit code {status})"
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    likely = (
        ", likely by the kernel for want of memory or by hand" if -status == signal.SIGKILL and not ended_by_us else ""
    )
    return f"was killed by {name}{likely}"


def end_of(traceback: str) -> str:
    """The lines of it that are told."""
    return "\n".join(traceback.rstrip().splitlines()[-LAST_LINES:])
