"""``run``: run the handlers of an App."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pythia_fast.cli.early_stop import EarlyStop
from pythia_fast.cli.running import (
    path_value,
    report_value,
    run_app,
    seconds_value,
    workers_of,
    workers_value,
)
from pythia_fast.cli.target import load_app

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="orders:app, shop.orders:app or orders.py:app")]
Workers = Annotated[
    str, typer.Option("--workers", metavar="N|auto", callback=workers_value, help="pool processes; auto: one a core")
]
Handlers = Annotated[
    list[str] | None, typer.Option("--handler", metavar="NAME", help="run this handler only; may be given again")
]
ReportPath = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.json",
        parser=path_value,
        callback=report_value,
        help="write the run's figures to this file",
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="DIR", parser=path_value, help="where checkpoints and dead letters are kept"),
]
DrainTimeout = Annotated[
    float,
    typer.Option("--drain-timeout", metavar="S", parser=seconds_value, help="seconds to finish work when stopped"),
]
ConnectTimeout = Annotated[
    float | None,
    typer.Option(
        "--connect-timeout", metavar="S", parser=seconds_value, help="give up a broker after S seconds; else never"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress and no summary: errors, and dead letters")]


def run(
    target: Target,
    workers: Workers = "auto",
    handler: Handlers = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="stop at the ends of the sources as they are at the start")
    ] = False,
    report: ReportPath = None,
    state_dir: StateDir = None,
    drain_timeout: DrainTimeout = 30.0,
    connect_timeout: ConnectTimeout = None,
    quiet: Quiet = False,
) -> int:
    """Run the handlers of an App until they are stopped.

    SIGINT and SIGTERM stop reading and finish what was read; a second one stops at once.

    \b
    Examples:
      python -m pythia_fast run orders:app --workers 8
      python -m pythia_fast run orders.py:app --until-end --report run.json
      python -m pythia_fast run shop.orders:app --handler score --handler archive
    """
    if handler and len(set(handler)) < len(handler):
        raise typer.BadParameter(f"--handler: {max(handler, key=handler.count)!r} is given more than once")
    early = EarlyStop()
    app = load_app(target)
    early.check()
    code, _ = run_app(
        app,
        workers=workers_of(workers),
        until="end" if until_end else "forever",
        handlers=handler or None,
        state_dir=state_dir,
        drain_timeout=drain_timeout,
        connect_timeout=connect_timeout,
        report_path=report,
        quiet=quiet,
        observers=[early],
    )
    return code
