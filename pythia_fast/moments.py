"""Moments in time as people write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from pythia_fast.errors import ConfigError

_AGO = re.compile(r"(\d{1,9})\s*([smhd])(?:\s+ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_moment(option: str, text: str, now: datetime) -> datetime:
    """``2h``, ``30m ago`` or an ISO 8601 time (local where it has no offset). Raises ConfigError."""
    ago = _AGO.fullmatch(text.strip().lower())
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option} {text!r}: write a time (2026-01-31T08:00, 2026-01-31T08:00:00Z) or an age (2h, 30m ago, 7d)"
        ) from None
