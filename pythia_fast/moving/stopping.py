"""A run that stops by itself after some time, as if it had been asked to."""

from __future__ import annotations

import os
import signal

from pythia_fast.observer import RunInfo, Snapshot
from pythia_fast.report import RunReport


class StopAfter:
    """Asks the run to stop and drain once it has gone on for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._asked = False

    def started(self, info: RunInfo) -> None:
        """The time counts from here."""

    def sample(self, snapshot: Snapshot) -> None:
        if snapshot.seconds >= self._seconds and not self._asked:
            self._asked = True  # a second signal would not let it drain
            os.kill(os.getpid(), signal.SIGTERM)

    def event(self, text: str) -> None:
        """Nothing is done."""

    def finished(self, report: RunReport) -> None:
        """Nothing is done."""
