"""In the runtime process: what it stands on fails, and comes back. On a thread of its own, begun while rows flow."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pythia_fast.drill import sockets
from pythia_fast.drill.settings import Acted, FileEnds, KafkaEnds, Settings

CUT_S, SLOW_S, FULL_S = 3.0, 5.0, 2.0
FELT_S = 10.0  #: that a disk stays full beyond that, until the run has told of it: rows may be few, the machine slow
LOOK_EVERY_S = 0.005
#: Room that is left on the full disk: the results' file ends in the middle of something.
LEFT_BYTES = 1000


class Outage:
    """Acts once so many rows are settled."""

    def __init__(self, settings: Settings, tell: Callable[[Acted], None]) -> None:
        self._settings = settings
        self._due = deque(settings.act_at)
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._felt = threading.Event()  #: the run has told that something does not go on

    def look(self, rows: int, *, troubled: bool) -> None:
        """So many rows are settled now; ``troubled``: the run waits for something."""
        if troubled:
            self._felt.set()
        if self._due and rows >= self._due[0] and (self._thread is None or not self._thread.is_alive()):
            self._due.popleft()
            for_good = self._settings.last_for_good and not self._due
            thread = threading.Thread(target=self._act, args=(for_good,), name="outage", daemon=True)
            thread.start()
            self._thread = thread  # now that it can be joined

    def close(self) -> None:
        """The run is over."""
        self._over.set()
        self._felt.set()
        if self._thread is not None:
            self._thread.join()

    def _act(self, for_good: bool) -> None:
        match self._settings.fault:
            case "disk-full":
                self._fill(for_good)
            case "broker-cut":
                self._cut()
            case _:
                self._slow_down()

    def _acted(self, *, restored: bool, connections: int = 0) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            self._tell(Acted(time.monotonic(), restored, connections))

    def _fill(self, for_good: bool) -> None:
        """No file of this process grows beyond the size that the results have now."""
        assert isinstance(self._settings.ends, FileEnds)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = Path(self._settings.ends.output).stat().st_size + LEFT_BYTES
        self._acted(restored=False)
        self._felt.clear()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        if for_good:
            return
        if not self._over.wait(FULL_S):
            self._felt.wait(FELT_S)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self._acted(restored=True)

    def _addresses(self) -> set[sockets.Address]:
        assert isinstance(self._settings.ends, KafkaEnds)
        ends = self._settings.ends
        return sockets.addresses_of([*ends.brokers, *ends.servers.split(",")])

    def _cut(self) -> None:
        addresses = self._addresses()
        self._acted(restored=False)
        count, until = 0, time.monotonic() + CUT_S
        while time.monotonic() < until and not self._over.wait(LOOK_EVERY_S):
            count += sockets.cut(addresses)
        self._acted(restored=True, connections=count)

    def _slow_down(self) -> None:
        slow = sockets.Slowdown(self._addresses(), self._settings.slow_bytes_per_s)
        self._acted(restored=False)
        until = time.monotonic() + SLOW_S
        while time.monotonic() < until:
            slow.catch()
            if self._over.wait(LOOK_EVERY_S):
                break
        slow.end()
        self._acted(restored=True, connections=slow.connections)
