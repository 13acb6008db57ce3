"""Watching a run: what the runtime tells, and the protocol of those who listen.

The runtime samples from its main thread, about five times a second, so an observer may take its time for drawing
without slowing a row. Everything here is a plain value: an observer may keep it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from typing import Literal, NamedTuple, Protocol

import msgspec

from pythia_fast import options
from pythia_fast.outlet import Outlet
from pythia_fast.report import Flow, RunReport


class ProcessSample(NamedTuple):
    """One process of the run, as last seen."""

    name: str  #: "runtime" (this process: intake and completion), "nursery", "worker 0", ...
    pid: int
    cpu_percent: float  #: of one core, since the sample before
    rss_mb: float  #: resident memory, shared pages counted in every process that maps them; 10**6 bytes


class FlowState(NamedTuple):
    """Whether one handler's source is read right now."""

    handler: str
    state: Flow
    circuit: Literal["", "closed", "open", "half-open"]  #: of its circuit breaker; empty where there is none


class HandlerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One handler as the run starts."""

    name: str
    source: str
    sink: str = ""
    workers: int = 0


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What runs."""

    app: str
    handlers: tuple[HandlerInfo, ...] = ()
    workers: int = 0  #: pool processes in all


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run at one moment. Counts are totals since the start."""

    seconds: float = 0.0  #: since the run started
    rows: int = 0
    bytes: int = 0
    batches: int = 0
    batches_in_flight: int = 0  #: published to the pool, not completed
    rows_waiting: int = 0  #: for their next attempt, as retry= asks for, or for the service behind breaker=
    refused: int = 0
    tombstones_skipped: int = 0  #: null payloads, with tombstones="skip"
    rejected: int = 0
    dead_lettered: int = 0
    retried: int = 0
    crashes: int = 0
    transactions_aborted: int = 0  #: undone; their rows are read again
    oldest_incomplete_s: dict[str, float] = {}  #: of each handler, the age of the oldest row taken in and not completed
    progress: tuple[int, int] | None = None  #: (done, total) over all bounded sources, in the sources' units
    processes: list[ProcessSample] = []
    flow: list[FlowState] = []  #: of each handler
    trouble: list[str] = []  #: what the run waits for right now, one sentence each


#: Seconds between two samples, unless the observer asks for another pace.
SAMPLE_INTERVAL_S = 0.2


class Observer(Protocol):
    """One who watches a run. ``event()`` may be called on any thread, the others on the main thread only.

    What is no trouble goes to ``routine_event(text)`` instead of ``event()``, where there is such a method.
    """

    def started(self, info: RunInfo) -> None:
        """The pool is up and the sources are about to be read."""

    def sample(self, snapshot: Snapshot) -> None:
        """The state now; called every ``sample_interval_s`` seconds, which is 0.2 where there is none."""

    def event(self, text: str) -> None:
        """Something worth a line: a process replaced, a rebalance, a broker that came back."""

    def finished(self, report: RunReport) -> None:
        """The run is over; after a failure, before the exception leaves ``App.run``."""


#: Lines that wait for a logger that is held up.
MOST_LINES = 1000
#: How long a run that ends waits for it.
LAST_LINES_S = 1.0


class LogObserver:
    """Who watches a run that nobody watches: what is worth a line goes to the logger ``pythia_fast``.

    A program that has not set up logging gets the lines on stderr. To hear nothing, give that logger a
    ``logging.NullHandler``. While the run goes, the logger is called on a thread of its own, which may wait for whoever
    reads what is logged; lines that find no room before it are counted.
    """

    sample_interval_s = 1.0

    def __init__(self) -> None:
        self._logger = logging.getLogger("pythia_fast")
        self._trouble: list[str] = []
        self._outlet: Outlet | None = None
        self._lines: queue.Queue[tuple[int, str] | None] | None = None  #: while a run goes
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def started(self, info: RunInfo) -> None:
        """The pool is up: from now on a thread harms nobody."""
        lines: queue.Queue[tuple[int, str] | None] = queue.Queue(MOST_LINES)
        thread = threading.Thread(target=self._log_lines, args=(lines,), name="log observer", daemon=True)
        thread.start()
        self._lines, self._thread = lines, thread  # now that it can be joined

    def sample(self, snapshot: Snapshot) -> None:
        """Tell what the run waits for, once as long as it lasts."""
        for sentence in snapshot.trouble:
            if sentence not in self._trouble:
                self._tell(logging.WARNING, f"waiting: {sentence}")
        self._trouble = snapshot.trouble

    def event(self, text: str) -> None:
        """Tell it to whoever listens to warnings."""
        self._tell(logging.WARNING, text)

    def routine_event(self, text: str) -> None:
        """Tell it to whoever wants to know everything."""
        self._tell(logging.INFO, text)

    def finished(self, report: RunReport) -> None:
        """The report is what ``App.run`` returns. What was not logged yet is waited for a moment."""
        lines, self._lines = self._lines, None
        if lines is not None and self._thread is not None:
            with contextlib.suppress(queue.Full):
                lines.put(None, timeout=LAST_LINES_S)
                self._thread.join(LAST_LINES_S)
        if self._outlet is not None:
            self._outlet.close(LAST_LINES_S)
            self._outlet = None

    def _tell(self, level: int, text: str) -> None:
        if not self._logger.hasHandlers():
            if self._outlet is None or self._outlet.stream is not sys.stderr:
                self._outlet = Outlet(sys.stderr)
            self._outlet.write(f"{text}\n")
            self._outlet.flush()
            return
        lines = self._lines
        if lines is None:
            self._logger.log(level, "%s", text)
            return
        try:
            lines.put_nowait((level, text))
        except queue.Full:
            self._dropped += 1

    def _log_lines(self, lines: queue.Queue[tuple[int, str] | None]) -> None:
        while (line := lines.get()) is not None:
            self._logger.log(line[0], "%s", line[1])
            if lines.empty() and self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._logger.log(logging.WARNING, "%s", f"{dropped:,} lines were left out, as logging was held up")


def check_observer(observer: object) -> None:
    """Raises ConfigError for what cannot watch a run, before the run."""
    if observer is None:
        return
    methods = ("started", "sample", "event", "finished")
    missing = [name for name in methods if not callable(getattr(observer, name, None))]
    if missing:
        raise options.refusal(
            "App.run", "observer", observer, f"an object with the methods {', '.join(methods)}; it has no {missing[0]}"
        )
    interval = getattr(observer, "sample_interval_s", SAMPLE_INTERVAL_S)
    options.seconds("App.run", "observer.sample_interval_s", interval, high=3600)
