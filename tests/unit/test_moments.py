"""pythia_fast.moments: times and ages as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from pythia_fast.errors import ConfigError
from pythia_fast.moments import parse_moment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
AT = datetime(2026, 1, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("30m ago", NOW - timedelta(minutes=30)),
        ("7D", NOW - timedelta(days=7)),
        ("90 s", NOW - timedelta(seconds=90)),
        ("2026-01-01T08:00:00Z", AT),
        ("2026-01-01T09:00+01:00", AT),
        ("2026-01-01", datetime(2026, 1, 1).astimezone()),
    ],
)
def test_times(text: str, time: datetime) -> None:
    assert parse_moment("--since", text, NOW) == time


@pytest.mark.parametrize("text", ["", "soon", "2w", "999999999d", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--until {text!r}: write a time")):
        parse_moment("--until", text, NOW)
