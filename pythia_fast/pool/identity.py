"""Is what a pool process has imported what the run began with? Both sides read the same bytes by columns of their own.

A new interpreter imports the app's file as it is then. Where a deploy has changed it meanwhile, or where the App's name
was given to another App, its handler would take the bits of one column for those of another, and results would be
committed. So the runtime sends what it runs, the new process compares it, and a difference ends the run.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.column_tree import ColumnSpec
    from pythia_fast.registration import Handler

#: Of all handlers together: what is told of their columns, so that a difference can be named. One packet holds it.
COLUMNS_BYTES = 30_000
#: Differences that a message names.
MOST_DIFFERENCES = 3


class AppChangedError(ConfigError):
    """The app that was imported anew is not the one that runs; no process of this run can be made any more."""


class AppIdentity(msgspec.Struct):
    """Which App it is."""

    name: str
    nth: int | None  #: among those of its name that a script has made; None: it was made in an imported module

    @classmethod
    def of(cls, app: App) -> AppIdentity:
        return cls(app.name, app.nth if app.in_script else None)

    def check(self, app: App) -> None:
        """Raise AppChangedError where this is another one. A loop that makes Apps leaves the last one's to its name."""
        if app.name != self.name:
            raise AppChangedError(f"the App there is {app.name!r} and not {self.name!r}")
        if self.nth is not None and app.nth != self.nth:
            raise AppChangedError(
                f"it makes several Apps named {self.name!r}, and the one that is left at the end is number "
                f"{app.nth + 1}, and not number {self.nth + 1}: a new interpreter can find only Apps that each keep a "
                "name of their own"
            )


class HandlerIdentity(msgspec.Struct):
    """What a handler is to both sides: how a batch is decoded, laid out and handed over.

    What its function does is not part of it; nor are the values of defaults, which an import may compute, nor where
    batches come from and results go, which the command line may have put in place of what the file says.
    """

    name: str
    means: dict[str, str]  #: what -> how it was spelt
    columns: list[tuple[str, str]]  #: (name, type); the first of them, as far as there was room
    n_columns: int
    schema: str  #: digest of all there is to know of the columns and keys

    @classmethod
    def of(cls, handler: Handler, columns_bytes: int = COLUMNS_BYTES) -> HandlerIdentity:
        columns = [_describe(column) for column in handler.decoding.schema.columns]
        return cls(handler.name, _means(handler), _first(columns, columns_bytes), len(columns), _digest(handler))

    def check(self, handler: Handler) -> None:
        """Raise AppChangedError, which names what differs, where this is another one."""
        if _digest(handler) != self.schema:
            differences = self._columns_changed([_describe(column) for column in handler.decoding.schema.columns])
            raise AppChangedError(f"the schema of handler {self.name!r} is another one: {differences}")
        means = _means(handler)
        changed = [f"{what} was {was}, is {means[what]}" for what, was in self.means.items() if means[what] != was]
        if changed:
            raise AppChangedError(f"handler {self.name!r} is another one: {'; '.join(changed)}")

    def _columns_changed(self, found: Sequence[tuple[str, str]]) -> str:
        was, now = dict(self.columns), dict(found)
        changed = [
            f"field {name!r} was {kind}, is {now[name]}" if name in now else f"field {name!r} is gone"
            for name, kind in self.columns
            if now.get(name) != kind
        ]
        if len(self.columns) == self.n_columns:
            changed += [f"field {name!r} is new" for name in now if name not in was]
        if changed:
            more = len(changed) - MOST_DIFFERENCES
            return "; ".join(changed[:MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        for (before, _), (after, _) in zip(self.columns, found, strict=False):
            if before != after:
                return f"its fields stand in another order, {after!r} where {before!r} was"
        if len(self.columns) < self.n_columns:
            return f"one of its {self.n_columns} columns"
        return "a key, a bound, or which keys may be missing or unknown"


def _describe(column: ColumnSpec) -> tuple[str, str]:
    return column.name, f"{column.type_name}{' or null' if column.optional else ''}"


def _first(columns: Sequence[tuple[str, str]], most_bytes: int) -> list[tuple[str, str]]:
    """As many as there is room for."""
    found = []
    for name, kind in columns:
        most_bytes -= len(name.encode()) + len(kind) + 8
        if most_bytes < 0:
            break
        found.append((name, kind))
    return found


def _means(handler: Handler) -> dict[str, str]:
    function = handler.function
    return {
        "decoder": handler.decoding.name,
        "tombstones": handler.decoding.tombstones,
        "its function": str(getattr(function, "__qualname__", type(function).__qualname__)),
        "its parameter": handler.adapter.view,
        "ordering": handler.ordering,
        "on_error": handler.on_error,
    }


def _digest(handler: Handler) -> str:
    """Of the descriptions that the decoder's plan is made from: plain values, which are spelt alike everywhere."""
    schema = handler.decoding.schema
    hashed = hashlib.sha256()
    if handler.decoding.name == "fixed":  # where each field stands in a payload, and in which byte order
        hashed.update(repr(schema.source).encode())
    for column in schema.columns:
        hashed.update(repr(column).encode())
    for struct in schema.structs:
        fields = tuple(dataclasses.replace(field, bits=0, data=b"") for field in struct.fields)
        hashed.update(repr(dataclasses.replace(struct, fields=fields)).encode())
    return hashed.hexdigest()
