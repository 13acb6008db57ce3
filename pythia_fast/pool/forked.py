"""What keeps a pool process apart from those around it: from forks that handlers make, and from the runtime's group."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback


def leave_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End this process at once unless it is ``pid``: it is a fork made by a handler, and came back out of it.

    It has a copy of all that the pool process was doing, and the same shared memory: were it to go on, two would
    hold one batch. ``error``: what it came out with; the exit status follows it, as at the end of any Python process.
    """
    if os.getpid() == pid:
        return
    status = 1
    try:
        if error is None:
            status = 0
        elif not isinstance(error, SystemExit):
            traceback.print_exception(error)
        elif error.code is None:
            status = 0
        elif isinstance(error.code, int):
            status = error.code & 0xFF
        else:
            print(error.code, file=sys.stderr)
    finally:  # whatever is raised while the user's exception is told
        os._exit(status)  # no buffers flushed, no atexit: those belong to the pool process


def lead_own_group() -> None:
    """Leave the runtime's process group for one of this process alone.

    ``os.killpg(0, ...)`` in a handler then meets it and what it has started, not the runtime. It is in the background
    of a terminal from then on, where reading (with ``stty tostop`` writing too) would stop it, and nobody would have it
    go on: with these signals ignored, reading fails instead, and writing does not.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def outlive_signals() -> None:
    """Have this process outlive SIGINT and SIGTERM: the runtime decides when it leaves.

    A signal meant for the whole run (all processes of a container or service) must not cut batches short, so SIGINT is
    ignored in handlers' children too. SIGTERM is how they are ended (``Popen.terminate``, ``multiprocessing.Pool``): it
    is caught here, not ignored, because what is ignored stays so in a new program, and what is caught does not.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    signal.siginterrupt(signal.SIGTERM, False)  # a handler's own system calls go on
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_end_by_sigterm)


#: Of each thread that forks: whether SIGTERM was blocked before.
_before_fork = threading.local()


def _hold_back() -> None:
    """Between the fork and ``_end_by_sigterm`` the child has our handler: one that came then would be lost."""
    _before_fork.blocked = signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_through() -> None:
    if not _before_fork.blocked:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_by_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_through()
