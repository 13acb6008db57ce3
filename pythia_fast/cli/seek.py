"""``seek``: have an app's Kafka groups go on somewhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pythia_fast.cli.doctor import Timeout, handlers_of
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.target import load_app
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.brokers.kafka_positions import Aim, Key, Move

_PARTITION = re.compile(r"(?:([A-Za-z0-9._-]{1,249}):)?(\d{1,9})")
_SHIFT = re.compile(r"[+-]\d{1,18}")

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="the app whose consumer groups are meant")]
Handlers = Annotated[
    list[str] | None,
    typer.Option("--handler", metavar="NAME", help="this handler's group only; may be given again"),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="WHERE",
        help="earliest, latest, an offset, +N or -N messages from where it is, a time (2026-01-31T08:00Z), an age (2h)",
    ),
]
Partitions = Annotated[
    list[str] | None,
    typer.Option("--partition", metavar="[TOPIC:]N", help="this partition only; may be given again"),
]


def seek(
    target: Target,
    to: To,
    handler: Handlers = None,
    partition: Partitions = None,
    timeout: Timeout = 10.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be done, and do nothing")] = False,
) -> int:
    """Set where a handler's Kafka consumer group goes on, while none of its members runs.

    What lies between is read again, or left out. Every position is kept within what the partition holds.

    \b
    Examples:
      python -m pythia_fast seek orders:app --to earliest --dry-run
      python -m pythia_fast seek orders:app --to 2026-01-31T08:00:00Z
      python -m pythia_fast seek orders:app --to 2h --handler score
      python -m pythia_fast seek orders:app --to -1000 --partition orders:3
    """
    from pythia_fast.brokers.kafka import KafkaConsumer
    from pythia_fast.brokers.kafka_beginning import moment_text
    from pythia_fast.brokers.kafka_client import KafkaAccess
    from pythia_fast.brokers.kafka_cluster import KafkaCluster
    from pythia_fast.brokers.kafka_positions import plan, set_positions

    aim = aim_of(to)
    app = load_app(target)
    consumers = []
    for each in handlers_of(app, handler):
        if isinstance(each.source, KafkaConsumer):
            consumers.append((each.name, each.source))
        elif handler:
            raise ConfigError(f"handler {each.name!r} reads {each.source.describe()}: only Kafka's groups can be set")
    if not consumers:
        raise ConfigError(f"no handler of app {app.name!r} reads from Kafka: only Kafka's groups can be set")
    if aim.kind == "time":
        print(f"to the first messages from {moment_text(aim.value)} on")
    for name, source in consumers:
        cluster = KafkaCluster(KafkaAccess(source.connection_options(), timeout))
        group = source.group(app.name, name)
        moves = plan(cluster, group, source.topics, aim, partitions_of(partition or [], source.topics))
        if not dry_run:
            set_positions(cluster, group, moves)
        print("\n".join(lines(name, group, moves, dry_run=dry_run)))
    return ExitCode.DONE


def aim_of(text: str) -> Aim:
    """What was typed behind ``--to``. Raises ConfigError."""
    from pythia_fast.brokers.kafka_positions import MAX_OFFSET, Aim
    from pythia_fast.moments import parse_moment

    word = text.strip().lower()
    if word == "earliest":
        return Aim("earliest")
    if word == "latest":
        return Aim("latest")
    if _SHIFT.fullmatch(word):
        return Aim("shift", int(word))
    if word.isascii() and word.isdigit() and int(word[:20]) <= MAX_OFFSET:
        return Aim("offset", int(word))
    try:
        moment = parse_moment("--to", text, datetime.now(UTC))
    except ConfigError as error:
        raise ConfigError(
            f"{error}, or earliest, latest, an offset (1205), a number of messages (+100, -100)"
        ) from None
    return Aim("time", max(0, int(moment.timestamp() * 1000)))


def partitions_of(texts: Iterable[str], topics: tuple[str, ...]) -> dict[str, list[int]]:
    """Topic -> partitions that were typed. Raises ConfigError."""
    chosen: dict[str, list[int]] = {}
    for text in texts:
        found = _PARTITION.fullmatch(text)
        if found is None:
            raise ConfigError(f"--partition {text!r}: write a partition's number (3), or TOPIC:3")
        topic = found[1]
        if topic is None:
            if len(topics) != 1 or topics[0].startswith("^"):
                raise ConfigError(f"--partition {text!r}: of which topic? Write TOPIC:{found[2]}")
            topic = topics[0]
        elif not any(re.match(name, topic) if name.startswith("^") else name == topic for name in topics):
            raise ConfigError(f"--partition {text!r}: the handler reads {', '.join(topics)}")
        chosen.setdefault(topic, []).append(int(found[2]))
    return {topic: sorted(set(numbers)) for topic, numbers in chosen.items()}


def lines(handler: str, group: str, moves: list[Move], *, dry_run: bool) -> list[str]:
    """One line a partition, and what it comes to."""
    verb = "would go on" if dry_run else "goes on"
    told = [f"{handler}: group {group} {verb} at"]
    for move in moves:
        before = "no position" if move.before is None else f"{move.before:,}"
        told.append(f"  {_name((move.topic, move.partition))}  {before} -> {move.after:,}  {_meaning(move)}")
    again = sum(max(0, move.read_again) for move in moves)
    left_out = sum(max(0, -move.read_again) for move in moves)
    ahead = sum(move.end - move.after for move in moves)
    told.append(f"  {again:,} messages are read again, {left_out:,} are left out, {ahead:,} are ahead")
    return told


def _meaning(move: Move) -> str:
    if move.read_again > 0:
        return f"({move.read_again:,} read again)"
    if move.read_again < 0:
        return f"({-move.read_again:,} left out)"
    return "(as it was)" if move.before is not None else f"({move.end - move.after:,} ahead)"


def _name(key: Key) -> str:
    return f"{key[0]}[{key[1]}]"
