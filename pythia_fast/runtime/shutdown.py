"""Signals: the first asks the run to drain, the second ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from pythia_fast.routine import Routine


class StopRequest:
    """What SIGINT and SIGTERM, or the program itself, have asked for so far."""

    def __init__(self) -> None:
        self._by_program = False
        self._by_signal = False
        self.killed = False

    @property
    def asked(self) -> bool:
        """Whether the run is to drain."""
        return self._by_program or self._by_signal

    def ask(self) -> None:
        """Have the run drain. The first signal after that is still a first one: whoever sends it knows of no other."""
        self._by_program = True

    @contextlib.contextmanager
    def signals(self, log: Callable[[str], None]) -> Iterator[None]:
        """Handle the two signals inside the ``with``; outside the main thread nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self._by_signal:
                self.killed = True
            else:
                self._by_signal = True
                log(Routine(f"{signal.Signals(number).name}: draining; the same again stops at once"))

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
