"""What run, replay and demo share: one run of an App, shown while it goes and told at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from pythia_fast.cli.exit_codes import ExitCode, code_of_report

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.observer import Observer
    from pythia_fast.report import RunReport


def workers_value(text: str) -> str:
    """Check a value of ``--workers``: a number from 1, or auto."""
    if text != "auto" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise typer.BadParameter(f"{text!r} is neither 'auto' nor a number of processes from 1")
    return text


def workers_of(text: str) -> int | Literal["auto"]:
    """The value of ``--workers``, checked before, as App.run takes it."""
    return "auto" if text == "auto" else int(text)


def seconds_value(value: float | None) -> float | None:
    """Check a number of seconds: not negative."""
    if value is not None and not value >= 0:
        raise typer.BadParameter(f"{value} is not a number of seconds from 0")
    return value


def report_value(path: Path | None) -> Path | None:
    """Check a value of ``--report`` before hours of work go into it."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise typer.BadParameter(f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}")
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
) -> tuple[ExitCode, RunReport]:
    """Run ``app`` with a display, print the summary, write the report."""
    from pythia_fast.cli.progress import Observers, make_display

    display = make_display(quiet=quiet)
    try:
        report = app.run(
            workers=workers,
            until=until,
            handlers=handlers,
            state_dir=state_dir,
            drain_timeout=drain_timeout,
            connect_timeout=connect_timeout,
            observer=Observers([display, *observers]),
        )
    finally:
        display.close()
    if report_path is not None:
        fresh = report_path.with_name(report_path.name + ".new")
        fresh.write_bytes(report.to_json())
        fresh.replace(report_path)
    if not quiet:
        print_summary(report)
    return code_of_report(report), report


def print_summary(report: RunReport) -> None:
    """Print the table of figures on stdout."""
    from rich.console import Console

    from pythia_fast.cli.summary import summary_table

    Console(file=sys.stdout).print(summary_table(report))
