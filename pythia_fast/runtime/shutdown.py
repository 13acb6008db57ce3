"""Signals: the first asks the run to drain, the second ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from pythia_fast.routine import Routine


class StopRequest:
    """What SIGINT and SIGTERM have asked for so far."""

    def __init__(self) -> None:
        self.asked = False
        self.killed = False

    @contextlib.contextmanager
    def signals(self, log: Callable[[str], None]) -> Iterator[None]:
        """Handle the two signals inside the ``with``; outside the main thread nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self.asked:
                self.killed = True
            else:
                self.asked = True
                log(Routine(f"{signal.Signals(number).name}: draining; the same again stops at once"))

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
