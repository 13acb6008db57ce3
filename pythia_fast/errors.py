"""Every exception the package raises on purpose.

PythiaError
├── ConfigError (ValueError)      an option, schema or handler that cannot work; raised before anything runs
│   ├── UnknownOptionError        names the nearest right option
│   └── SchemaError               a field that cannot become a column
├── UnknownColumnError (KeyError) names the nearest right column
├── HandlerError                  the handler did what cannot work; where it raises this itself, on_error decides
│   ├── NoSinkError               it returned rows and has no sink: ends the run, whatever on_error says
│   └── ResultError               what it returned for a batch is no result: costs these rows, unless on_error="stop"
│       ├── OutputValueError      one row of what it returned cannot be sent on: costs that row
│       ├── PartlySentError       writing it failed when a part of it was sent on: costs these rows, without a retry
│       ├── MarkError (TypeError) what it gave to batch.reject or batch.retry names no rows
│       └── MarkIndexError (IndexError) the same of a mask of another length, and of rows that the batch has not
├── SourceError                   a source cannot go on
│   ├── UnknownTopicError         names the nearest topic that there is
│   └── UnknownGroupError         names the nearest consumer group that there is
├── SinkError                     a sink cannot go on
├── PoolError                     the pool cannot start or keep its processes
└── ExtensionError (ImportError)  a compiled module is missing or does not fit

``retriable`` says whether trying again can help: policy is data, not a chain of ``except``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

BATCH_IS_OVER = "this batch is over; copy what is to be kept while the handler runs"


class PythiaError(Exception):
    """Base of every exception of this package."""

    retriable = False


class ConfigError(PythiaError, ValueError):
    """An option, schema or handler that cannot work."""


class UnknownOptionError(ConfigError):
    """An option that does not exist."""

    def __init__(self, where: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        near = get_close_matches(name, list(known), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known options: {', '.join(sorted(known))}"
        super().__init__(f"{where} has no option {name!r}{hint}")


class SchemaError(ConfigError):
    """A field that cannot become a column."""


class UnknownColumnError(PythiaError, KeyError):
    """A column that the schema does not have."""

    def __str__(self) -> str:  # KeyError's own would quote the sentence
        return str(self.args[0])


class HandlerError(PythiaError):
    """The handler did something that cannot work, such as to use a batch that is over; what a run ends with for its
    handler's sake."""


class NoSinkError(HandlerError):
    """The handler returned rows, and has no sink."""


class ResultError(HandlerError):
    """What the handler returned is no table, or has not a row for each of the batch."""


class OutputValueError(ResultError):
    """One row of a result that cannot be sent on, while its neighbours can.

    Parameters:
        row: its index in the result.
        why: what is wrong with it.
        column: the column that the value stands in; None where the row is no set of columns, or too large as a whole.
    """

    def __init__(self, row: int, why: str, column: str | None = None) -> None:
        self.row = row
        self.why = why
        self.column = column
        super().__init__(f"{'' if column is None else f'column {column!r}, '}row {row}: {why}")


class PartlySentError(ResultError):
    """Writing a result failed after a part of it was sent on: its rows are not handled again, or that part would be
    sent twice."""


class MarkError(ResultError, TypeError):
    """What batch.reject or batch.retry got is neither a mask nor row indices, or a reason that is no text.

    It costs the rows of the call, as a wrong result: with fewer of them the same values may look like indices.
    """


class MarkIndexError(ResultError, IndexError):
    """What batch.reject or batch.retry got is a mask of another length than the batch, or an index out of its range.

    It costs the rows of the call, too: in some part of them it fits by chance, and names rows that were not meant.
    """


class RegistryError(PythiaError):
    """A schema registry does not answer, or with an error that may pass."""


class SourceError(PythiaError):
    """A source cannot go on."""


class UnknownTopicError(SourceError):
    """The broker has no topic of this name."""


class UnknownGroupError(SourceError):
    """The broker has no consumer group of this name."""


class SinkError(PythiaError):
    """A sink cannot go on."""


class PoolError(PythiaError):
    """The pool cannot start or keep its processes."""


class ExtensionError(PythiaError, ImportError):
    """A compiled module is missing or does not fit the running Python."""
