"""How a pool process ended, as a person is told."""

from __future__ import annotations

import signal
from typing import NamedTuple

from pythia_fast.pool.messages import QuitReason

#: Lines of a traceback of setup() or teardown() that are told: the place and the error stand last.
LAST_LINES = 6


class Obituary(NamedTuple):
    """The end of one process."""

    how: str  #: "was killed by SIGSEGV"
    said: str = ""  #: its last words: the stacks of all its threads, or a traceback
    recycled: bool = False  #: it left because of its limits, which is no crash
    in_vain: str = ""  #: why another process at once does not help, a sentence; empty where it may


_QUIT: dict[QuitReason, str] = {
    "memory": "ran out of memory (MemoryError, exit code {status})",
    "descriptors": "could open no descriptor any more (EMFILE, exit code {status})",
    "exception": "met an exception outside the handler's call ({cause}; exit code {status})",
}


def describe_status(
    status: int, *, ended_by_us: bool = False, quit_reason: QuitReason | None = None, cause: str = ""
) -> str:
    """How a process ended: status is an exit code, or minus a signal number.

    ``ended_by_us``: one of its limits was reached, so who sent the signal is known. ``quit_reason``, ``cause``: why it
    ended itself, as it said.
    """
    if quit_reason is not None:
        return _QUIT[quit_reason].format(status=status, cause=cause)
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
