"""Texts that can be shown: what cannot be encoded is spelled out, and what a terminal would obey."""

from __future__ import annotations

import re
from typing import Any

#: C0 and C1 but for tab and newline, which make a text what it is.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_controls(text: str) -> str:
    """The text with control characters spelled out: an exception or a message may quote any."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def printable(value: Any) -> Any:
    """A copy of strings, lists and dicts inside one another in which every string can be encoded: bytes of names that
    are no UTF-8 are lone surrogates in Python."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return value
