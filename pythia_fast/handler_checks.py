"""What is wrong with the handlers of a run taken together, or with what they read and write: told before it begins."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_fast.brokers.group_share import GROUP_VARIABLE
from pythia_fast.errors import ConfigError
from pythia_fast.private import PRIVATE_MODE

if TYPE_CHECKING:
    from pythia_fast.registration import Handler


def check_handlers(app: str, handlers: Sequence[Handler]) -> None:
    """Raise ConfigError for handlers that cannot run, or not beside each other."""
    _check_checkpoints(app, handlers)
    _check_shares(app, handlers)
    _check_streams(handlers)
    _check_sinks(handlers)
    for handler in handlers:
        _check_feeding(handler)
        if why := handler.source.misread_by(handler.decoding):  # a source that was put in place of its own
            raise ConfigError(f"handler {handler.name!r}: {why}")


def _check_checkpoints(app: str, handlers: Sequence[Handler]) -> None:
    """Raise ConfigError where two handlers would keep their positions under one name in the state folder."""
    owners: dict[str, str] = {}
    for handler in handlers:
        group = handler.source.checkpoint_group(app, handler.name)
        if group is None:
            continue
        owner = owners.setdefault(group, handler.name)
        if owner != handler.name:
            raise ConfigError(
                f"handlers {owner!r} and {handler.name!r} both read files as consumer group {group!r}, whose "
                "positions can be those of one handler only; give each a consumer_group of its own, or none"
            )


def _check_shares(app: str, handlers: Sequence[Handler]) -> None:
    """Raise ConfigError where a broker would give each message to one of two handlers, whichever that is."""
    shares = [(each.name, share) for each in handlers if (share := each.source.share(app, each.name)) is not None]
    for (first, mine), (second, theirs) in combinations(shares, 2):
        if (name := mine.in_common(theirs)) is not None:
            by = mine.by_variable or theirs.by_variable
            whence = (
                f", which the environment variable {GROUP_VARIABLE} gives to every handler without one" if by else ""
            )
            raise ConfigError(
                f"handlers {first!r} and {second!r} both read {mine.kind} {name} as consumer group {mine.group!r}"
                f"{whence}: each message would reach one of them only; give each a consumer_group= of its own"
            )


def _check_streams(handlers: Sequence[Handler]) -> None:
    """Raise ConfigError where two handlers would tear the records of one stream apart."""
    owners: dict[Hashable, tuple[str, str]] = {}
    for handler in handlers:
        if (stream := handler.source.byte_stream()) is None:
            continue
        known_by, name = stream
        owner, first_name = owners.setdefault(known_by, (handler.name, name))
        if owner != handler.name:
            spelt = "" if name == first_name else f" (as {name})"
            raise ConfigError(
                f"handlers {owner!r} and {handler.name!r} both read {first_name}{spelt}: each byte would reach one of "
                "them only, and records would be torn apart; let one handler read it, or give each a file or a pipe of "
                "its own"
            )


def _check_sinks(handlers: Sequence[Handler]) -> None:
    """Raise ConfigError where results or dead letters would be written to one file from two sides."""
    owners: dict[str, tuple[str, str]] = {}
    for handler in handlers:
        for option, sink in (("sink", handler.sink), ("dead_letter", handler.dead_letter)):
            path = sink.file() if sink is not None else None
            if path is None:
                continue
            mine = f"the {option} of handler {handler.name!r}", os.fspath(path)
            owner = owners.setdefault(os.path.realpath(path), mine)
            if owner != mine:
                also = f" ({owner[1]} leads there, too)" if owner[1] != mine[1] else ""
                raise ConfigError(
                    f"{owner[0]} and {mine[0]} are both the file {path}{also}, which one of them can write: "
                    "give each a file of its own"
                )


def _check_feeding(handler: Handler) -> None:
    """Raise ConfigError where what a handler writes to a broker comes back to it. Of files its run knows more."""
    for option, sink in (("sink", handler.sink), ("dead_letter", handler.dead_letter)):
        if sink is not None and (place := handler.source.reads_what(sink)) is not None:
            raise ConfigError(
                f"handler {handler.name!r}: its {option} is {place}, which its source reads, so that it would feed "
                "itself without an end: give it another one"
            )


#: In the state folder.
KEPT_BY_RUNS = ("checkpoints", "dead-letters", "dlq", "spool", "spool.lock")


def check_report(report: Path, handlers: Iterable[Handler], state_dir: Path) -> None:
    """Raise ConfigError where the report would replace a file that the run reads or writes."""
    if report.exists() and not report.is_file():
        return  # a device or a pipe is written into, and loses nothing
    for own in KEPT_BY_RUNS:
        if Path(os.path.realpath(report)).is_relative_to(os.path.realpath(state_dir / own)):
            raise ConfigError(
                f"the report would replace what runs keep in {state_dir / own}: give it a file of its own"
            )
    handlers = list(handlers)
    for handler in handlers:
        for what, path in _files_of(handler, state_dir):
            if is_same_file(report, path):
                raise ConfigError(
                    f"the report would replace {path}, {what} of handler {handler.name!r}: give it a file of its own"
                )
    _check_that_none_reads(report, handlers)


def _check_that_none_reads(report: Path, handlers: Sequence[Handler]) -> None:
    """Raise ConfigError where the report would be a file that a glob of a source matches, which is not there yet."""
    try:
        os.close(os.open(report, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE))
    except OSError:
        return  # it is there, and has been compared; or it cannot be made, which is told when it is written
    try:
        for handler in handlers:
            if any(is_same_file(report, path) for path in handler.source.files()):
                raise ConfigError(
                    f"the report {report} would be read as rows by handler {handler.name!r}, whose source, "
                    f"{handler.source.describe()}, matches it: give it a name or a folder that no source matches"
                )
    finally:
        os.unlink(report)


def _files_of(handler: Handler, state_dir: Path) -> Iterator[tuple[str, str | Path]]:
    from pythia_fast.runtime.dead_letter import default_files

    yield from (("a source", path) for path in handler.source.files())
    for what, sink in (("the sink", handler.sink), ("the dead letters", handler.dead_letter)):
        if sink is not None and (path := sink.file()) is not None:
            yield what, path
    yield from (("the dead letters", letters) for letters in default_files(state_dir, handler.name))


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths name one file, or would once it is there."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
