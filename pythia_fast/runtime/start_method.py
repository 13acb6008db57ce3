"""How the pool's parent is made, and what is told where that may hang: a fork takes locks along, but no threads."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_fast.errors import ConfigError
from pythia_fast.pool.nursery_process import thread_count

if TYPE_CHECKING:
    from pythia_fast.app import StartMethod
    from pythia_fast.registration import Handler

_MAY_HANG = (
    "a lock that one of them holds stays locked in the pool for ever, and a library's thread pool (that of polars, for "
    "one) is not there; where the pool hangs,"
)
_INTO_A_MODULE = "put the app into a module, as a name of its own, and import it from there"


def choose_start_method(
    asked: StartMethod, app: str, handlers: Sequence[Handler], *, importable: bool, tell: Callable[[str], None]
) -> StartMethod:
    """What "auto" stands for; ``tell`` is called where a fork may hang. Raises ConfigError where it is sure to.

    ``importable``: a new interpreter finds the app.
    """
    threads = thread_count()
    if asked == "auto":
        if threads > 1 and importable:
            return "forkserver"
        if threads > 1:
            _refuse_polars(app, handlers)
            tell(
                f"the pool is forked from a process with {threads} threads, because app {app!r} is no module-level "
                f"name that a new interpreter could import: {_MAY_HANG} {_INTO_A_MODULE}"
            )
        return "fork"
    if asked == "fork":
        started = threading.active_count() - 1
        if started or (_takes_polars(handlers) is not None and polars_works_here()):
            beside = {0: "polars' threads", 1: "a thread"}.get(started, f"{started} threads")
            way_out = "take 'forkserver' or 'auto'" if importable else _INTO_A_MODULE
            tell(f"start_method='fork' forks a process with {beside} beside its main one: {_MAY_HANG} {way_out}")
    return asked


def polars_works_here() -> bool:
    """Whether polars' thread pool runs in this process; it starts when polars first computes something in parallel."""
    with contextlib.suppress(OSError):  # no /proc here
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # it has ended
                if re.fullmatch(r"polars-\d+", Path(f"/proc/self/task/{thread}/comm").read_text().strip()):
                    return True
    return False


def _takes_polars(handlers: Sequence[Handler]) -> Handler | None:
    return next((handler for handler in handlers if handler.adapter.view == "polars"), None)


def _refuse_polars(app: str, handlers: Sequence[Handler]) -> None:
    handler = _takes_polars(handlers)
    if handler is not None and polars_works_here():
        raise ConfigError(
            f"handler {handler.name!r} takes a polars.DataFrame, and the pool would be forked from this process, in "
            "which polars has been used: in a fork of it polars waits for ever for threads that are not there. App "
            f"{app!r} is no module-level name that a new interpreter could import: {_INTO_A_MODULE}, or run it in a "
            "process that has not used polars; start_method='fork' forks all the same"
        )
