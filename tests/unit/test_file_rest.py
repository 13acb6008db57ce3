"""file_rest.py: half a record at the end of a file is told from a damaged size."""

from __future__ import annotations

import datetime
import os
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.brokers.base import PLACED
from pythia_fast.brokers.file_rest import damage, map_may_begin, record_may_begin

KEYS = st.text(max_size=40)
VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.datetimes(timezones=st.just(datetime.UTC))
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 127), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(KEYS, inner, max_size=20),
    max_leaves=20,
)
MAPS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=20)


def frame(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


def told(path: Path, content: bytes, at: int, format: str = "msgpack-frames", most: int = 1 << 20) -> str:  # noqa: A002
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        return damage(str(path), fd, at, len(content) - at, format, most)
    finally:
        os.close(fd)


@given(MAPS, st.data())
def test_any_part_of_a_map_may_be_half_of_it(row: dict[str, Any], data: st.DataObject) -> None:
    payload = msgspec.msgpack.encode(row)
    cut = data.draw(st.integers(0, len(payload) - 1))
    assert map_may_begin(payload[:cut], len(payload))


@given(MAPS, st.binary(max_size=50), st.integers(1, 2**32 - 1))
def test_a_whole_map_is_no_half_of_a_larger_frame(row: dict[str, Any], behind: bytes, more: int) -> None:
    payload = msgspec.msgpack.encode(row)
    assert not map_may_begin(payload + behind, len(payload) + len(behind) + more)


@pytest.mark.parametrize(
    ("begun", "size"),
    [
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", 1000),  # more values than the frame has bytes
        (b"\x81\xa1a\xdb\x00\x00\x10\x00abc", 1000),  # a text that is longer than the frame
        (b"\x81\xa1a\xc1", 1000),
        (b"\x81\xa1a\xc4\x05abcde\x00", 1000),
    ],
)
def test_values_that_do_not_fit_the_frame_are_no_half_of_it(begun: bytes, size: int) -> None:
    assert not map_may_begin(begun, size)


@pytest.mark.parametrize("placed", [b"", struct.pack("<qqiI", 1, 2, 3, 4)])
@pytest.mark.parametrize(("key", "payload"), [(b"key", b"payload"), (None, b"payload"), (b"key", None)])
def test_half_a_recorded_message_says_its_own_size(placed: bytes, key: bytes | None, payload: bytes | None) -> None:
    sizes = [0xFFFFFFFF if part is None else len(part) for part in (key, payload)]
    head = struct.pack("<III", sizes[0], 2 | (PLACED if placed else 0), sizes[1])
    whole = head + placed + (b"name" if placed else b"") + (key or b"") + b"hh" + (payload or b"")
    for cut in range(len(whole)):
        assert record_may_begin(whole[:cut], len(whole))
        enough = cut >= len(head + placed)
        assert record_may_begin(whole[:cut], len(whole) + 5) is not enough
    assert not record_may_begin(whole, len(whole) - 30)


ROWS = [msgspec.msgpack.encode({"id": number, "name": "x" * number}) for number in range(50)]


@pytest.mark.parametrize("size", [len(ROWS[9]) + 1, 10_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_damaged_size_is_told_with_its_place_and_what_to_do(tmp_path: Path, size: int) -> None:
    before = b"".join(map(frame, ROWS[:9]))
    behind = struct.pack("<I", size) + ROWS[9] + (b"" if size < 100 else b"".join(map(frame, ROWS[10:])))
    path = tmp_path / "its rows"
    at = len(before)
    line = told(path, before + behind, at)
    assert line == (
        f"{path} is damaged: the size at byte {at} says that {size:,} bytes follow, and what follows is no record of "
        f"that size. The {len(behind):,} bytes from byte {at} on were not read, rows among them, most likely: restore "
        f"the file, or give them up with: truncate -s {at} '{path}'"
    )
    assert told(path, before + frame(ROWS[9])[:-1], at) == ""


def test_bytes_that_are_lost_before_a_size_are_told(tmp_path: Path) -> None:
    content = b"".join(map(frame, ROWS))
    at = len(b"".join(map(frame, ROWS[:20])))
    assert "is damaged" in told(tmp_path / "rows", content[:at] + content[at + 7 :], at)


def test_where_nothing_else_tells_the_size_does(tmp_path: Path) -> None:
    content = struct.pack("<I", 5000) + b'{"id":1}' * 10
    assert told(tmp_path / "rows", content, 0, most=5000) == ""
    line = told(tmp_path / "rows", content, 0, most=4999)
    assert "does not begin with a record of format=msgpack-frames: the size at byte 0 says that 5,000 bytes" in line
    assert "Give FileConsumer the format= that the file has" in line
    assert "truncate" not in line
    assert told(tmp_path / "rows", content[:3], 0, most=4999) == ""
    assert told(tmp_path / "rows", content, 0, "fixed", most=4999) == ""
