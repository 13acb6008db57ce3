"""``dlq``: look at dead letters, send their messages again, or drop them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pythia_fast.cli.dlq_selection import Selection, selecting
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.telling import tell
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.dlq.store import DeadLetterStore, Entry, Place
    from pythia_fast.dlq.work import Outcome

AsJson = Annotated[bool, typer.Option("--json", help="for machines")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="at most N letters; default: all")]
DryRunOnly = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")]
NoArchive = Annotated[bool, typer.Option("--no-archive", help="do not keep letters taken out of FILE in FILE.done")]

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Look at dead letters, send their messages again, or drop them.

    \b
    Examples:
      python -m pythia_fast dlq list --app orders:app
      python -m pythia_fast dlq show .pythia/orders/dead-letters/score.ndjson --limit 1
      python -m pythia_fast dlq requeue --kafka orders-dead --since 2h
    """,
)


@selecting
def list_letters(
    selection: Selection,
    by: Annotated[Literal["reason", "error"], typer.Option("--by", help="what letters are counted by")] = "reason",
    limit: Limit = None,
    json: AsJson = False,
) -> int:
    """Count dead letters by handler and reason.

    \b
    Examples:
      python -m pythia_fast dlq list .pythia/orders/dead-letters/score.ndjson
      python -m pythia_fast dlq list --app orders:app --handler score --since 2h
      python -m pythia_fast dlq list --kafka orders-dead --bootstrap-servers kafka:9092 --by error --json
      python -m pythia_fast dlq list --rabbitmq orders-dead --rabbitmq-url amqp://user:password@rabbitmq/%2F
    """
    from rich.console import Console

    from pythia_fast.cli.letter_view import group_table, groups_json
    from pythia_fast.dlq.groups import grouped

    groups = grouped((entry.stored for _, entry in _letters(selection, limit)), by)
    foreign = sum(store.foreign for store in selection.stores)
    if json:
        print(groups_json(groups, by, foreign))
        return ExitCode.DONE
    if groups:
        # In a pipe no line is folded, so that what reads it finds a row whole.
        width = None if sys.stdout.isatty() else 1000
        Console(file=sys.stdout, width=width).print(group_table(groups, by))
    else:
        print(f"no dead letters match in {selection.where}")
    _tell_foreign(selection.stores)
    return ExitCode.DONE


@selecting
def show(
    selection: Selection,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="at most N letters")] = 10,
    json: AsJson = False,
) -> int:
    """Show dead letters in full: message, position, reason, traceback.

    With --json each is one line, as a file of dead letters has it, with "requeued" and "place" added.

    \b
    Examples:
      python -m pythia_fast dlq show .pythia/orders/dead-letters/score.ndjson --limit 1
      python -m pythia_fast dlq show --app orders:app --error ValueError
      python -m pythia_fast dlq show --redis orders-dead --entry 1526919030474-0
      python -m pythia_fast dlq show --kafka orders-dead --topic orders --partition 3 --offset 41..43 --json
    """
    from pythia_fast.cli.letter_view import letter_json, letter_lines

    number = 0
    for number, (store, entry) in enumerate(_letters(selection, limit), 1):
        if json:
            print(letter_json(store, entry))
        else:
            print(*letter_lines(number, store, entry), "", sep="\n")
    if not number and not json:
        print(f"no dead letters match in {selection.where}")
    _tell_foreign(selection.stores)
    return ExitCode.DONE


@selecting
def requeue(
    selection: Selection,
    to_topic: Annotated[
        str | None, typer.Option("--to-topic", metavar="TOPIC", help="send all to this Kafka topic instead")
    ] = None,
    to_redis: Annotated[
        str | None, typer.Option("--to-redis", metavar="STREAM", help="send all to this Redis stream instead")
    ] = None,
    to_rabbitmq: Annotated[
        str | None, typer.Option("--to-rabbitmq", metavar="QUEUE", help="send all to this RabbitMQ queue instead")
    ] = None,
    to_file: Annotated[
        Path | None, typer.Option("--to-file", metavar="FILE", help="append the payloads to this file instead")
    ] = None,
    to_format: Annotated[
        Literal["ndjson", "msgpack-frames"], typer.Option("--to-format", help="of --to-file")
    ] = "ndjson",
    origin: Annotated[
        Literal["kafka", "redis", "rabbitmq"] | None,
        typer.Option("--origin", help="what they came from, where neither --app nor the letters tell"),
    ] = None,
    same_partition: Annotated[
        bool, typer.Option("--same-partition", help="the letter's own partition, not the one that the key chooses")
    ] = False,
    max_requeues: Annotated[
        int, typer.Option("--max-requeues", metavar="N", min=1, help="leave out what was sent again N times already")
    ] = 3,
    results: Annotated[
        bool, typer.Option("--results", help="send records that a sink refused; needs --to-topic or --to-file")
    ] = False,
    limit: Limit = None,
    no_archive: NoArchive = False,
    dry_run: DryRunOnly = False,
) -> int:
    """Send the messages of dead letters again, by default to the Kafka topic, Redis stream or queue each came from.

    A message keeps key, headers and payload, and gets a header pf-requeued: how often it was sent again. Headers named
    as ours (pf-reason, pf-topic and the like) are left out, also where they were the message's own. A letter
    counts as dealt with once its message is durable where it was sent, and never before: where the command is killed
    in between, a message may be sent twice, and none is lost.

    \b
    Examples:
      python -m pythia_fast dlq requeue --app orders:app --handler score --error TimeoutError
      python -m pythia_fast dlq requeue --kafka orders-dead --since 2h --dry-run
      python -m pythia_fast dlq requeue --redis orders-dead --redis-url redis://redis:6379/0 --limit 10
      python -m pythia_fast dlq requeue --rabbitmq orders-dead --to-rabbitmq orders-retry
      python -m pythia_fast dlq requeue dead.ndjson --to-topic orders-retry
      python -m pythia_fast dlq requeue dead.ndjson --to-file again.ndjson
    """
    from pythia_fast.cli.dlq_targets import Destination
    from pythia_fast.cli.letter_progress import letter_progress
    from pythia_fast.dlq import work
    from pythia_fast.dlq.target import DryRun

    destination = Destination(to_topic, to_redis, to_rabbitmq, to_file, to_format, same_partition, origin)
    if not destination.is_named and results:
        raise ConfigError("--results needs --to-topic or --to-file: the sink that refused them would do so again")
    outcome = work.Outcome()
    try:
        for store in selection.stores:
            left = None if limit is None else limit - outcome.sent.total() - outcome.refused.total()
            if left == 0:
                break
            terms = work.Terms(selection.chosen, max_requeues, results, left, archive=not no_archive)
            target = destination.open(selection, store)
            with letter_progress(store) as step, _closed([store]):
                work.requeue(store, DryRun(target) if dry_run else target, terms, outcome, step)
    finally:
        _tell(outcome, "would be sent" if dry_run else "sent")
    if not (outcome.sent or outcome.refused or outcome.left_out):
        print(f"no dead letters match in {selection.where}")
    _tell_foreign(selection.stores)
    return ExitCode.FAILED if outcome.refused or outcome.left_out else ExitCode.DONE


@selecting
def drop(
    selection: Selection,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    limit: Limit = None,
    no_archive: NoArchive = False,
    dry_run: DryRunOnly = False,
) -> int:
    """Deal with dead letters without sending their messages.

    Those of a Redis stream or a RabbitMQ queue are removed for good: show --json first gives lines to keep.

    \b
    Examples:
      python -m pythia_fast dlq drop dead.ndjson --reason implausible
      python -m pythia_fast dlq drop --kafka orders-dead --until 30d --yes
      python -m pythia_fast dlq drop --redis orders-dead --entry 1526919030474-0
      python -m pythia_fast dlq drop --app orders:app --handler score --dry-run
    """
    from pythia_fast.dlq.work import PART

    if not yes and not dry_run and not sys.stdin.isatty():
        raise ConfigError("drop asks before it does so, and there is no terminal to ask on: give --yes or --dry-run")
    with contextlib.ExitStack() as claimed, _closed(selection.stores):
        if not dry_run:
            for store in selection.stores:
                claimed.enter_context(store.claim())
        places: dict[DeadLetterStore, list[Place]] = {store: [] for store in selection.stores}
        count = dropped = 0
        try:
            for store, entry in _letters(selection, limit, close=False):
                count += 1
                some = places[store]
                some.append(entry.place)
                # What nobody is asked about need not be kept until all is read.
                if yes and not dry_run and store.settles_in_parts and len(some) >= PART:
                    store.settle(some, archive=not no_archive)
                    dropped += len(some)
                    some.clear()
        except BaseException:
            if dropped:
                print(f"{_letter_count(dropped)} of {selection.where} dropped", flush=True)
            raise
        _tell_foreign(selection.stores)
        if count == 0:
            print(f"no dead letters match in {selection.where}")
            return ExitCode.DONE
        if dry_run:
            print(f"{_letter_count(count)} of {selection.where} would be dropped")
            return ExitCode.DONE
        if not yes and not typer.confirm(f"drop {_letter_count(count)} of {selection.where}?", err=True):
            tell("nothing was dropped")
            return ExitCode.FAILED
        told = [line for store, some in places.items() for line in store.settle(some, archive=not no_archive)]
        print("\n".join([f"{_letter_count(count)} of {selection.where} dropped", *told]))
    return ExitCode.DONE


for _name, _command in (("list", list_letters), ("show", show), ("requeue", requeue), ("drop", drop)):
    commands.command(_name, no_args_is_help=True)(_command)


def _letters(selection: Selection, limit: int | None, *, close: bool = True) -> Iterator[tuple[DeadLetterStore, Entry]]:
    """The letters that are meant, of one store after the other."""
    return islice(_all_letters(selection, close), limit)


def _all_letters(selection: Selection, close: bool) -> Iterator[tuple[DeadLetterStore, Entry]]:
    from pythia_fast.cli.letter_progress import letter_progress
    from pythia_fast.dlq.work import chosen_entries

    for store in selection.stores:
        with letter_progress(store) as step, _closed([store] if close else []):
            for entry in chosen_entries(store, selection.chosen, step):
                yield store, entry


@contextlib.contextmanager
def _closed(stores: list[DeadLetterStore]) -> Iterator[None]:
    try:
        yield
    finally:
        for store in stores:
            store.close()


def _tell(outcome: Outcome, done: str) -> None:
    """What became of the letters: on stdout what was done, on stderr what was not."""
    for destination, count in outcome.sent.most_common():
        print(f"{_letter_count(count)} {done} to {destination}")
    for line in dict.fromkeys(outcome.told):
        print(line)
    for refusal, count in outcome.refused.most_common():
        tell(f"{_letter_count(count)} stay: refused by {refusal}")
    for why, count in outcome.left_out.most_common():
        tell(f"{_letter_count(count)} left out: {why}")


def _tell_foreign(stores: list[DeadLetterStore]) -> None:
    for store in stores:
        if sentence := store.describe_foreign():
            tell(sentence)


def _letter_count(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"
