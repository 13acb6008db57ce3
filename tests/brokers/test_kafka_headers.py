"""The look at the bytes around a value (ext/kafka_headers.h) in every message format, without a broker."""

from __future__ import annotations

import struct

import pytest

from pythia_fast._ext.kafka_reader import surely_has_no_headers

#: Around every size at which the varint of twice the size, or a byte of the big-endian size, changes its form.
SIZES = sorted(
    {size for bits in range(26) for size in range((1 << bits) - 2, (1 << bits) + 3) if size > 0}
    | set(range(1, 9000, 7))
)
KEYS = [None, b"", b"k", b"\xff" * 9, b"\x00" * 9]


def zigzag(value: int) -> bytes:
    """A varint as records have them."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*encoded, rest])


def record(key: bytes | None, value: bytes, headers: list[tuple[bytes, bytes | None]]) -> tuple[bytes, int]:
    """(a record of format 2, where its value begins)."""
    front = b"\x00" + zigzag(3) + zigzag(7)
    front += zigzag(-1) if key is None else zigzag(len(key)) + key
    front += zigzag(len(value))
    behind = zigzag(len(headers))
    for name, content in headers:
        behind += zigzag(len(name)) + name + (zigzag(-1) if content is None else zigzag(len(content)) + content)
    length = zigzag(len(front) + len(value) + len(behind))
    return length + front + value + behind, len(length) + len(front)


def old_message(magic: int, key: bytes | None, size: int) -> tuple[bytes, int]:
    """(a message of format 0 or 1 up to its value, where that begins)."""
    front = b"\x00" * 12 + b"\xff" * 4 + bytes([magic, 0]) + (b"\x00" * 8 if magic else b"")
    front += struct.pack(">i", -1 if key is None else len(key)) + (key or b"")
    front += struct.pack(">i", size)
    return front, len(front)


@pytest.mark.parametrize("magic", [0, 1])
def test_nothing_is_told_of_the_old_formats(magic: int) -> None:
    """Whatever stands behind the value, a zero for instance: it belongs to another message, or to nobody."""
    zeros = bytes(SIZES[-1] + 1)
    for size in SIZES:
        for key in KEYS if size < 100_000 else KEYS[:1]:
            front, at = old_message(magic, key, size)
            assert not surely_has_no_headers(front + zeros[: size + 1], at, size), (size, key)


def test_a_record_without_headers_is_known() -> None:
    for size in SIZES:
        for key in KEYS if size < 100_000 else KEYS[:1]:
            whole, at = record(key, bytes(size), [])
            assert surely_has_no_headers(whole, at, size), (size, key)


@pytest.mark.parametrize(
    "headers", [[(b"", None)], [(b"a", b"1")], [(b"h", b"")] * 64, [(b"h", None)] * 130], ids=["1", "1b", "64", "130"]
)
def test_a_record_with_headers_is_never_taken_for_one_without(headers: list[tuple[bytes, bytes | None]]) -> None:
    for size in SIZES:
        whole, at = record(b"key", bytes(size), headers)
        assert not surely_has_no_headers(whole, at, size), size


def test_empty_values_and_long_varints_are_left_to_librdkafka() -> None:
    whole, at = record(None, b"", [])
    assert not surely_has_no_headers(whole, at, 0)
    padded = b"\x00" * 6 + b"\x86\x00" + b"abc" + b"\x00"  # the size 3 in two bytes, which a broker may pass on
    assert not surely_has_no_headers(padded, 8, 3)
