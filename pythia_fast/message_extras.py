"""What goes with payloads that a user gives by hand: keys, headers and timestamps, checked one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pythia_fast import options
from pythia_fast.brokers.framing import encode_headers

MAX_TIMESTAMP_MS = 2**63 - 1
_HEADERS = "a dict of str to bytes or None, or None"


def key_bytes(where: str, keys: Iterable[object]) -> list[bytes | None]:
    """One key a payload. Raises ConfigError naming the one that is none."""
    checked: list[bytes | None] = []
    for index, key in enumerate(keys):
        if key is not None and not isinstance(key, bytes):
            raise options.refusal(where, f"keys[{index}]", key, "bytes or None")
        checked.append(None if key is None else exact_bytes(key))
    return checked


def exact_bytes(value: bytes) -> bytes:
    """What bytes of a subclass, as NumPy's, hold, whatever their own methods say: compiled code takes no subclass."""
    return b"".join((value,))


def header_bytes(where: str, headers: Iterable[object]) -> list[bytes]:
    """One payload's headers each, as the arena has them. Raises ConfigError naming those that are none."""
    return [_encoded(where, f"headers[{index}]", each) for index, each in enumerate(headers)]


def timestamps_ms(where: str, timestamps: Iterable[object]) -> list[int]:
    """One timestamp a payload, -1 for none. Raises ConfigError naming the one that is none."""
    return [
        options.whole(where, f"timestamps[{index}]", each, -1, MAX_TIMESTAMP_MS, "milliseconds")
        for index, each in enumerate(timestamps)
    ]


def _encoded(where: str, option: str, headers: object) -> bytes:
    if headers is None:
        return b""
    if not isinstance(headers, Mapping):
        raise options.refusal(where, option, headers, _HEADERS)
    for name, value in headers.items():
        if not isinstance(name, str) or not (value is None or isinstance(value, bytes)):
            raise options.refusal(where, option, headers, _HEADERS)
    try:
        return encode_headers(headers.items())
    except ValueError as error:
        raise options.refusal(where, option, headers, f"{_HEADERS} ({error})") from None
