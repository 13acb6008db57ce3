"""Signals that come before the run handles them itself: while the app is imported, or the pool is about to be made."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast.observer import RunInfo, Snapshot
    from pythia_fast.report import RunReport


class StoppedBeforeStart(BaseException):
    """There is nothing to drain.

    No KeyboardInterrupt, for which Typer ends the process by itself; no Exception, which the user's module may catch.
    """


class EarlyStop:
    """Has SIGINT and SIGTERM raise StoppedBeforeStart.

    The exception may be lost, in a destructor or where the user's module catches everything. So it is raised again by
    ``check()``, and as an observer this asks the run to stop as soon as it has begun.
    """

    def __init__(self) -> None:
        self._number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._number = number
        self.check()

    def check(self) -> None:
        """Raise StoppedBeforeStart if a signal has come."""
        if self._number:
            raise StoppedBeforeStart(signal.Signals(self._number).name)

    def started(self, info: RunInfo) -> None:
        """The run handles signals by now."""
        if self._number:
            os.kill(os.getpid(), self._number)

    def sample(self, snapshot: Snapshot) -> None:
        """Nothing is done."""

    def event(self, text: str) -> None:
        """Nothing is done."""

    def finished(self, report: RunReport) -> None:
        """Nothing is done."""
