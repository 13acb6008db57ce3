"""RegistryWait: what a pool process does while a schema registry does not answer."""

from __future__ import annotations

import os
import sys
import time

from pythia_fast.errors import RegistryError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
TELL_EVERY_S = 10.0


class RegistryWait:
    """Called with each error; when it returns, the registry is asked again.

    The rows wait in their slot: no row is at fault. Who stops the run need not wait for them: the next run reads them.
    """

    def __init__(self, handler: str) -> None:
        self._handler = handler
        self._parent = os.getppid()
        self._pause_s = FIRST_PAUSE_S
        self._last_s = self._told_s = -LONGEST_PAUSE_S - TELL_EVERY_S

    def __call__(self, error: RegistryError) -> None:
        if os.getppid() != self._parent:
            raise error  # nobody is there any more to take the rows back
        now = time.monotonic()
        if now - self._last_s > 2 * LONGEST_PAUSE_S:
            self._pause_s = FIRST_PAUSE_S
        if now - self._told_s >= TELL_EVERY_S:
            print(f"{self._handler}: {error}; its rows wait, and it is asked again", file=sys.stderr, flush=True)
            self._told_s = now
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._last_s = time.monotonic()
