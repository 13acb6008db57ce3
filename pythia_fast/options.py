"""Checks of options: what cannot work is refused at once, by a sentence that names option, value and what it takes.

    handler 'score': batch_size='many': a whole number of rows from 1 to 1,048,576
    └─ where ──────┘ └─ option=value ─┘ └─ takes ───────────────────────────────┘

Each check returns the value as plain Python: a NumPy integer is a whole number too, a bool is none.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Sized
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypeVar, cast

from pythia_fast.errors import ConfigError, UnknownOptionError

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])

#: Thirty years: a wait without end is None where there is one; inf and nan are no times that C can count down.
MAX_SECONDS = 1_000_000_000
MAX_WORKERS = 1024  #: pool processes
#: Names of options whose values nobody else may see. A URL may hold a password; in a broken one nobody knows where.
_SECRET = re.compile(r"password|passphrase|secret|token|jaas|private.key|key.pem|oauthbearer.config|url$")
_USER_IN_URL = re.compile(r"://\S*@")
NAME_BYTES = 80  #: of an app's or a handler's name: it stands, quoted, in names of files


def named_options(where: str) -> Callable[[AnyCallable], AnyCallable]:
    """Have a function refuse calls that do not fit its signature by ConfigError, a misspelt option with its nearest."""

    def decorate(function: AnyCallable) -> AnyCallable:
        signature = inspect.signature(function)
        names = [name for name in signature.parameters if name != "self"]
        # Where further options are taken by any name, the function itself knows which there are.
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())

        @functools.wraps(function)
        def checked(*arguments: Any, **options: Any) -> Any:
            for name in options:
                if name not in names and not takes_any:
                    raise UnknownOptionError(where, name, names)
            try:
                signature.bind(*arguments, **options)
            except TypeError as error:
                takes = f"it takes {', '.join(names)}" if names else "it takes no options"
                raise ConfigError(f"{where}: {error}; {takes}") from None
            return function(*arguments, **options)

        return cast(AnyCallable, checked)

    return decorate


def refusal(where: str, option: str, value: object, takes: str) -> ConfigError:
    """The error that says that ``option`` takes something else than ``value``."""
    return ConfigError(f"{where}: {option}={spell_of(option, value)}: {takes}")


def spell_of(option: str, value: object) -> str:
    """The value of an option as it was written, unless it may be a secret: errors are logged."""
    return f"<{type(value).__name__}, not shown>" if _SECRET.search(option) else spell(value)


def spell(value: object, longest: int = 80) -> str:
    """A value as it was written, on one line, cut where it is long, and without the user and password of a URL."""
    try:
        text = _USER_IN_URL.sub("://...@", " ".join(repr(value).split()))
    except Exception:  # the user's own __repr__
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or what there is."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(names) or 'none'}"


def choice(where: str, option: str, value: object, choices: Iterable[str]) -> str:
    """One of a few words."""
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise ConfigError(f"{where}: {option}={spell(value)}{nearest(str(value)[:80], names)}")
    return value


def whole(where: str, option: str, value: Any, low: int, high: int, unit: str, besides: str = "") -> int:
    """A whole number (of ``unit``) within bounds. ``besides``: what the option takes that is no number."""
    if _is(Integral, value) and low <= int(value) <= high:
        return int(value)
    raise refusal(where, option, value, f"a whole number{unit and ' of ' + unit} from {low:,} to {high:,}{besides}")


def seconds(where: str, option: str, value: Any, high: int = MAX_SECONDS) -> float:
    """A number of seconds from 0."""
    if _is(Real, value) and 0 <= value <= high:
        return float(value)
    raise refusal(where, option, value, f"seconds, from 0 to {high:,}")


def seconds_above_0(where: str, option: str, value: Any, otherwise: str) -> float:
    """A number of seconds that is not 0. ``otherwise``: what the option takes besides, for the message."""
    if _is(Real, value) and 0 < value <= MAX_SECONDS:
        return float(value)
    raise refusal(where, option, value, f"seconds, more than 0 and at most {MAX_SECONDS:,}, or {otherwise}")


def number(where: str, option: str, value: Any, low: float, high: float, takes: str) -> float:
    """A number within bounds, which need not be whole."""
    if _is(Real, value) and low <= value <= high:
        return float(value)
    raise refusal(where, option, value, takes)


def flag(where: str, option: str, value: object) -> bool:
    """True or False, and nothing that merely counts as one of them: "no" would be True."""
    if not isinstance(value, bool):
        raise refusal(where, option, value, "True or False")
    return value


def text(where: str, option: str, value: object, takes: str, longest: int = 1 << 20) -> str:
    """Characters, at least one and at most ``longest``, that can be written as UTF-8."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or "\0" in value or not _encodable(value):
        raise refusal(where, option, value, takes)
    return value


def name(where: str, option: str, value: object) -> str:
    """What can be (a part of) a file's name everywhere: of an app, of a handler."""
    if (
        isinstance(value, str)
        and all(character.isalnum() or character in "-_." for character in value)
        and any(character.isalnum() for character in value)
        and len(value.encode()) <= NAME_BYTES
    ):
        return value
    takes = f"letters, digits, '-', '_' and '.', a letter or digit among them, {NAME_BYTES} bytes at most"
    raise refusal(where, option, value, takes)


def path(where: str, option: str, value: object, takes: str = "a path, str or os.PathLike") -> str:
    """The name of a file or folder."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(found, str) or not found or "\0" in found:
        raise refusal(where, option, value, takes)
    try:
        os.fsencode(found)
    except UnicodeEncodeError:
        raise refusal(where, option, value, takes) from None
    return found


def items(where: str, option: str, value: object, takes: str) -> Iterable[Any]:
    """Something to go through that is no single text: one name or payload would be taken for its characters."""
    if isinstance(value, str | bytes | bytearray | memoryview) or not isinstance(value, Iterable):
        raise refusal(where, option, value, takes)
    return value


def one_each(where: str, option: str, value: object, count: int, what: str) -> None:
    """As many as there are of something else."""
    items(where, option, value, f"a sequence with one of them for each of {count} {what}")
    if not isinstance(value, Sized):
        raise refusal(where, option, value, f"a sequence with one of them for each of {count} {what}")
    if len(value) != count:
        raise ConfigError(f"{where}: {len(value)} {option} for {count} {what}")


def _is(number: type, value: object) -> bool:
    # The first two need no look at abstract classes, which costs more than all else that send() checks.
    return type(value) is int or (type(value) is float and number is Real) or _counts_as(number, value)


def _counts_as(number: type, value: object) -> bool:
    return isinstance(value, number) and not isinstance(value, bool)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
