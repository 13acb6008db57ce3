"""Every exception the package raises on purpose.

PythiaError
├── ConfigError (ValueError)      an option, schema or handler that cannot work; raised before anything runs
│   ├── UnknownOptionError        names the nearest right option
│   └── SchemaError               a field that cannot become a column
├── UnknownColumnError (KeyError) names the nearest right column
├── HandlerError                  the handler returned something that cannot be sent on
├── SourceError                   a source cannot go on
├── SinkError                     a sink cannot go on
├── PoolError                     the pool cannot start or keep its processes
└── ExtensionError (ImportError)  a compiled module is missing or does not fit

``retriable`` says whether trying again can help: policy is data, not a chain of ``except``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
    """The handler did something that cannot work: returned what cannot be sent on, used a batch that is over."""


class SourceError(PythiaError):
    """A source cannot go on."""


class SinkError(PythiaError):
    """A sink cannot go on."""


class PoolError(PythiaError):
    """The pool cannot start or keep its processes."""


class ExtensionError(PythiaError, ImportError):
    """A compiled module is missing or does not fit the running Python."""
