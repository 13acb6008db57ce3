"""``replay``: the messages of a file through a handler, or to a broker, at a chosen pace."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythia_fast.cli.run import ConnectTimeout, DrainTimeout, Quiet, ReportPath, StateDir, Workers
from pythia_fast.cli.running import run_app, workers_of
from pythia_fast.cli.target import load_app
from pythia_fast.cli.telling import no_plain_file, tell
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.private import make_private_folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pythia_fast.app import App
    from pythia_fast.brokers.base import Source
    from pythia_fast.cli.dead_letters import LetterMessages
    from pythia_fast.cli.pace import Feeder, Pace, Replayed
    from pythia_fast.registration import Handler as Registered

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="what record wrote; or one JSON object a line; or dead letters")
]
Target = Annotated[str | None, typer.Option("--app", metavar="MODULE:APP", help="whose handler gets the messages")]
Sent = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="TARGET",
        help="send them there instead: kafka://HOST:PORT/TOPIC, redis://HOST:PORT/DB/STREAM, amqp://HOST:PORT/VHOST/QUEUE",
    ),
]
Handler = Annotated[str | None, typer.Option("--handler", metavar="NAME", help="which handler, if the app has several")]
Speed = Annotated[
    str,
    typer.Option(
        "--speed", metavar="SPEED", help="max; 2x: twice as fast as the messages' own times; 500/s: rows a second"
    ),
]
TimeField = Annotated[
    str | None,
    typer.Option(
        "--time-field",
        metavar="NAME",
        help="of JSON lines: the messages' own time, for --speed 2x; else it is looked for",
    ),
]
AsLetters = Annotated[
    bool | None,
    typer.Option(
        "--dead-letters/--no-dead-letters",
        help="FILE holds dead letters: send the messages in them; else FILE is looked at",
    ),
]
NoSink = Annotated[bool, typer.Option("--no-sink", help="drop what the handler returns")]


TOPIC_CHARACTERS = 1000  #: of a path, where it stands for a topic


def replay(
    file: File,
    app: Target = None,
    to: Sent = None,
    speed: Speed = "max",
    time_field: TimeField = None,
    handler: Handler = None,
    no_sink: NoSink = False,
    dead_letters: AsLetters = None,
    workers: Workers = "auto",
    report: ReportPath = None,
    state_dir: StateDir = None,
    drain_timeout: DrainTimeout = 30.0,
    connect_timeout: ConnectTimeout = None,
    quiet: Quiet = False,
) -> int:
    """Send the messages of a file through a handler, in place of its source, or to a broker.

    Nothing is committed anywhere. Results go to the handler's sink unless --no-sink is given; dead letters go
    where the handler sends them, by default to a folder of this replay under .pythia.

    What record wrote is told by its first record: each message comes with its payload, key, headers and time, and
    --speed 2x keeps half the distance that the recorded times have. With --to they are sent as they are; Kafka keeps
    their times too, and chooses the partition by the key. A file of dead letters is told by its first record as well:
    the messages in it are sent. --no-dead-letters sends its lines as they are.

    \b
    Examples:
      python -m pythia_fast replay orders.rec --app orders:app --speed 10x
      python -m pythia_fast replay orders.rec --to kafka://localhost:9092/orders-copy --speed 1x
      python -m pythia_fast replay orders.ndjson --app orders:app
      python -m pythia_fast replay orders.ndjson --speed 500/s --app orders:app --handler score --no-sink
      python -m pythia_fast replay .pythia/orders/dead-letters/score.ndjson --app orders:app
    """
    from pythia_fast.brokers.recording import begins_with_record
    from pythia_fast.cli.pace import FeederStart, parse_speed
    from pythia_fast.handler_checks import is_same_file

    if (app is None) == (to is None):
        raise ConfigError("give --app MODULE:APP, whose handler gets the messages, or --to TARGET: one of the two")
    if not os.path.isfile(file):
        raise ConfigError(no_file(file))
    if report is not None and is_same_file(report, file):
        raise ConfigError(f"the report would replace {file}, which is replayed: give it a file of its own")
    pace = parse_speed(speed)
    loaded, name = handled_by(app, handler, no_sink) if app is not None else sent_to(str(to), handler, no_sink)
    folder = state_dir or own_folder(Path(".pythia") / loaded.name)
    recorded = dead_letters is not True and begins_with_record(file)
    letters = None if recorded else letters_in(file, dead_letters)
    if recorded:
        source, feeder = recorded_source(file, pace, time_field), None
    else:
        source, feeder = paced_source(file, pace, time_field, letters)
    # Whoever replays asked for every one of these messages, of which he may know that most are bad.
    replayed = dataclasses.replace(loaded.handlers[name], source=source, dead_letter_limit=None, transactions=None)
    if recorded and pace.rows_per_second is not None:
        replayed = dataclasses.replace(replayed, rate_limit=pace.rows_per_second)
    loaded.handlers[name] = replayed
    if not quiet:
        tell(order_line(file, replayed, pace, recorded, letters))
    try:
        code, result = run_app(
            loaded,
            workers=workers_of(workers) if app is not None else 1,
            until="end",
            handlers=[name],
            state_dir=folder,
            drain_timeout=drain_timeout,
            connect_timeout=connect_timeout,
            report_path=report,
            quiet=quiet,
            observers=[FeederStart(feeder)] if feeder is not None else [],
        )
    finally:
        if feeder is not None:
            feeder.stop()
    if feeder is not None and feeder.failure is not None:
        raise SourceError(f"{file} could not be read to its end: {feeder.failure}")
    if letters is not None and letters.left_out and not quiet:
        tell(
            f"dead letters left out, because they hold results that a sink refused, not messages: {letters.left_out:,}",
        )
    if result.dead_lettered == 0 and state_dir is None:
        shutil.rmtree(folder, ignore_errors=True)  # nothing but the position in FILE
    elif result.dead_lettered and not quiet:
        tell(f"dead letters, unless the handler sends them elsewhere: {folder}")
    return code


def no_file(file: Path) -> str:
    """Why this cannot be replayed: it is no plain file, which could be read twice."""
    if str(file) == "-" or (os.path.exists(file) and not os.path.isdir(file)):
        return f"{no_plain_file(file)}; an app of its own reads a pipe, with source=FileConsumer('-')"
    return no_plain_file(file)


def handled_by(target: str, handler: str | None, no_sink: bool) -> tuple[App, str]:
    """The app, and the name of its handler that gets the messages."""
    from pythia_fast.cli.discard import Discard

    app = load_app(target)
    name = chosen_handler(app, handler)
    if no_sink and app.handlers[name].sink is not None:
        app.handlers[name] = dataclasses.replace(app.handlers[name], sink=Discard())
    return app, name


def sent_to(target: str, handler: str | None, no_sink: bool) -> tuple[App, str]:
    """The app that sends messages to an address, and the name of its handler."""
    from pythia_fast.moving import apps
    from pythia_fast.moving.places import sink_at

    for given, option in ((handler is not None, "--handler"), (no_sink, "--no-sink")):
        if given:
            raise ConfigError(f"{option} belongs to --app: with --to no handler of yours is called")
    sink = sink_at(target)
    app = apps.replay if sink.takes_places else apps.replay_plain
    (name,) = app.handlers
    apps.prepared(app, app.handlers[name].source, sink)
    return app, name


def order_line(file: Path, handler: Registered, pace: Pace, recorded: bool, letters: LetterMessages | None) -> str:
    """What the replay was ordered to do."""
    what = "recorded messages" if recorded else "messages in dead letters" if letters is not None else "lines"
    if handler.decoding.name == "verbatim":
        where = handler.sink.describe() if handler.sink is not None else ""
    else:
        where = f"handler {handler.name}"
    how = "as fast as they are taken"
    if pace.factor is not None:
        how = f"at {pace.factor:g} times the speed at which they came"
    elif pace.rows_per_second is not None:
        how = f"at {pace.rows_per_second:g} a second"
    if letters is not None:
        return f"{file} holds dead letters: sending the messages in them to {where}, {how}"
    return f"replaying {file}: {what} to {where}, {how}"


def recorded_source(file: Path, pace: Pace, time_field: str | None) -> Source:
    """The recording, which keeps to the pace by itself. Raises ConfigError where there are no times to keep to."""
    from pythia_fast.brokers.file import FileConsumer
    from pythia_fast.brokers.recording import first_time_ms

    if time_field is not None:
        raise ConfigError(f"--time-field is for JSON lines: {file} is a recording, whose messages have their own times")
    consumer = FileConsumer(path=str(file), consumer_group="replay", format="records")
    if pace.factor is not None:
        if first_time_ms(file) < 0:
            raise ConfigError(
                f"the first messages of {file} have no times, so there is no speed to keep: give --speed max or 500/s"
            )
        consumer.pace = pace.factor
    return consumer


def own_folder(parent: Path) -> Path:
    """A new folder that no other replay has, however soon it follows. Raises ConfigError."""
    try:
        make_private_folders(parent)
        return Path(tempfile.mkdtemp(prefix=f"replay-{datetime.now():%Y%m%d-%H%M%S}-", dir=parent))
    except OSError as error:
        raise ConfigError(
            f"cannot make a folder for this replay in {parent}: {error.strerror}; choose one with --state-dir"
        ) from None


def chosen_handler(app: App, name: str | None) -> str:
    """The handler to replay to: the one named, or the only one."""
    if name is not None:
        return app.handler(name).name
    if len(app.handlers) != 1:
        held = ", ".join(app.handlers) or "none"
        raise ConfigError(f"app {app.name!r} has several handlers or none: choose with --handler; there are: {held}")
    return next(iter(app.handlers))


def letters_in(file: Path, asked: bool | None) -> LetterMessages | None:
    """The messages in the file's dead letters, if it is to be read so; None: its lines are the messages.

    Raises SourceError for a file that cannot be read, or does not begin with a dead letter although it was ``asked``.
    """
    from pythia_fast.cli.dead_letters import LetterMessages
    from pythia_fast.runtime.dead_letter import holds_dead_letters

    try:
        if asked is False or not (asked or holds_dead_letters(file)):
            return None
        letters = LetterMessages(file)
        next(iter(letters), None)
    except OSError as error:
        raise SourceError(f"cannot read {file}: {error.strerror}") from None
    return letters


def paced_source(
    file: Path, pace: Pace, time_field: str | None, letters: LetterMessages | None
) -> tuple[Source, Feeder | None]:
    """Where the messages come from: the file itself, or memory that a feeder fills at the pace."""
    from pythia_fast.brokers.file import FileConsumer
    from pythia_fast.brokers.memory import MemoryConsumer
    from pythia_fast.cli.pace import Feeder, find_time_field, lines_of, payload_of, schedule

    if pace.unbounded and letters is None:
        return FileConsumer(path=str(file), consumer_group="replay"), None

    def messages() -> Iterator[Replayed]:
        return lines_of(file) if letters is None else iter(letters)

    field = ""
    if pace.factor is not None:
        first = next(messages(), None)
        field = find_time_field(payload_of(first), time_field) if first is not None else ""
    consumer = MemoryConsumer(keep_open=True, topic=str(file)[-TOPIC_CHARACTERS:])
    return consumer, Feeder(consumer, schedule(messages(), pace, field))
