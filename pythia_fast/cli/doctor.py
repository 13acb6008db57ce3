"""``doctor``: what each broker guarantees, and whether an app's connections, permissions and settings fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.run import StateDir, Workers
from pythia_fast.cli.running import seconds_value, workers_of
from pythia_fast.cli.target import load_app
from pythia_fast.errors import ConfigError
from pythia_fast.printable import printable

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.registration import Handler

LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 0.5, 3600.0


def timeout_value(text: str | float) -> float:
    """The seconds that were typed: enough for an answer, and not without end."""
    value = seconds_value(text)
    if not LEAST_TIMEOUT_S <= value <= MOST_TIMEOUT_S:
        raise typer.BadParameter(
            f"{str(text)!r} is not a number of seconds from {LEAST_TIMEOUT_S} to {MOST_TIMEOUT_S:,.0f}"
        )
    return value


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:APP", help="whose sources and sinks are examined; without it: the table", show_default=False
    ),
]
Handlers = Annotated[
    list[str] | None,
    typer.Option("--handler", metavar="NAME", help="examine this handler only; may be given again"),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="S", parser=timeout_value, help="seconds that each server has for all answers"),
]


def doctor(
    target: Target = None,
    handler: Handlers = None,
    workers: Workers = "auto",
    state_dir: StateDir = None,
    timeout: Timeout = 10.0,
    json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="the table as docs/brokers.md has it")] = False,
) -> int:
    """Print what each broker guarantees; with MODULE:APP examine its brokers. Exit code 1 when there is a problem.

    Each source, sink and dead-letter sink is looked at: can it be reached, does the user get in, may he read and write,
    is what is named there, do its settings fit the handler. Nothing is read, made or changed, and no group is joined.

    \b
    Examples:
      python -m pythia_fast doctor
      python -m pythia_fast doctor orders:app
      python -m pythia_fast doctor orders:app --handler score --workers 8 --json
    """
    if target is None:
        return table(handler, as_json=json, as_markdown=markdown)
    if markdown:
        raise typer.BadParameter("--markdown prints the table of all brokers: leave MODULE:APP out")
    from msgspec.json import encode

    from pythia_fast.doctor.examination import examine
    from pythia_fast.doctor.findings_text import counts_of, findings_data, findings_lines

    app = load_app(target)
    subjects = examine(
        app,
        handlers_of(app, handler),
        workers=workers_of(workers),
        state_dir=state_dir if state_dir is not None else Path(".pythia") / app.name,
        timeout_s=timeout,
    )
    if json:
        print(encode(printable(findings_data(app.name, subjects))).decode())
    else:
        print("\n".join(findings_lines(subjects)))
    return ExitCode.FAILED if counts_of(subjects)["problem"] else ExitCode.DONE


def handlers_of(app: App, names: list[str] | None) -> list[Handler]:
    """Those that are examined. Raises ConfigError."""
    if not app.handlers:
        raise ConfigError(f"app {app.name!r} has no handler; register one with @app.batch_handler(...)")
    return [app.handler(name) for name in dict.fromkeys(names or app.handlers)]


def table(handler: list[str] | None, *, as_json: bool, as_markdown: bool) -> int:
    """What each broker guarantees, in one of three forms."""
    from pythia_fast.brokers import guarantees

    if handler:
        raise typer.BadParameter("--handler names a handler of an app: give MODULE:APP before it")
    if as_json and as_markdown:
        raise typer.BadParameter("--json and --markdown exclude each other")
    if as_json:
        from msgspec.json import encode

        print(encode({"guarantees": guarantees.as_data()}).decode())
    else:
        print(
            guarantees.as_markdown() if as_markdown else guarantees.as_text(shutil.get_terminal_size((100, 24)).columns)
        )
    return ExitCode.DONE
