"""Shows a run while it goes: a live display on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pythia_fast.cli.figures import RateWindow, clock, in_flight, short
from pythia_fast.observer import SAMPLE_INTERVAL_S, Observer, ProcessSample, RunInfo, Snapshot
from pythia_fast.outlet import Outlet
from pythia_fast.report import RunReport

#: From this age on the oldest row in hand is shown.
SHOWN_AGE_S = 5.0
#: A line every so often where there is no terminal.
LINE_EVERY_S = 5.0
#: How long a display that closes waits for somebody to read the rest.
CLOSE_S = 1.0


class Display(Observer):
    """An observer that shows what it is told and can be closed when the run fails."""

    #: What a command has to add to the figures, asked for each time they are shown.
    note: Callable[[], str] | None = None

    def noted(self) -> str:
        """That, behind what separates it; empty where there is nothing."""
        text = self.note() if self.note is not None else ""
        return f"  {text}" if text else ""

    def started(self, info: RunInfo) -> None:
        """Nothing to show yet."""

    def sample(self, snapshot: Snapshot) -> None:
        """Nothing is shown."""

    def event(self, text: str) -> None:
        """Nothing is shown."""

    def finished(self, report: RunReport) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was. May be called twice."""


def make_display(*, quiet: bool = False, stream: TextIO | None = None) -> Display:
    """The display that fits ``stream`` (stderr by default)."""
    if quiet:
        return Display()
    outlet = Outlet(sys.stderr if stream is None else stream)
    console = Console(file=cast(TextIO, outlet))
    return LiveDisplay(console, outlet) if console.is_terminal else LineDisplay(outlet)


class LiveDisplay(Display):
    """Rows, rows/s, MB/s, batches in flight and the CPU of every process, drawn over and over in place."""

    def __init__(self, console: Console, outlet: Outlet | None = None) -> None:
        """``outlet``: what the console writes to, to be closed with the display."""
        self._console = console
        self._outlet = outlet
        self._rates = RateWindow()
        self._title = ""
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def started(self, info: RunInfo) -> None:
        self._title = info.app
        for handler in info.handlers:
            self._console.print(Text(_handler_line(handler.name, handler.source, handler.sink, handler.workers)))
        self._live.start()

    def sample(self, snapshot: Snapshot) -> None:
        self._rates.add(snapshot)
        self._live.update(self.render(snapshot), refresh=True)

    def event(self, text: str) -> None:
        self._console.print(Text(text, style="yellow"))

    def close(self) -> None:
        self._live.stop()
        if self._outlet is not None:
            self._outlet.close(CLOSE_S)

    def render(self, snapshot: Snapshot) -> RenderableType:
        """The whole display for one state."""
        parts: list[RenderableType] = [self._bar(snapshot), Text(_figures(snapshot, self._rates) + self.noted())]
        losses = _losses(snapshot)
        if losses:
            parts.append(Text(losses, style="magenta"))
        parts.append(_process_table(snapshot.processes))
        parts += [Text(f"waiting: {sentence}", style="yellow") for sentence in snapshot.trouble]
        return Group(*parts)

    def _bar(self, snapshot: Snapshot) -> Table:
        grid = Table.grid(padding=(0, 1))
        done, total = snapshot.progress or (0, None)
        bar = ProgressBar(total=total, completed=done, width=40, pulse=total is None, animation_time=snapshot.seconds)
        share = f"{done / total:4.0%}" if total else ""
        grid.add_row(Text(self._title, style="bold"), bar, share, clock(snapshot.seconds))
        return grid


class LineDisplay(Display):
    """One plain line every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO | Outlet, every_s: float = LINE_EVERY_S) -> None:
        self._stream = stream
        self._every_s = every_s
        self._next_s = every_s
        self._rates = RateWindow(span_s=every_s)
        self._trouble: list[str] = []

    def started(self, info: RunInfo) -> None:
        for handler in info.handlers:
            self._say(_handler_line(handler.name, handler.source, handler.sink, handler.workers))

    def sample(self, snapshot: Snapshot) -> None:
        self._rates.add(snapshot)
        for sentence in snapshot.trouble:
            if sentence not in self._trouble:
                self._say(f"waiting: {sentence}")
        self._trouble = snapshot.trouble
        if snapshot.seconds < self._next_s:
            return
        self._next_s = snapshot.seconds + self._every_s
        cpu = " ".join(f"{process.name} {process.cpu_percent:.0f} %" for process in snapshot.processes)
        done, total = snapshot.progress or (0, 0)
        share = f"{done / total:.0%}" if total else ""
        figures = _figures(snapshot, self._rates) + self.noted()
        parts = [clock(snapshot.seconds), share, figures, _losses(snapshot), cpu and f"CPU {cpu}"]
        self._say("  ".join(part for part in parts if part))

    def event(self, text: str) -> None:
        self._say(text)

    def _say(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        if isinstance(self._stream, Outlet):
            self._stream.close(CLOSE_S)


class Observers(Observer):
    """Several observers as one, told in turn."""

    def __init__(self, members: Sequence[Observer]) -> None:
        self._members = tuple(members)
        #: The pace of the one in the greatest hurry.
        self.sample_interval_s = min(getattr(member, "sample_interval_s", SAMPLE_INTERVAL_S) for member in members)

    def started(self, info: RunInfo) -> None:
        for member in self._members:
            member.started(info)

    def sample(self, snapshot: Snapshot) -> None:
        for member in self._members:
            member.sample(snapshot)

    def event(self, text: str) -> None:
        for member in self._members:
            member.event(text)

    def finished(self, report: RunReport) -> None:
        for member in self._members:
            member.finished(report)


class Recorder(Display):
    """Keeps every sample, for the plot."""

    def __init__(self, sample_interval_s: float = SAMPLE_INTERVAL_S) -> None:
        self.sample_interval_s = sample_interval_s
        self.samples: list[Snapshot] = []

    def sample(self, snapshot: Snapshot) -> None:
        self.samples.append(snapshot)


def _handler_line(name: str, source: str, sink: str, workers: int) -> str:
    to = f" → {sink}" if sink else ""
    return f"{name}: {source}{to}, {workers} worker{'' if workers == 1 else 's'}"


def _figures(snapshot: Snapshot, rates: RateWindow) -> str:
    return (
        f"{snapshot.rows:,} rows  {short(rates.rows_per_second)} rows/s  {rates.mb_per_second:,.0f} MB/s  "
        + in_flight(snapshot, "  ")
    )


def _losses(snapshot: Snapshot) -> str:
    counts = {
        "refused": snapshot.refused,
        "tombstones skipped": snapshot.tombstones_skipped,
        "rejected": snapshot.rejected,
        "dead-lettered": snapshot.dead_lettered,
        "retried": snapshot.retried,
        "crashes": snapshot.crashes,
        "aborted transactions": snapshot.transactions_aborted,
    }
    flow = [f"{handler} {state}" for handler, state, _ in snapshot.flow if state != "open"]
    several = len(snapshot.oldest_incomplete_s) > 1
    ages = [
        f"oldest row{f' of {handler}' if several else ''} {age_s:,.0f} s"
        for handler, age_s in snapshot.oldest_incomplete_s.items()
        if age_s >= SHOWN_AGE_S
    ]
    return "  ".join([*(f"{name} {count:,}" for name, count in counts.items() if count), *flow, *ages])


def _process_table(processes: Sequence[ProcessSample]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for process in processes:
        bar = ProgressBar(total=100, completed=min(process.cpu_percent, 100), width=20)
        grid.add_row(
            Text(process.name, style="cyan"),
            Text(f"pid {process.pid}", style="dim"),
            bar,
            Text(f"{process.cpu_percent:3.0f} % CPU", justify="right"),
            Text(f"{process.rss_mb:,.0f} MB", justify="right"),
        )
    return grid
