"""The processes that run handlers: how they are born, what they do, and what happens when one dies."""

from __future__ import annotations

import os

#: Numeric libraries start a thread a core each unless told otherwise; a pool has its processes for that.
ONE_THREAD_EACH = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
}

#: True in the nursery and in pool processes, where nothing may start a run of its own.
in_pool = False
#: True in a pool process from the time that the handler is made: what calls App.run then is the handler.
serving = False


def keep_to_one_thread() -> None:
    """Tell the numeric libraries to use one thread each, where the user has not said otherwise.

    Only of use before they are imported. It also leaves this process with one thread, so that a pool can be
    forked from it.
    """
    for name, value in ONE_THREAD_EACH.items():
        os.environ.setdefault(name, value)
