"""pythia_fast.error_text: whatever an exception is, it can be told, and in a bounded time."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pythia_fast.error_text import MOST_FRAMES, MOST_PARTS, reason_of, traceback_of, traceback_text, type_name

IN_SHORT = "(in short: more belongs to it than can be told)\n"


def told(error: BaseException) -> str:
    return traceback_text(error, traceback_of(error))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(2)


class Untouchable(Exception):
    def __getattribute__(self, name: str) -> object:
        raise SystemExit(9)


class Unnamed(type):
    @property
    def __name__(cls) -> str:
        raise OSError("no name")


class Nameless(Exception, metaclass=Unnamed):
    pass


class NoText(str):
    __slots__ = ()

    def __format__(self, spec: str) -> str:
        raise SystemExit(3)

    def encode(self, *_: object, **__: object) -> bytes:
        raise SystemExit(3)


class Loader:
    @staticmethod
    def get_source(name: str) -> str:
        raise SystemExit(4)


def test_an_ordinary_one_is_told_as_python_does() -> None:
    error = raised(ValueError("bad row"))
    error.__cause__ = raised(KeyError("amount"))
    assert reason_of(error) == "ValueError: bad row"
    assert "KeyError: 'amount'\n\nThe above exception was the direct cause" in told(error)
    assert told(error).endswith("ValueError: bad row\n")
    assert "(in short" not in told(error)


def test_of_fifty_thousand_causes_none_is_told_and_no_loader_is_asked() -> None:
    error: BaseException = ValueError(0)
    for n in range(1, 50_000):
        error, cause = ValueError(n), error
        error.__cause__ = cause
    error = raised(error)
    assert reason_of(error) == "ValueError: 49999"
    first, header, frame, last = told(error).splitlines()
    assert (first + "\n", header, last) == (IN_SHORT, "Traceback (most recent call last):", "ValueError: 49999")
    assert frame.endswith("in raised")


def test_a_chain_that_makes_itself_longer_has_an_end() -> None:
    class Endless(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            return Endless()

    assert told(Endless("on and on")) == f"{IN_SHORT}Endless: on and on\n"
    assert reason_of(Endless("on and on")) == "Endless: on and on"


def test_a_group_of_very_many_is_told_in_short_and_one_of_a_thousand_is_not() -> None:
    assert told(ExceptionGroup("all", [ValueError(n) for n in range(MOST_PARTS)])).startswith(IN_SHORT)
    thousand = told(ExceptionGroup("all", [ValueError(n) for n in range(1000)]))
    assert "ValueError: 14" in thousand
    assert "(in short" not in thousand


def test_of_very_many_frames_the_innermost_are_told() -> None:
    def descend(levels: int) -> None:
        if not levels:
            raise ValueError("deep")
        descend(levels - 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(3 * MOST_PARTS)
    try:
        with pytest.raises(ValueError, match="deep") as caught:
            descend(MOST_PARTS)
    finally:
        sys.setrecursionlimit(limit)
    lines = told(caught.value).splitlines()
    assert len(lines) == MOST_FRAMES + 3
    assert lines[-1] == "ValueError: deep"


def test_a_loader_that_raises_costs_the_source_lines_alone() -> None:
    code = compile("raise ValueError('l')", "no\udc80file.py", "exec")
    with pytest.raises(ValueError, match="l") as caught:
        exec(code, {"__loader__": Loader(), "__name__": "nowhere"})  # the frame it is to have
    text = told(caught.value)
    assert text.startswith("(in short: SystemExit was raised while the whole of it was put into words)\nTraceback ")
    assert text.endswith('  File "no\udc80file.py", line 1, in <module>\nValueError: l\n')
    assert reason_of(caught.value) == "ValueError: l"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Unspeakable(), "Unspeakable: <exception str() failed>"),
        (lambda: Untouchable("x"), "Untouchable: x"),
        (lambda: Nameless("x"), "Nameless: x"),
        (lambda: ValueError(NoText("x")), "ValueError: x"),
        (lambda: ValueError("a\ud800b"), "ValueError: a\\ud800b"),
        (lambda: ValueError(), "ValueError"),
    ],
)
def test_the_users_own_code_cannot_raise_out_of_it(make: Callable[[], BaseException], reason: str) -> None:
    error = raised(make())
    assert reason_of(error).endswith(reason)
    assert reason.partition(":")[0] in told(error).splitlines()[-1]
    assert type_name(error) == reason.partition(":")[0]
