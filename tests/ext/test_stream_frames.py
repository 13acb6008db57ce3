"""Chunks of RabbitMQ's streams and the AMQP 1.0 messages in them: sound ones, and every kind of damage."""

from __future__ import annotations

import random
import struct
import zlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pythia_fast._ext.stream_probe import crc32, read_chunk, read_message
from tests.support.rabbitmq_stream import compound, data, entry, message, section, sub_batch, symbol, text

CUT_CHUNK, OTHER_CHUNK = 2, 3


def deliver(
    content: bytes, *, entries: int = 1, records: int = 1, first: int = 7, magic: int = 0x50, version: int = 1
) -> bytes:
    """A Deliver frame without its size."""
    head = struct.pack(">HHB", 8, version, 3) + (struct.pack(">Q", 99) if version == 2 else b"")
    numbers = (magic, 0, entries, records, 1_700_000_000_123, 1, first, zlib.crc32(content), len(content), 0, 0)
    return head + struct.pack(">BBHIqQQIIII", *numbers) + content


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_zlib(content: bytes) -> None:
    assert crc32(content) == zlib.crc32(content)


@pytest.mark.parametrize("version", [1, 2])
def test_a_chunk_and_its_entries(version: int) -> None:
    contents = [b"one", b"", b"three" * 100]
    fault, found = read_chunk(deliver(b"".join(map(entry, contents)), entries=3, records=3, version=version))
    assert fault == 0
    assert found is not None
    header, entries, used = found
    assert header["first"] == 7
    assert header["records"] == 3
    assert header["timestamp_ms"] == 1_700_000_000_123
    assert header["subscription"] == 3
    assert header["crc"] == zlib.crc32(b"".join(map(entry, contents)))
    assert [each[4] for each in entries] == contents
    assert used == header["data_size"]


@pytest.mark.parametrize("compression", [0, 1])
def test_a_sub_batch(compression: int) -> None:
    _, found = read_chunk(deliver(sub_batch([b"a", b"bc"], compression) + entry(b"d"), entries=2, records=3))
    assert found is not None
    (is_batch, packing, records, unpacked_size, content), single = found[1]
    assert (is_batch, packing, records, unpacked_size) == (1, compression, 2, 11)
    plain = entry(b"a") + entry(b"bc")
    assert (zlib.decompress(content, 31) if compression else content) == plain
    assert single == (0, 0, 1, 0, b"d")


def test_a_chunk_that_is_cut_anywhere_is_told_as_such() -> None:
    whole = deliver(entry(b"payload"))
    for size in range(len(whole)):
        assert read_chunk(whole[:size])[0] == CUT_CHUNK, size


def test_what_follows_the_data_is_not_read_as_entries() -> None:
    fault, found = read_chunk(deliver(entry(b"payload")) + entry(b"trailer"))
    assert fault == 0
    assert found is not None
    assert [each[4] for each in found[1]] == [b"payload"]


@pytest.mark.parametrize(
    ("content", "good"),
    [
        (entry(b"good") + b"\x00\x00\x00\x05four", 1),  # says five bytes and has four
        (entry(b"good") + b"\x7f\xff\xff\xff", 1),
        (sub_batch([b"a"])[:-1], 0),
        (b"\x80\x00", 0),
        (b"\x00", 0),
    ],
)
def test_an_entry_that_goes_beyond_the_data_ends_them(content: bytes, good: int) -> None:
    _, found = read_chunk(deliver(content, entries=2, records=2))
    assert found is not None
    assert len(found[1]) == good


def test_chunks_of_another_format() -> None:
    assert read_chunk(deliver(b"", magic=0x51))[0] == OTHER_CHUNK
    assert read_chunk(deliver(b"", version=3))[0] == OTHER_CHUNK


def test_an_offset_that_no_position_can_be() -> None:
    assert read_chunk(deliver(entry(b""), first=(1 << 63) - 1))[0] == CUT_CHUNK
    assert read_chunk(deliver(entry(b""), first=(1 << 64) - 1))[0] == CUT_CHUNK


# -- messages --------------------------------------------------------------------------------------


def headers_of(encoded: bytes) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    while encoded:
        (size,) = struct.unpack_from("<H", encoded)
        name, encoded = encoded[2 : 2 + size].decode(), encoded[2 + size :]
        (size,) = struct.unpack_from("<i", encoded)
        encoded = encoded[4:]
        found[name] = None if size < 0 else encoded[:size]
        encoded = encoded[max(0, size) :]
    return found


def test_a_message_with_nothing_but_data() -> None:
    assert read_message(message(b"payload")) == (b"payload", None, b"", -1)
    assert read_message(message(b"x" * 5000)) == (b"x" * 5000, None, b"", -1)
    assert read_message(message(b"")) == (b"", None, b"", -1)


def test_all_sections() -> None:
    properties = [b"\x40"] * 9 + [b"\x83" + struct.pack(">q", 1_700_000_000_000)]
    whole = (
        section(0x70, compound(0xC0, [b"\x41"]))
        + section(0x71, compound(0xC1, [symbol("ignored"), b"\x41"]))
        + section(0x72, compound(0xC1, [symbol("x-exchange"), text(""), symbol("x-routing-key"), text("key-1")]))
        + section(0x73, compound(0xC0, properties))
        + section(0x74, compound(0xC1, [text("trace"), text("t-1")]))
        + section(0x75, data(b"payload"))
        + section(0x78, compound(0xC1, [symbol("sum"), b"\x44"]))
    )
    payload, key, headers, timestamp_ms = read_message(whole)  # type: ignore[misc]
    assert (payload, key, timestamp_ms) == (b"payload", b"key-1", 1_700_000_000_000)
    assert headers_of(headers) == {"trace": b"t-1"}


def test_the_key_may_be_an_application_property() -> None:
    whole = section(0x72, compound(0xC1, [symbol("x-routing-key"), text("other")])) + message(
        b"p", {"id": b"\x54\x85", "n": b"\x40"}
    )
    assert read_message(whole, b"id")[1] == b"-123"  # type: ignore[index]
    assert headers_of(read_message(whole, b"id")[2]) == {"n": None}  # type: ignore[index]
    assert read_message(whole, b"n")[1] is None  # type: ignore[index]


@pytest.mark.parametrize(
    ("encoded", "told"),
    [
        (b"\x40", None),
        (b"\x41", b"true"),
        (b"\x42", b"false"),
        (b"\x56\x01", b"true"),
        (b"\x43", b"0"),
        (b"\x44", b"0"),
        (b"\x50\xff", b"255"),
        (b"\x51\xff", b"-1"),
        (b"\x52\x07", b"7"),
        (b"\x53\x07", b"7"),
        (b"\x54\xfe", b"-2"),
        (b"\x55\xfe", b"-2"),
        (b"\x60\xff\xff", b"65535"),
        (b"\x61\xff\xff", b"-1"),
        (b"\x70\xff\xff\xff\xff", b"4294967295"),
        (b"\x71\xff\xff\xff\xff", b"-1"),
        (b"\x80" + b"\xff" * 8, b"18446744073709551615"),
        (b"\x81" + b"\xff" * 8, b"-1"),
        (b"\x83" + struct.pack(">q", 1_700_000_000_000), b"1700000000000"),
        (b"\x72" + struct.pack(">f", 0.5), b"0.5"),
        (b"\x82" + struct.pack(">d", 0.1), b"0.1"),
        (b"\x73\x00\x00\x00\x41", b"65"),
        (b"\x98" + bytes(range(16)), b"00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (data(b"\x00\xff"), b"\x00\xff"),
        (text("é"), "é".encode()),
        (symbol("s"), b"s"),
        (b"\xb1\x00\x00\x00\x02hi", b"hi"),
        (b"\x00\xa3\x01x\x41", b"true"),  # described
    ],
)
def test_values_as_headers(encoded: bytes, told: bytes | None) -> None:
    found = read_message(message(b"p", {"h": encoded}))
    assert found is not None
    assert headers_of(found[2]) == {"h": told}


def test_several_data_sections_are_put_together() -> None:
    assert read_message(message(b"one ") + section(0x75, data(b"two ")) + section(0x75, data(b"three")))[0] == (  # type: ignore[index]
        b"one two three"
    )


def test_bodies_that_are_values() -> None:
    assert read_message(section(0x77, text("hello")))[0] == b"hello"  # type: ignore[index]
    assert read_message(section(0x77, data(b"\x00")))[0] == b"\x00"  # type: ignore[index]
    assert read_message(section(0x77, b"\x40"))[0] is None  # type: ignore[index]
    assert read_message(section(0x77, b"\x54\x01")) is None  # a number is no payload
    assert read_message(section(0x76, compound(0xC0, [b"\x41"]))) is None  # nor is a list


@pytest.mark.parametrize(
    "bad",
    [
        b"{}",
        b'{"id":1}',
        b"\x00",
        b"\x00\x53",
        b"\x00\x53\x69\x40",
        b"\x00\x53\x75",
        b"\x00\x53\x75\x54\x01",
        b"\x00\x53\x75\xb0\xff\xff\xff\xffx",
        b"\x00\x53\x74\xc1\x03\x04\x40\x40",  # names that are none
        section(0x74, b"\x54\x01"),  # no map
        section(0x75, b"\x00" * 100),
        section(0x74, b"\xd1\x00\x00\x00\x08\xff\xff\xff\xff" + text("a") + b"\x41"),
    ],
)
def test_what_is_no_message(bad: bytes) -> None:
    assert read_message(bad) is None


def test_a_message_that_is_cut_anywhere_is_none_or_shorter() -> None:
    whole = section(0x72, compound(0xC1, [symbol("x-routing-key"), text("k")])) + message(b"payload", {"a": text("b")})
    for size in range(1, len(whole)):
        found = read_message(whole[:size])
        assert found is None or found[0] is None, size


def test_random_bytes_and_random_damage() -> None:
    draw = random.Random(11)
    whole = section(0x73, compound(0xC0, [b"\x40"] * 10)) + message(b"payload" * 40, {"a": text("b"), "c": b"\x54\x01"})
    for _ in range(20_000):
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 5)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        read_message(bytes(damaged))
        read_message(draw.randbytes(draw.randrange(60)))
        read_chunk(bytes(damaged))
