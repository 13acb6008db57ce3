"""``record``: the messages of any source into a file, with keys, headers and times."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythia_fast.cli.early_stop import EarlyStop
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.run import ConnectTimeout, DrainTimeout, Quiet, ReportPath, StateDir
from pythia_fast.cli.running import path_value, rows_value, run_app, seconds_value
from pythia_fast.cli.target import load_app
from pythia_fast.cli.telling import show_last, tell
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.brokers.base import Source


def bytes_value(text: str | int) -> int:
    """The size of a message that was typed."""
    digits = str(text)
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0
    if not 0 < number <= MAX_BATCH_BYTES:
        raise typer.BadParameter(f"{digits!r} is not a number of bytes from 1 to {MAX_BATCH_BYTES:,}")
    return number


MAX_BATCH_BYTES = 1 << 30  #: as registration.py has it, which is not imported for --help

From = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="kafka://HOST:PORT/TOPIC, redis://HOST:PORT/DB/STREAM, amqp://HOST:PORT/VHOST/QUEUE, "
        "rabbitmq-stream://HOST:PORT/VHOST/STREAM, file:PATH, or MODULE:APP",
    ),
]
To = Annotated[Path, typer.Argument(metavar="FILE", parser=path_value, help="what is recorded is appended to it")]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="stop at the end of the source as it is at the start")]
MaxMessages = Annotated[
    int | None, typer.Option("--max-messages", metavar="N", parser=rows_value, help="stop after N messages")
]
Duration = Annotated[
    float | None, typer.Option("--duration", metavar="S", parser=seconds_value, help="stop after S seconds")
]
MaxMessageBytes = Annotated[
    int | None,
    typer.Option(
        "--max-message-bytes", metavar="N", parser=bytes_value, help="largest message that is moved; default 16 MiB"
    ),
]


def record(
    source: From,
    file: To,
    handler: Annotated[
        str | None, typer.Option("--handler", metavar="NAME", help="whose source, if MODULE:APP has several")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", metavar="NAME", help="consumer group to read as; default: record- and the file's name"),
    ] = None,
    until_end: UntilEnd = False,
    max_messages: MaxMessages = None,
    duration: Duration = None,
    max_message_bytes: MaxMessageBytes = None,
    report: ReportPath = None,
    state_dir: StateDir = None,
    drain_timeout: DrainTimeout = 30.0,
    connect_timeout: ConnectTimeout = None,
    quiet: Quiet = False,
) -> int:
    """Write the messages of a source into a file: payload, key, headers, time, topic, partition and offset of each.

    It is read with replay, or by FileConsumer(path=FILE, format="records"). Positions are committed once their messages
    are on the disk, so a recording that was killed goes on where it stopped when the same command is given again. The
    group is the recording's own: an app that reads the source gets its messages all the same. Only a RabbitMQ queue has
    no groups, and what is recorded from it is taken out of it.

    \b
    Examples:
      python -m pythia_fast record kafka://localhost:9092/orders orders.rec --until-end
      python -m pythia_fast record orders:app orders.rec --handler score --max-messages 100000
      python -m pythia_fast record 'redis://localhost:6379/0/orders?start=$' orders.rec --duration 60
      python -m pythia_fast record 'kafka:///^orders\\..*?auto.offset.reset=latest' orders.rec
    """
    from pythia_fast.brokers.file_sink import FileProducer
    from pythia_fast.moving import apps
    from pythia_fast.moving.limited import Limited
    from pythia_fast.moving.stopping import StopAfter

    early = EarlyStop()
    chosen = source_of(source, handler).as_group(group or f"record-{safe_name(file.name)}")
    early.check()
    held = check_target(file)
    if not quiet:
        for line in told_before(chosen, file, held):
            tell(line)
    app = apps.prepared(
        apps.record,
        chosen if max_messages is None else Limited(chosen, max_messages),
        FileProducer(file, format="records"),
        max_message_bytes=max_message_bytes or apps.MESSAGE_BYTES,
    )
    code, result = run_app(
        app,
        workers=1,
        until="end" if until_end else "forever",
        state_dir=state_dir or Path(".pythia") / f"record-{safe_name(file.name)}",
        drain_timeout=drain_timeout,
        connect_timeout=connect_timeout,
        report_path=report,
        quiet=quiet,
        observers=[early, *([StopAfter(duration)] if duration is not None else [])],
    )
    kept = result.rows - result.dead_lettered
    if not quiet:
        grown = file.stat().st_size - held if file.exists() else 0
        show_last(
            f"recorded {kept:,} messages of {chosen.describe()} in {file}, which grew by {grown:,} bytes\n",
        )
    if result.dead_lettered:
        tell(
            f"error: {result.dead_lettered:,} messages were not recorded (larger than --max-message-bytes, most "
            "likely): they are among the dead letters",
        )
        return ExitCode.FAILED if code == ExitCode.DONE else code
    return code


def source_of(text: str, handler: str | None) -> Source:
    """What SOURCE stands for. Raises ConfigError, AppImportError."""
    from pythia_fast.cli.replay import chosen_handler
    from pythia_fast.moving.places import is_address, source_at

    if is_address(text):
        if handler is not None:
            raise ConfigError(
                f"--handler chooses among the handlers of MODULE:APP, and {text.split(':')[0]}: is an address"
            )
        return source_at(text)
    app = load_app(text)
    return app.handlers[chosen_handler(app, handler)].source


def safe_name(name: str) -> str:
    """The name of a file as part of a group's or a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:60]


def check_target(file: Path) -> int:
    """Bytes that the file has already. Raises ConfigError where those are no recording, which nothing is put behind."""
    from pythia_fast.brokers.recording import begins_with_record

    if not os.path.exists(file):
        return 0
    if not os.path.isfile(file):
        raise ConfigError(f"{file} is no plain file: a recording is written to one")
    size = os.path.getsize(file)
    if size and not begins_with_record(file):
        raise ConfigError(f"{file} holds something else than a recording, which stays as it is: name another file")
    return size


def told_before(source: Source, file: Path, held: int) -> list[str]:
    """What one should know before it begins."""
    from pythia_fast.brokers.rabbitmq import RabbitMQConsumer

    lines = []
    if held:
        lines.append(f"{file} has {held:,} bytes already: what is recorded goes behind them")
    if isinstance(source, RabbitMQConsumer):
        lines.append(f"what is recorded is taken out of {source.describe()}: its other consumers do not get it")
    return lines
