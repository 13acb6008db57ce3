"""Signals that come before the run handles them itself: while the command line or the app is imported, or the pool is
about to be made.

It is the first that the process imports, so that it imports little.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast.observer import RunInfo, Snapshot
    from pythia_fast.report import RunReport

STOPS = (signal.SIGINT, signal.SIGTERM)
#: Commands that make an EarlyStop. Others have drained nothing when they are stopped, and do not end as if they had.
COMMANDS = ("run", "record", "mirror")

_noted: list[int] = []  #: signals that have come before there was an EarlyStop


class StoppedBeforeStart(BaseException):
    """There is nothing to drain.

    No KeyboardInterrupt, for which Typer ends the process by itself; no Exception, which the user's module may catch.
    """


def note_signals(arguments: Sequence[str]) -> None:
    """Have a signal wait for the command's EarlyStop, if it makes one; a second one ends the process."""
    if arguments and arguments[0] in COMMANDS:
        for number in STOPS:
            signal.signal(number, _note)


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)
    for each in STOPS:
        signal.signal(each, signal.SIG_DFL)


class EarlyStop:
    """Has SIGINT and SIGTERM raise StoppedBeforeStart, also the one that has been noted.

    The exception may be lost, in a destructor or where the user's module catches everything. So it is raised again by
    ``check()``, and as an observer this asks the run to stop as soon as it has begun.
    """

    def __init__(self) -> None:
        self._number = 0
        for number in STOPS:
            signal.signal(number, self._on_signal)
        if _noted:
            self._on_signal(_noted.pop(), None)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        for each in STOPS:
            signal.signal(each, signal.SIG_DFL)  # a second one ends the process, whatever is being said by then
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
