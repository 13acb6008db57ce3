"""Tells where the import of the app is, while it takes long: in a new interpreter of the pool, and in a command."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from pythia_fast.pool.users_frames import format_import

STACK_EVERY_S = 5.0
#: An import that takes so long is told of.
SLOW_IMPORT_S = 10.0
GONE_S = 1.0


class ImportWatch:
    """Watches what this thread does inside the ``with``, from a thread that is gone behind it: every ``every_s``
    seconds, ``told`` is given the stack.

    That thread needs the GIL: where native code keeps it, nothing is told. faulthandler does without, but looks at
    frames while they change, which could take down an import that is merely slow.
    """

    def __init__(self, told: Callable[[str], None], every_s: float = STACK_EVERY_S) -> None:
        self._told = told
        self._every_s = every_s
        self._watched = threading.get_ident()
        self._outside: FrameType | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="import watch", daemon=True)

    def __enter__(self) -> None:
        self._outside = sys._getframe(1)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._outside = None  # it holds this object
        # Threads are counted next, by the kernel's list, where it may stay for a moment.
        deadline = time.monotonic() + GONE_S
        while os.path.exists(f"/proc/self/task/{self._thread.native_id}") and time.monotonic() < deadline:
            time.sleep(0.0001)

    def _tell(self) -> None:
        while not self._over.wait(self._every_s):
            self._told(format_import(sys._current_frames()[self._watched], self._outside))
