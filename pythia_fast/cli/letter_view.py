"""How dead letters are shown: counted in a table, one by one in full, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from pythia_fast.brokers.framing import Headers
from pythia_fast.dlq.groups import Group
from pythia_fast.dlq.original import headers_of, times_requeued
from pythia_fast.dlq.store import DeadLetterStore, Entry
from pythia_fast.runtime.dead_letter_form import StoredLetter
from pythia_fast.unreadable import UNREADABLE

SOURCES = 3  #: told of one topic's partitions, and of topics, before the rest is only counted


def group_table(groups: list[Group], by: str) -> Table:
    """A row a group, the largest first."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("letters", justify="right", no_wrap=True)
    table.add_column("handler", overflow="fold", min_width=8)
    table.add_column(by, overflow="fold")
    table.add_column("oldest, newest", no_wrap=True)  # one below the other: 80 columns have no room for both
    table.add_column("from", overflow="fold", min_width=12)
    for group in groups:
        times = "\n".join(printable(_second(time)) for time in (group.oldest, group.newest))
        handler, why, sources = (Text(printable(cell)) for cell in (group.handler, group.why, sources_text(group)))
        table.add_row(f"{group.count:,}", handler, why, Text(times), sources)
    return table


def sources_text(group: Group) -> str:
    """Topics with their partitions: ``orders 0, 1, 5``."""
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(group.sources):
        topics.setdefault(topic, []).append(partition)
    texts = []
    for topic, partitions in list(topics.items())[:SOURCES]:
        numbers = [str(partition) for partition in partitions if partition >= 0]
        shown = ", ".join(numbers[:SOURCES]) + (f" and {len(numbers) - SOURCES} more" if len(numbers) > SOURCES else "")
        texts.append(f"{topic} {shown}".strip())
    more = [f"{len(topics) - SOURCES} more"] if len(topics) > SOURCES else []
    return "; ".join([*texts, *more])


def groups_json(groups: list[Group], by: str, foreign: int) -> str:
    """All groups as one object."""
    value = {
        "letters": sum(group.count for group in groups),
        "not_dead_letters": foreign,
        "groups": [
            {
                "handler": group.handler,
                by: group.why,
                "letters": group.count,
                "oldest": group.oldest,
                "newest": group.newest,
                "sources": [
                    {"topic": topic, "partition": partition, "letters": count}
                    for (topic, partition), count in sorted(group.sources.items())
                ],
            }
            for group in groups
        ],
    }
    return msgspec.json.encode(value).decode()


def letter_json(store: DeadLetterStore, entry: Entry) -> str:
    """A letter as its file has it, with where it is and how often it was sent again."""
    value: dict[str, Any] = msgspec.to_builtins(entry.stored)
    value["requeued"] = times_requeued(headers_of(entry.stored))
    value["place"] = store.locate(entry.place)
    return msgspec.json.encode(value).decode()


def letter_lines(number: int, store: DeadLetterStore, entry: Entry) -> Iterator[str]:
    """A letter for a person, without a character that a terminal would obey."""
    stored, letter, headers = entry.stored, entry.stored.letter(), headers_of(entry.stored)
    yield printable(f"{number}. {stored.handler}: {stored.reason}")
    for label, text in _facts(store, entry, headers):
        yield f"   {label:<10} {printable(text)}"
    if letter.payload is None:
        yield "   payload    null"
    else:
        yield f"   payload    {len(letter.payload):,} bytes{'' if stored.payload is not None else ', in base64'}"
        yield from _indented(_payload_text(stored))
    if stored.traceback:
        yield "   traceback"
        yield from _indented(stored.traceback)


def _facts(store: DeadLetterStore, entry: Entry, headers: Headers) -> Iterator[tuple[str, str]]:
    stored = entry.stored
    came = [f"{stored.topic}"]
    if stored.offset >= 0:
        came += [f"partition {stored.partition}", f"offset {stored.offset}"]
    if stored.timestamp_ms >= 0:
        came.append(_time_of(stored.timestamp_ms))
    yield "from", ", ".join(came)
    times = "once" if stored.attempts == 1 else f"{stored.attempts} times"
    yield "given up", f"{stored.time} by app {stored.app}, tried {times}"
    if stored.error:
        yield "error", stored.error
    count = times_requeued(headers)
    if count:
        yield "requeued", "once" if count == 1 else f"{count} times"
    yield "now in", store.locate(entry.place)
    key = stored.key if stored.key_base64 is None else f"{stored.key_base64} (base64)"
    yield "key", "null" if key is None else key
    for name, value in headers:
        yield "header", f"{name}: {'null' if value is None else value.decode('utf-8', 'backslashreplace')}"


def _payload_text(stored: StoredLetter) -> str:
    if stored.payload is None:
        return stored.payload_base64 or ""
    try:
        return msgspec.json.format(stored.payload, indent=2)
    except UNREADABLE:
        return stored.payload


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"     {printable(line)}"


def printable(text: str) -> str:
    """The text with control characters spelled out: a message may hold any, a terminal obeys them."""
    return "".join(
        character if character.isprintable() or character == "\t" else repr(character)[1:-1] for character in text
    )


def _time_of(timestamp_ms: int) -> str:
    try:
        return (
            datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (ValueError, OverflowError):
        return f"{timestamp_ms} ms"


def _second(time: str) -> str:
    """A letter's time without its milliseconds."""
    return time[:19] + "Z" if time.endswith("Z") and len(time) > 20 else time
