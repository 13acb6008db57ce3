"""An observer for apps that send to themselves: the thread that sends starts once the pool is up."""

from __future__ import annotations

import sys
import threading

from pythia_fast.observer import RunInfo, Snapshot
from pythia_fast.report import RunReport


class StartSender:
    """``sender`` must not have been started."""

    def __init__(self, sender: threading.Thread) -> None:
        self._sender = sender

    def started(self, info: RunInfo) -> None:
        """The pool is up."""
        self._sender.start()

    def sample(self, snapshot: Snapshot) -> None:
        """Nothing is shown."""

    def event(self, text: str) -> None:
        """Told on stderr."""
        print(text, file=sys.stderr)

    def finished(self, report: RunReport) -> None:
        """The caller has the report."""
