"""Filters: what each asks for, how it is written, and what is refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from pythia_fast.dlq.filters import Filter, parse_offsets
from pythia_fast.errors import ConfigError
from pythia_fast.runtime.dead_letter_form import stored_letter
from tests.support.letters import letter

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BEFORE, AT, AFTER = (datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (7, 8, 9))


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ({"reason": "NO SEVENS"}, {"reason": "no sixes"}),
        ({"error": "ValueError"}, {"error": "ValueErrors"}),
        ({"handler": "score"}, {"handler": "scores"}),
        ({"topic": "orders"}, {"topic": "order"}),
        ({"partition": 3}, {"partition": 0}),
        ({"offsets": (42, 42)}, {"offsets": (43, None)}),
        ({"offsets": (0, 42)}, {"offsets": (0, 41)}),
        ({"key": "k"}, {"key": ""}),
        ({"since": AT}, {"since": AFTER}),
        ({"until": AT}, {"until": BEFORE}),
    ],
)
def test_every_filter_asks_for_its_own(asked: dict[str, Any], other: dict[str, Any]) -> None:
    stored = stored_letter(letter(), "shop", "score", "2026-01-01T08:00:00.000Z")
    assert Filter().matches(stored)
    assert Filter(**asked).matches(stored)
    assert not Filter(**other).matches(stored)
    assert not Filter(**asked, **{"topic": "x"} if "topic" not in asked else {"error": "x"}).matches(stored)


def test_a_binary_key_is_asked_for_by_base64_and_a_null_key_never_matches() -> None:
    assert Filter(key="/w==").matches(stored_letter(letter(key=b"\xff"), "a", "h", "t"))
    assert not Filter(key="").matches(stored_letter(letter(key=None), "a", "h", "t"))


def test_a_letter_without_a_time_that_can_be_read_is_in_no_span() -> None:
    assert not Filter(since=BEFORE).matches(stored_letter(letter(), "a", "h", "yesterday"))


@pytest.mark.parametrize(
    ("text", "offsets"), [("3..7", (3, 7)), ("3..", (3, None)), ("..7", (0, 7)), ("5", (5, 5)), ("5..5", (5, 5))]
)
def test_offsets(text: str, offsets: tuple[int, int | None]) -> None:
    assert parse_offsets(text) == offsets


@pytest.mark.parametrize("text", ["", "..", "a..b", "-3..4", "1...2", "9" * 30, "7..3"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--offset {text!r}: ")):
        parse_offsets(text)
