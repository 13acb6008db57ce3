"""``replay``: the messages of a file through a handler, at a chosen pace."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythia_fast.cli.run import DrainTimeout, Quiet, ReportPath, StateDir, Workers
from pythia_fast.cli.running import run_app, workers_of
from pythia_fast.cli.target import load_app
from pythia_fast.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.brokers.base import Source
    from pythia_fast.cli.pace import Feeder, Pace

File = Annotated[Path, typer.Argument(metavar="FILE", help="messages, one JSON object a line")]
Target = Annotated[str, typer.Option("--app", metavar="MODULE:APP", help="whose handler gets the messages")]
Handler = Annotated[str | None, typer.Option("--handler", metavar="NAME", help="which handler, if the app has several")]
Speed = Annotated[
    str,
    typer.Option(
        "--speed", metavar="SPEED", help="max; 2x: twice as fast as the messages' own times; 500/s: rows a second"
    ),
]
TimeField = Annotated[
    str | None,
    typer.Option("--time-field", metavar="NAME", help="the messages' own time, for --speed 2x; else it is looked for"),
]
NoSink = Annotated[bool, typer.Option("--no-sink", help="drop what the handler returns")]


def replay(
    file: File,
    app: Target,
    speed: Speed = "max",
    time_field: TimeField = None,
    handler: Handler = None,
    no_sink: NoSink = False,
    workers: Workers = "auto",
    report: ReportPath = None,
    state_dir: StateDir = None,
    drain_timeout: DrainTimeout = 30.0,
    quiet: Quiet = False,
) -> int:
    """Send the messages of a file through a handler, in place of its source.

    Nothing is committed anywhere. Results go to the handler's sink unless --no-sink is given; dead letters go
    where the handler sends them, by default to a folder of this replay under .pythia.

    \b
    Examples:
      python -m pythia_fast replay orders.ndjson --app orders:app
      python -m pythia_fast replay orders.ndjson --speed 2x --app orders:app --no-sink
      python -m pythia_fast replay orders.ndjson --speed 500/s --app orders:app --handler score
    """
    from pythia_fast.cli.discard import Discard
    from pythia_fast.cli.pace import FeederStart, parse_speed

    if not os.path.isfile(file):
        raise ConfigError(f"there is no file {file}")
    pace = parse_speed(speed)
    loaded = load_app(app)
    name = chosen_handler(loaded, handler)
    folder = state_dir or Path(".pythia") / loaded.name / f"replay-{datetime.now():%Y%m%d-%H%M%S}"
    source, feeder = paced_source(file, pace, time_field)
    replayed = dataclasses.replace(loaded.handlers[name], source=source)
    if no_sink and replayed.sink is not None:
        replayed = dataclasses.replace(replayed, sink=Discard())
    loaded.handlers[name] = replayed
    try:
        code, result = run_app(
            loaded,
            workers=workers_of(workers),
            until="end",
            handlers=[name],
            state_dir=folder,
            drain_timeout=drain_timeout,
            report_path=report,
            quiet=quiet,
            observers=[FeederStart(feeder)] if feeder is not None else [],
        )
    finally:
        if feeder is not None:
            feeder.stop()
    if feeder is not None and feeder.failure is not None:
        raise SourceError(f"{file} could not be read to its end: {feeder.failure}")
    if result.dead_lettered == 0 and state_dir is None:
        shutil.rmtree(folder, ignore_errors=True)  # nothing but the position in FILE
    elif result.dead_lettered and not quiet:
        print(f"dead letters, unless the handler sends them elsewhere: {folder}", file=sys.stderr)
    return code


def chosen_handler(app: App, name: str | None) -> str:
    """The handler to replay to: the one named, or the only one."""
    if name is not None:
        return app.handler(name).name
    if len(app.handlers) != 1:
        held = ", ".join(app.handlers) or "none"
        raise ConfigError(f"app {app.name!r} has several handlers or none: choose with --handler; there are: {held}")
    return next(iter(app.handlers))


def paced_source(file: Path, pace: Pace, time_field: str | None) -> tuple[Source, Feeder | None]:
    """Where the messages come from: the file itself, or memory that a feeder fills at the pace."""
    from pythia_fast.brokers.file import FileConsumer
    from pythia_fast.brokers.memory import MemoryConsumer
    from pythia_fast.cli.pace import Feeder, find_time_field, lines_of, schedule

    if pace.unbounded:
        return FileConsumer(path=file, consumer_group="replay"), None
    field = ""
    if pace.factor is not None:
        first = next(lines_of(file), None)
        field = find_time_field(first, time_field) if first is not None else ""
    consumer = MemoryConsumer(keep_open=True, topic=str(file))
    return consumer, Feeder(consumer, schedule(lines_of(file), pace, field))
