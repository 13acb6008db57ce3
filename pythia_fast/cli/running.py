"""What run, replay and demo share: one run of an App, shown while it goes and told at the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from pythia_fast.cli.exit_codes import ExitCode, code_of_report
from pythia_fast.cli.telling import release, show_last, shown_on, tell
from pythia_fast.options import MAX_SECONDS, MAX_WORKERS

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.observer import Observer
    from pythia_fast.report import RunReport


MAX_ROWS = 10_000_000_000  #: of a demo: 1.8 TB


def workers_value(text: str) -> str:
    """Check a value of ``--workers``: a number within bounds, or auto."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if text != "auto" and not 0 < number <= MAX_WORKERS:
        raise typer.BadParameter(f"{text!r} is neither 'auto' nor a number of processes from 1 to {MAX_WORKERS:,}")
    return text


def workers_of(text: str) -> int | Literal["auto"]:
    """The value of ``--workers``, checked before, as App.run takes it."""
    return "auto" if text == "auto" else int(text)


def seconds_value(text: str | float) -> float:
    """The number of seconds that was typed: not negative, and not without end."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_SECONDS:
        raise typer.BadParameter(f"{str(text)!r} is not a number of seconds from 0 to {MAX_SECONDS:,}")
    return value


def some_seconds_value(text: str | float) -> float:
    """The same where none at all would be no time for anything."""
    value = seconds_value(text)
    if not value:
        raise typer.BadParameter("it is 0; write a number of seconds above that")
    return value


def rows_value(text: str | int) -> int:
    """The number of rows that was typed."""
    digits = str(text)
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_ROWS)) else 0
    if not 0 < number <= MAX_ROWS:
        raise typer.BadParameter(f"{digits!r} is not a number of rows from 1 to {MAX_ROWS:,}")
    return number


def path_value(text: str) -> Path:
    """The path that was typed. Nothing would be the working folder, which nobody means by it."""
    if not text:
        raise typer.BadParameter("it is empty; write a path")
    return Path(text)


def report_value(path: Path | None) -> Path | None:
    """Check a value of ``--report``, by writing, before hours of work go into it."""
    if path is None:
        return None
    if os.path.isdir(path):
        raise typer.BadParameter(f"{path} is a folder")
    if not os.path.isdir(path.parent):
        raise typer.BadParameter(f"there is no folder {path.parent}")
    from pythia_fast.cli.whole_file import check_writable

    try:
        check_writable(path)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from None
    return path


def run_app(
    app: App,
    *,
    workers: int | Literal["auto"],
    until: Literal["end", "forever"],
    handlers: list[str] | None = None,
    state_dir: Path | None = None,
    drain_timeout: float = 30.0,
    connect_timeout: float | None = None,
    report_path: Path | None = None,
    quiet: bool = False,
    observers: Sequence[Observer] = (),
    note: Callable[[], str] | None = None,
) -> tuple[ExitCode, RunReport]:
    """Run ``app`` with a display, write the report, also that of a run that fails, and print the summary.

    ``note``: what is to be shown beside the figures.
    """
    from pythia_fast.cli.progress import Observers, make_display
    from pythia_fast.cli.report_file import ReportWriter
    from pythia_fast.handler_checks import check_report

    if report_path is not None:
        chosen = [each for name, each in app.handlers.items() if handlers is None or name in handlers]
        check_report(report_path, chosen, state_dir or Path(".pythia") / app.name)
    display = make_display(quiet=quiet)
    display.note = note
    writers = [ReportWriter(report_path)] if report_path is not None else []
    try:
        report = app.run(
            workers=workers,
            until=until,
            handlers=handlers,
            state_dir=state_dir,
            drain_timeout=drain_timeout,
            connect_timeout=connect_timeout,
            observer=Observers([display, *observers, *writers]),
        )
    finally:
        # A stop that comes now has nothing left to stop, and must not change the exit code.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        display.close()
    if not quiet:
        print_summary(report)
    elif lines := losses(report):
        tell("\n".join(lines))
    release(sys.stdout)  # what the app's module printed there is no part of the run
    for writer in writers:
        writer.check()
    return code_of_report(report), report


def losses(report: RunReport) -> list[str]:
    """What is told of a run however quiet it is to be: what could not be read, and where dead letters went."""
    from pythia_fast.cli.summary import dead_letter_lines

    lines = [line for handler in report.handlers for line in handler.unread]
    if report.dead_lettered:
        rows = "1 row" if report.dead_lettered == 1 else f"{report.dead_lettered:,} rows"
        lines += [f"{rows} went to the dead letters", *dead_letter_lines(report)]
    return lines


def print_summary(report: RunReport) -> None:
    """Print the tables of figures on stdout, and where the dead letters are."""
    from pythia_fast.cli.summary import dead_letter_lines, summary_tables

    console = shown_on(sys.stdout)
    with console.capture() as captured:
        for table in summary_tables(report):
            console.print(table)
    show_last(captured.get() + "".join(f"{line}\n" for line in dead_letter_lines(report)))
