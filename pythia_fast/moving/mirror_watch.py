"""What goes on beside a mirror: how far it is behind, and the groups' positions moved every so often."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from pythia_fast.errors import PythiaError
from pythia_fast.moving.group_positions import GroupPositions
from pythia_fast.moving.mirror import MirrorSource
from pythia_fast.observer import RunInfo, Snapshot
from pythia_fast.report import RunReport

LOOK_S = 1.0


class MirrorWatch:
    """An observer with a thread of its own, since clusters are waited for."""

    def __init__(
        self, source: MirrorSource, positions: GroupPositions, every_s: float, tell: Callable[[str], None]
    ) -> None:
        self._source = source
        self._positions = positions
        self._every_s = every_s
        self._tell = tell
        self._told: dict[str, str] = {}
        self._behind = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror watch", daemon=True)

    def note(self) -> str:
        """How far the mirror is behind, as last looked at."""
        return self._behind

    def started(self, info: RunInfo) -> None:
        self._thread.start()

    def sample(self, snapshot: Snapshot) -> None:
        """Nothing is done."""

    def event(self, text: str) -> None:
        """Nothing is done."""

    def finished(self, report: RunReport) -> None:
        self.stop()

    def stop(self) -> None:
        """Return when the thread has ended. May be called twice, and before it was started."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        move_at = time.monotonic() + self._every_s
        while not self._stop.wait(LOOK_S):
            self._look()
            if time.monotonic() >= move_at:
                self._move()
                move_at = time.monotonic() + self._every_s

    def _look(self) -> None:
        reader = self._source.reader
        if reader is None:
            return
        with contextlib.suppress(RuntimeError):  # partitions came or went while they were walked through
            behind = reader.lag()
            late = sum(1 for messages in behind.values() if messages)
            self._behind = f"{sum(behind.values()):,} messages behind in {late} of {len(behind)} partitions"

    def _move(self) -> None:
        try:
            for moved in self._positions.move():
                if moved.why_not and self._told.get(moved.group) != moved.why_not:
                    self._tell(str(moved))
                self._told[moved.group] = moved.why_not
        except PythiaError as error:
            if self._told.get("") != str(error):
                self._tell(f"groups' positions could not be moved, which is tried again: {error}")
            self._told[""] = str(error)
