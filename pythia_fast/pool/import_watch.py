"""Tells the runtime where the import of the app is, while it takes long. In a nursery that is a new interpreter."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from types import TracebackType

from pythia_fast.pool.messages import Importing, send, shorten
from pythia_fast.pool.users_frames import format_import

STACK_EVERY_S = 5.0
GONE_S = 1.0


class ImportWatch:
    """Watches what this thread does inside the ``with``, from a thread that is gone behind it.

    That thread needs the GIL: where native code keeps it, nothing is told. faulthandler does without, but looks at
    frames while they change, which could take down an import that is merely slow.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="import watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        # Threads are counted next, by the kernel's list, where it may stay for a moment.
        deadline = time.monotonic() + GONE_S
        while os.path.exists(f"/proc/self/task/{self._thread.native_id}") and time.monotonic() < deadline:
            time.sleep(0.0001)

    def _tell(self) -> None:
        while not self._over.wait(STACK_EVERY_S):
            stack = format_import(sys._current_frames()[self._watched])
            with contextlib.suppress(OSError):  # the runtime is gone, and this process with it
                send(self._channel, Importing(shorten(stack)))
