"""The reader of Redis replies: the same events wherever the bytes are split, and garbage told as garbage."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pythia_fast._ext.resp_probe import ENTRIES, STREAMS, VALUE, Replies
from pythia_fast.brokers.redis_client import encode_string as bulk

Event = tuple[object, ...]


def array(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def entry(id_: bytes, *fields: bytes) -> bytes:
    return array(bulk(id_), array(*map(bulk, fields)))


TWO_STREAMS = (
    [
        array(bulk(b"orders"), array(entry(b"1-0", b"data", b"one"), entry(b"1-1", b"data", b"", b"k", b"\r\n\x00"))),
        array(bulk(b"more"), array(entry(b"18446744073709551615-7", b"a", b"b"))),
    ],
    [
        ("stream", b"orders"),
        ("entry", (1, 0), [(b"data", b"one")]),
        ("entry", (1, 1), [(b"data", b""), (b"k", b"\r\n\x00")]),
        ("stream", b"more"),
        ("entry", (2**64 - 1, 7), [(b"a", b"b")]),
        ("end",),
    ],
)
IN_A_MAP = b"%2\r\n" + b"".join(part.removeprefix(b"*2\r\n") for part in TWO_STREAMS[0])
PUSHED = b">2\r\n$7\r\nmessage\r\n*2\r\n:1\r\n%1\r\n+a\r\n_\r\n"
GONE, GONE_IN_RESP3 = array(bulk(b"6-0"), b"*-1\r\n"), array(bulk(b"7-1"), b"_\r\n")
ATTRIBUTE = b"|1\r\n+ttl\r\n:3600\r\n"

REPLIES: dict[str, tuple[int, bytes, list[Event]]] = {
    "resp2": (STREAMS, array(*TWO_STREAMS[0]), TWO_STREAMS[1]),
    "resp3": (STREAMS, IN_A_MAP, TWO_STREAMS[1]),
    "push before": (STREAMS, PUSHED + IN_A_MAP, TWO_STREAMS[1]),
    "attribute before": (STREAMS, ATTRIBUTE + IN_A_MAP, TWO_STREAMS[1]),
    "two replies": (STREAMS, array(*TWO_STREAMS[0]) + b"*-1\r\n", [*TWO_STREAMS[1], ("nil",)]),
    "nothing in time": (STREAMS, b"*-1\r\n", [("nil",)]),
    "nothing in time, resp3": (STREAMS, b"_\r\n", [("nil",)]),
    "no streams": (STREAMS, b"*0\r\n", [("end",)]),
    "an error": (STREAMS, b"-NOGROUP No such key 'x'\r\n", [("error", b"NOGROUP No such key 'x'")]),
    "an error as a string": (STREAMS, b"!5\r\nERR x\r\n", [("error", b"ERR x")]),
    "claimed": (
        ENTRIES,
        array(entry(b"5-0", b"a", b"1"), b"*-1\r\n", b"$-1\r\n", GONE, GONE_IN_RESP3),
        [
            ("entry", (5, 0), [(b"a", b"1")]),
            ("entry", None, None),
            ("entry", None, None),
            ("entry", (6, 0), None),
            ("entry", (7, 1), None),
            ("end",),
        ],
    ),
    "numbers": (VALUE, b":1000\r\n:-2\r\n", [("number", 1000), ("number", -2)]),
    "texts": (VALUE, b"$3\r\n1-0\r\n+OK\r\n$-1\r\n", [("text", b"1-0"), ("text", b"OK"), ("nil",)]),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_in_one_piece(name: str) -> None:
    shape, data, events = REPLIES[name]
    replies = Replies(shape)
    assert replies.feed(data) == events
    assert replies.left == b""


@pytest.mark.parametrize("name", REPLIES)
def test_every_split_point_gives_the_same_events(name: str) -> None:
    shape, data, events = REPLIES[name]
    for at in range(len(data) + 1):
        replies = Replies(shape)
        assert replies.feed(data[:at]) + replies.feed(data[at:]) == events, at
        assert replies.left == b""


@pytest.mark.parametrize("name", REPLIES)
def test_byte_by_byte(name: str) -> None:
    shape, data, events = REPLIES[name]
    replies = Replies(shape)
    found = [event for i in range(len(data)) for event in replies.feed(data[i : i + 1])]
    assert found == events


@pytest.mark.parametrize(
    ("shape", "data", "expected"),
    [
        (STREAMS, b"HTTP/1.1 400 Bad Request\r\n", "the first character of a reply"),
        (STREAMS, b":5\r\n", "the streams of XREADGROUP"),
        (STREAMS, b"*-2\r\n", "the streams of XREADGROUP"),
        (STREAMS, b"*1\r\n*3\r\n", "a stream of two parts"),
        (STREAMS, b"*1\r\n*2\r\n:1\r\n", "a string"),
        (STREAMS, b"*1\r\n*2\r\n$1\r\naX\r\n", "the end of a string"),
        (STREAMS, b"*1\r\n*2\r\n$-5\r\n", "the size of a string"),
        (STREAMS, b"*1x\r\n", "a number and the end of its line"),
        (STREAMS, b"*\r\n", "a number and the end of its line"),
        (STREAMS, b"*12345678901234567890\r\n", "a number of at most 19 digits"),
        (STREAMS, b"*9999999999999999999\r\n", "a number and the end of its line"),
        (STREAMS, b"-" + b"x" * 5000, "a line of at most 4,096 bytes"),
        (STREAMS, b"-x\rx", "the end of a line"),
        (ENTRIES, b"%1\r\n", "the entries of XCLAIM"),
        (ENTRIES, b"*1\r\n*3\r\n", "an entry of two parts"),
        (ENTRIES, b"*1\r\n" + array(bulk(b"1"), array()), "the id of an entry"),
        (ENTRIES, b"*1\r\n" + array(bulk(b"1-99999999999999999999"), array()), "the id of an entry"),
        (ENTRIES, b"*1\r\n" + array(bulk(b"1-0"), array(bulk(b"a"))), "an array of names and values"),
        (VALUE, b"*1\r\n", "a single value"),
        (STREAMS, b">-3\r\n", "the size of an array"),
    ],
)
def test_garbage_is_told(shape: int, data: bytes, expected: str) -> None:
    for at in range(len(data) + 1):
        replies = Replies(shape)
        events = replies.feed(data[:at]) or replies.feed(data[at:])
        assert events == [("bad", 1, 0, expected)], at


@pytest.mark.parametrize(
    ("shape", "data", "bad"),
    [
        (VALUE, b"$101\r\n", (2, 101)),
        (ENTRIES, array(entry(b"1-0", b"a", b"x" * 101)), (2, 101)),
        (ENTRIES, array(entry(b"1-0", *[b"x" * 50] * 6)), (3, None)),
        (ENTRIES, b"*1\r\n*2\r\n$3\r\n1-0\r\n*10\r\n", (4, 5)),
        (ENTRIES, b"*101\r\n", (4, 101)),
        (STREAMS, b"*1\r\n*2\r\n$1\r\na\r\n*101\r\n", (4, 101)),
        (STREAMS, b">101\r\n", (4, 101)),
        (STREAMS, b">1\r\n" + b"*1\r\n" * 8, (4, 9)),
    ],
)
def test_limits_are_told_before_the_bytes_have_come(shape: int, data: bytes, bad: tuple[int, int | None]) -> None:
    (event,) = Replies(shape, bulk_bytes=100, entry_bytes=250, fields=4, elements=100).feed(data)[-1:]
    assert event[0] == "bad"
    assert event[1] == bad[0]
    if bad[1] is not None:
        assert event[2] == bad[1]


ids = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
fields = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=200)), max_size=5)
streams = st.lists(st.tuples(st.binary(max_size=20), st.lists(st.tuples(ids, fields), max_size=4)), max_size=3)


@given(streams, st.lists(st.integers(1, 40)), st.booleans())
def test_whatever_is_written_is_read(
    written: list[tuple[bytes, list[tuple[tuple[int, int], list[tuple[bytes, bytes]]]]]],
    pieces: list[int],
    in_map: bool,
) -> None:
    expected: list[Event] = []
    data = b"%%%d\r\n" % len(written) if in_map else b"*%d\r\n" % len(written)
    for name, entries in written:
        expected.append(("stream", name))
        parts = []
        for (ms, seq), pairs in entries:
            expected.append(("entry", (ms, seq), pairs))
            parts.append(entry(b"%d-%d" % (ms, seq), *[part for pair in pairs for part in pair]))
        data += (b"" if in_map else b"*2\r\n") + bulk(name) + array(*parts)
    expected.append(("end",))
    replies = Replies(STREAMS)
    found: list[Event] = []
    for size in pieces:
        found += replies.feed(data[:size])
        data = data[size:]
    assert found + replies.feed(data) == expected


@given(st.sampled_from([STREAMS, ENTRIES, VALUE]), st.binary(max_size=60))
def test_any_bytes_are_read_without_harm(shape: int, data: bytes) -> None:
    whole = Replies(shape).feed(data)
    parts = Replies(shape)
    found: list[Event] = []
    for i in range(len(data)):
        found += parts.feed(data[i : i + 1])
        if found and found[-1][0] == "bad":
            break
    assert found == whole
