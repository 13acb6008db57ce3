"""Texts that can be encoded: bytes of names that are no UTF-8, which Python keeps as lone surrogates, spelled out."""

from __future__ import annotations

from typing import Any


def printable(value: Any) -> Any:
    """A copy of strings, lists and dicts inside one another in which every string can be encoded."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return value
