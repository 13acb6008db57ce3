"""``mirror``: topics of one Kafka cluster into another, with everything that belongs to their messages."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythia_fast.cli.early_stop import EarlyStop
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.record import Duration, MaxMessageBytes, MaxMessages, safe_name
from pythia_fast.cli.run import ConnectTimeout, DrainTimeout, Quiet, ReportPath, StateDir, Workers
from pythia_fast.cli.running import run_app, seconds_value, workers_of
from pythia_fast.cli.telling import show_last, tell
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.brokers.kafka_client import KafkaAccess
    from pythia_fast.moving.group_positions import GroupPositions
    from pythia_fast.moving.mirror_topics import MirrorTopics
    from pythia_fast.moving.offset_table import OffsetTable

From = Annotated[str, typer.Option("--from", metavar="HOST:PORT,...", help="brokers of the source")]
To = Annotated[str, typer.Option("--to", metavar="HOST:PORT,...", help="brokers of the target")]
Topics = Annotated[
    list[str],
    typer.Option("--topics", metavar="NAMES", help="a name, or a regular expression of names; may be given again"),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--groups", metavar="NAMES", help="consumer groups whose positions are moved too; may be given again"),
]
FromOption = Annotated[
    list[str] | None,
    typer.Option("--from-option", metavar="NAME=VALUE", help="of librdkafka, for the source; may be given again"),
]
ToOption = Annotated[
    list[str] | None,
    typer.Option("--to-option", metavar="NAME=VALUE", help="of librdkafka, for the target; may be given again"),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="S", parser=seconds_value, help="give up a question to a broker after S seconds"),
]
GROUP = "pythia-fast-mirror"


def mirror(
    source: From,
    target: To,
    topics: Topics,
    groups: Groups = None,
    group: Annotated[
        str, typer.Option("--group", metavar="NAME", help="consumer group that the mirror reads as")
    ] = GROUP,
    to_prefix: Annotated[
        str, typer.Option("--to-prefix", metavar="TEXT", help="put before the names of topics in the target")
    ] = "",
    until_end: Annotated[
        bool, typer.Option("--until-end", help="stop at the ends of the topics as they are at the start")
    ] = False,
    max_messages: MaxMessages = None,
    duration: Duration = None,
    groups_every: Annotated[
        float,
        typer.Option(
            "--groups-every", metavar="S", parser=seconds_value, help="seconds between two moves of positions"
        ),
    ] = 10.0,
    from_option: FromOption = None,
    to_option: ToOption = None,
    timeout: Timeout = 30.0,
    workers: Workers = "auto",
    max_message_bytes: MaxMessageBytes = None,
    report: ReportPath = None,
    state_dir: StateDir = None,
    drain_timeout: DrainTimeout = 30.0,
    connect_timeout: ConnectTimeout = None,
    quiet: Quiet = False,
) -> int:
    """Copy topics from one Kafka cluster to another until it is stopped.

    A message keeps its key, payload (null, too), headers, time and partition, and a partition its order. Topics that
    lack in the target are made, with as many partitions and the same cleanup.policy. Positions are committed in the
    source once their messages are durable in the target: a mirror that is killed goes on without loss, and writes the
    last messages again. What the mirror's own group has committed, and with --groups other groups, is translated to
    the target's offsets and committed there, so that a consumer can move over and go on where it stood.

    \b
    Examples:
      python -m pythia_fast mirror --from old:9092 --to new:9092 --topics 'orders.*'
      python -m pythia_fast mirror --from old:9092 --to new:9092 --topics orders --groups 'shop-.*' --until-end
      python -m pythia_fast mirror --from eu:9092 --to us:9092 --topics orders --to-prefix eu. \\
          --from-option security.protocol=SASL_SSL --from-option sasl.mechanisms=PLAIN ...
    """
    from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer
    from pythia_fast.moving import apps
    from pythia_fast.moving.group_positions import GroupPositions, group_pattern
    from pythia_fast.moving.limited import Limited
    from pythia_fast.moving.mirror import MirrorSink, MirrorSource
    from pythia_fast.moving.mirror_topics import MirrorTopics, matching, patterns_of
    from pythia_fast.moving.mirror_watch import MirrorWatch
    from pythia_fast.moving.offset_table import OffsetTable
    from pythia_fast.moving.stopping import StopAfter

    early = EarlyStop()
    patterns = patterns_of(topics)
    others = [group_pattern(text) for text in groups or []]
    given_from, given_to = options_of("--from-option", from_option), options_of("--to-option", to_option)
    consumer = KafkaConsumer(
        topics=patterns,
        consumer_group=group,
        bootstrap_servers=source,
        options={"topic.blacklist": "^__", **given_from},
    )
    reaches = KafkaProducer("any", bootstrap_servers=target, options=given_to)  # names and values are checked
    there = access(reaches.connection_options(), timeout)
    mirrored = MirrorTopics(access(consumer.connection_options(), timeout), there, patterns, to_prefix)
    mirrored.check_clusters()
    folder = state_dir or Path(".pythia") / f"mirror-{safe_name(group)}"
    table = OffsetTable(folder / "offsets" / f"{safe_name(group)}.ndjson")
    with contextlib.ExitStack() as opened:
        opened.callback(table.close)
        mirrored.was_mirrored = lambda topic: table.knows(topic, 0)
        largest, smallest = prepare_topics(mirrored, topics, until_end=until_end, quiet=quiet)
        early.check()
        producer = KafkaProducer(
            "any",
            bootstrap_servers=target,
            # A topic says what is too large for it; what is not must not become so by being put into one batch.
            options={
                "message.max.bytes": "1000000000",
                "batch.size": str(min(1_000_000, smallest // 2)),
                "topic.metadata.refresh.interval.ms": "10000",
                **given_to,
            },
        )
        moving = MirrorSource(consumer, mirrored, table)
        positions = GroupPositions(
            access(consumer.connection_options(), timeout),
            there,
            table,
            prefix=to_prefix,
            own_group=group,
            patterns=others,
            is_mirrored=lambda topic: bool(matching(patterns, [topic])),
        )
        watch = MirrorWatch(moving, positions, groups_every, lambda line: None if quiet else tell(line))
        app = apps.prepared(
            apps.mirror,
            moving if max_messages is None else Limited(moving, max_messages),
            MirrorSink(producer, to_prefix, table),
            max_message_bytes=max_message_bytes or max(apps.MESSAGE_BYTES, largest),
        )
        opened.callback(watch.stop)
        code, result = run_app(
            app,
            workers=workers_of(workers),
            until="end" if until_end else "forever",
            state_dir=folder,
            drain_timeout=drain_timeout,
            connect_timeout=connect_timeout,
            report_path=report,
            quiet=quiet,
            observers=[early, watch, *([StopAfter(duration)] if duration is not None else [])],
            note=watch.note,
        )
        watch.stop()
        lines = [f"mirrored {result.rows - result.dead_lettered:,} messages from {source} to {target}"]
        lines += last_move(table, positions)
    if not quiet:
        show_last("".join(f"{line}\n" for line in lines))
    if result.dead_lettered:
        tell(
            f"error: {result.dead_lettered:,} messages are not in the target, but among the dead letters, with why",
        )
        return ExitCode.FAILED if code == ExitCode.DONE else code
    return code


def prepare_topics(mirrored: MirrorTopics, given: list[str], *, until_end: bool, quiet: bool) -> tuple[int, int]:
    """Have the topics that there are in the target: (largest message of the source, what every topic there takes).

    Raises ConfigError where nothing could be mirrored.
    """
    names = mirrored.names()
    if not names and until_end:
        raise ConfigError(
            f"no topic of the source is meant by --topics {' '.join(given)}: a regular expression matches whole names, "
            "as in --topics 'orders.*'"
        )
    made = mirrored.ensure(names)
    if not quiet:
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        tell(f"mirroring {shown or 'no topic yet: waiting for one'}")
        for line in made:
            tell(f"made {line}")
    sizes = mirrored.sizes(names)
    return sizes.source, sizes.target


def last_move(table: OffsetTable, positions: GroupPositions) -> list[str]:
    """Move the groups' positions once more, now that all is committed; what came of it."""
    from pythia_fast.errors import PythiaError

    try:
        table.save()
        return [str(moved) for moved in positions.move()]
    except (PythiaError, OSError) as error:
        return [f"groups' positions could not be moved to their last: {error}"]


def access(options: dict[str, str], timeout_s: float) -> KafkaAccess:
    """How questions are asked."""
    from pythia_fast.brokers.kafka_client import KafkaAccess

    if timeout_s == 0:
        raise ConfigError("--timeout 0 leaves a broker no time to answer")
    return KafkaAccess(options, timeout_s)


def options_of(option: str, given: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` each. Raises ConfigError."""
    values = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {text!r}: write NAME=VALUE, for example security.protocol=SASL_SSL")
        values[name] = value
    return values
