"""pythia_fast.options: what each check takes, what it refuses, and how it says so."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pythia_fast import options
from pythia_fast.errors import ConfigError, UnknownOptionError

REFUSED_BY_ALL: list[Any] = [None, b"", [], {}, object(), "", "\0", np.zeros(3), lambda: None]

CHECKS: dict[str, Any] = {
    "whole": lambda value: options.whole("here", "option", value, 1, 10, "rows"),
    "seconds": lambda value: options.seconds("here", "option", value),
    "flag": lambda value: options.flag("here", "option", value),
    "text": lambda value: options.text("here", "option", value, "some text", longest=5),
    "name": lambda value: options.name("here", "option", value),
    "path": lambda value: options.path("here", "option", value),
    "choice": lambda value: options.choice("here", "option", value, ("one", "two")),
}


def named(value: Any) -> str:
    """The name of a test: the same in every process, so without the addresses of objects."""
    return re.sub(r" at 0x\w+", "", repr(value))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", REFUSED_BY_ALL, ids=named)
def test_what_no_option_takes_is_refused_by_every_check(check: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^here: option="):
        CHECKS[check](value)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        *[("whole", value) for value in (0, 11, 1.0, True, np.True_, math.nan, "3", Decimal(3), 10**30)],
        *[("seconds", value) for value in (-1, -1e-9, math.nan, math.inf, 10**400, True, "1", Decimal(1), 1j)],
        *[("flag", value) for value in (0, 1, "yes", np.True_)],
        *[("text", value) for value in ("toolong", "\ud800", "a\0", 3, b"abc")],
        *[("name", value) for value in ("a/b", "a b", "..", "-", "x" * 81, "ü" * 41, 3)],
        *[("path", value) for value in ("a\0b", "\ud800", 3, b"a")],
        *[("choice", value) for value in ("three", 1, True)],
    ],
)
def test_refused(check: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^here: option="):
        CHECKS[check](value)


@pytest.mark.parametrize(
    ("check", "value", "taken"),
    [
        ("whole", 1, 1),
        ("whole", np.uint8(10), 10),
        ("seconds", 0, 0.0),
        ("seconds", np.float32(0.5), 0.5),
        ("seconds", options.MAX_SECONDS, 1e9),
        ("flag", True, True),
        ("text", "üüüüü", "üüüüü"),
        ("name", "Grüße-1.x_y", "Grüße-1.x_y"),
        ("path", Path("a/b"), "a/b"),
        ("path", "not utf-8: \udcff", "not utf-8: \udcff"),
        ("choice", "two", "two"),
    ],
)
def test_taken_as_plain_python(check: str, value: Any, taken: Any) -> None:
    found = CHECKS[check](value)
    assert (found, type(found)) == (taken, type(taken))


def test_a_refusal_names_option_value_and_what_it_takes() -> None:
    with pytest.raises(ConfigError) as caught:
        CHECKS["whole"]("many")
    assert str(caught.value) == "here: option='many': a whole number of rows from 1 to 10"


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 200, "'" + "x" * 76 + "..."),
        (np.arange(4).reshape(2, 2), "array([[0, 1], [2, 3]])"),
        (Unspeakable(), "<Unspeakable>"),
    ],
)
def test_values_are_spelt_on_one_short_line(value: Any, text: str) -> None:
    assert options.spell(value) == text


@options.named_options("paint")
def paint(wall: str, *, colour: str = "white") -> tuple[str, str]:
    """Paint it."""
    return wall, colour


def test_a_function_with_named_options_is_called_as_before() -> None:
    assert paint("north", colour="red") == ("north", "red")
    assert paint.__doc__ == "Paint it."


def test_a_call_that_does_not_fit_is_refused() -> None:
    wrong: Any = paint
    with pytest.raises(UnknownOptionError, match="paint has no option 'color'; did you mean 'colour'"):
        wrong("north", color="red")
    with pytest.raises(ConfigError, match="paint: missing a required argument: 'wall'; it takes wall, colour"):
        wrong()
    with pytest.raises(ConfigError, match="paint: too many positional arguments"):
        wrong("north", "red")


def test_an_error_inside_of_the_function_is_its_own() -> None:
    @options.named_options("broken")
    def broken() -> None:
        raise TypeError("its own")

    with pytest.raises(TypeError, match="its own"):
        broken()


@pytest.mark.parametrize("value", ["abc", b"abc", bytearray(b"a"), memoryview(b"a"), 3, None])
def test_one_value_is_no_sequence_of_values(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"here: names=.*: a list"):
        options.items("here", "names", value, "a list")


def test_one_each_counts() -> None:
    options.one_each("here", "keys", [1, 2], 2, "payloads")
    for value, message in (([1], "1 keys for 2 payloads"), (iter([1, 2]), "keys=<list_iterator"), ("ab", "keys='ab'")):
        with pytest.raises(ConfigError, match=message):
            options.one_each("here", "keys", value, 2, "payloads")
