"""The compiled AMQP reader over a socket pair: pika writes the frames; wherever they are cut, the same rows come."""

from __future__ import annotations

import datetime
import decimal
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from pythia_fast._ext.amqp_reader import AmqpReaderNative
from pythia_fast._ext.collecting_sink import CALL, IDLE, STALLED, CollectingSink, Incoming, poll
from pythia_fast.brokers.framing import decode_headers

CHANNEL, PARTITION = 1, 7
HEARTBEAT = frame.Heartbeat().marshal()


def delivery(
    body: bytes,
    tag: int = 1,
    key: str = "k",
    *,
    redelivered: bool = False,
    body_frame: int = 100_000,
    **properties: Any,
) -> bytes:
    """The frames of one message, as the server sends them."""
    method = spec.Basic.Deliver("consumer", tag, redelivered, "exchange", key)
    frames = [frame.Method(CHANNEL, method), frame.Header(CHANNEL, len(body), BasicProperties(**properties))]
    frames += [frame.Body(CHANNEL, body[at : at + body_frame]) for at in range(0, len(body), body_frame)]
    return b"".join(part.marshal() for part in frames)


@dataclass
class Wire:
    """A reader, and the server's end of its socket."""

    native: AmqpReaderNative
    server: socket.socket
    client: socket.socket

    def send(self, data: bytes) -> None:
        self.server.sendall(data)

    def acks(self) -> list[tuple[int, bool]]:
        """(tag, multiple) of each acknowledgement that was sent."""
        found = []
        data = self.server.recv(1 << 20)
        while data:
            used, read = frame.decode_frame(data)
            found.append((read.method.delivery_tag, read.method.multiple))
            data = data[used:]
        return found


def connect(prefetch: int = 100, auto_ack: bool = False) -> Wire:
    server, client = socket.socketpair()
    client.setblocking(False)
    native = AmqpReaderNative(prefetch, auto_ack)
    native.call(False)
    native.stream.open(client.fileno(), False)
    native.begin(CHANNEL, PARTITION)
    return Wire(native, server, client)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = connect()
    yield made
    made.server.close()
    made.client.close()


def read(wire: Wire, sink: CollectingSink) -> tuple[list[Incoming], bytes]:
    """Everything there is: (messages, frames left to the client library)."""
    other = b""
    while True:
        outcome = poll(wire.native, sink)
        if outcome == CALL:
            frames = wire.native.stream.take_other()
            if frames is None:
                return sink.messages, other
            other += frames
        elif outcome in (IDLE, STALLED):
            return sink.messages, other


def rows(data: bytes, *cuts: int) -> tuple[list[Incoming], bytes, str | None]:
    wire = connect()
    try:
        sink = CollectingSink()
        other = b""
        for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            wire.send(data[begin:end])
            other += read(wire, sink)[1]
        return sink.messages, other, wire.native.stream.fault()
    finally:
        wire.server.close()
        wire.client.close()


STREAM = (
    delivery(b'{"n": 1}', 1, "orders.new", headers={"a": "x", "n": 5}, timestamp=1_700_000_000)
    + HEARTBEAT
    + delivery(b"", 2, "")
    + frame.Method(CHANNEL, spec.Basic.ConsumeOk("consumer")).marshal()
    + delivery(b"in three frames", 3, body_frame=6, redelivered=True)
    + frame.Method(2, spec.Channel.Close(404, "not ours", 0, 0)).marshal()
    + delivery(b"last", 4, headers={"x-delivery-count": 3})
)


def test_a_stream_of_frames_becomes_rows_and_the_rest_is_left_to_the_client_library():
    messages, other, fault = rows(STREAM)
    assert fault is None
    assert [message.payload for message in messages] == [b'{"n": 1}', b"", b"in three frames", b"last"]
    assert [message.key for message in messages] == [b"orders.new", b"", b"k", b"k"]
    assert [message.offset for message in messages] == [1, 2, 3, 4]
    assert [message.next_offset for message in messages] == [2, 3, 4, 5]
    assert [message.deliveries for message in messages] == [0, 0, 1, 3]
    assert [message.timestamp_ms for message in messages] == [1_700_000_000_000, -1, -1, -1]
    assert {message.partition for message in messages} == {PARTITION}
    assert decode_headers(messages[0].headers) == [("a", b"x"), ("n", b"5")]
    names = []
    while other:
        used, value = frame.decode_frame(other)
        names.append(value.method.NAME if isinstance(value, frame.Method) else type(value).__name__)
        other = other[used:]
    assert names == ["Heartbeat", "Basic.ConsumeOk", "Channel.Close"]


def test_every_cut_of_the_stream_gives_the_same_rows():
    whole = rows(STREAM)
    for cut in range(len(STREAM) + 1):
        assert rows(STREAM, cut) == whole, cut


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_many_cuts_give_the_same_rows(cuts: list[int]) -> None:
    assert rows(STREAM, *sorted(cuts)) == rows(STREAM)


def test_header_values_of_every_type_become_bytes():
    when = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    values = {
        "text": "ünï",
        "bytes": b"\x00\xff",
        "yes": True,
        "small": -5,
        "large": 2**40,
        "decimal": decimal.Decimal("-12.34"),
        "when": when,
        "none": None,
        "list": [1, 'a"b', None, [True]],
        "table": {"k": {"deep": -1}},
    }
    (message,), _, fault = rows(delivery(b"x", headers=values))
    assert fault is None
    found = dict(decode_headers(message.headers))
    assert found["text"] == "ünï".encode()
    assert found["bytes"] == b"\x00\xff"
    assert (found["yes"], found["small"], found["large"]) == (b"true", b"-5", str(2**40).encode())
    assert decimal.Decimal((found["decimal"] or b"").decode()) == values["decimal"]
    assert found["when"] == str(int(when.timestamp())).encode()
    assert found["none"] is None
    assert json.loads(found["list"] or b"") == values["list"]
    assert json.loads(found["table"] or b"") == values["table"]


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        (b"d" + struct.pack(">d", 0.1), b"0.1"),
        (b"d" + struct.pack(">d", 1 / 3), b"0.3333333333333333"),
        (b"f" + struct.pack(">f", 0.5), b"0.5"),
        (b"b\xff", b"-1"),
        (b"B\xff", b"255"),
        (b"s\xff\xfe", b"-2"),
        (b"u\xff\xfe", b"65534"),
        (b"i\xff\xff\xff\xff", b"4294967295"),
        (b"D\x03\x00\x00\x00\x05", b"0.005"),
        (b"A\x00\x00\x00\x00", b"[]"),
    ],
)
def test_types_that_pika_does_not_write_are_read(encoded: bytes, text: bytes) -> None:
    table = b"\x01n" + encoded
    method = frame.Method(CHANNEL, spec.Basic.Deliver("c", 1, False, "", "k")).marshal()
    header = struct.pack(">HHQHI", 60, 0, 0, 1 << 13, len(table)) + table
    (message,), _, fault = rows(method + struct.pack(">BHI", 2, CHANNEL, len(header)) + header + b"\xce")
    assert fault is None
    assert decode_headers(message.headers) == [("n", text)]


@pytest.mark.parametrize("encoded", [b"Z", b"S\x00\x00\x00\x09short", b"A\x00\x00\x00\x05" * 40, b"l\x00"])
def test_a_table_that_is_none_ends_the_connection(encoded: bytes) -> None:
    table = b"\x01n" + encoded
    method = frame.Method(CHANNEL, spec.Basic.Deliver("c", 1, False, "", "k")).marshal()
    header = struct.pack(">HHQHI", 60, 0, 0, 1 << 13, len(table)) + table
    messages, _, fault = rows(method + struct.pack(">BHI", 2, CHANNEL, len(header)) + header + b"\xce")
    assert messages == []
    assert fault == "a message's header cannot be read"


def test_all_properties_are_passed_over_to_find_the_timestamp():
    texts = ("content_type", "content_encoding", "correlation_id", "reply_to", "expiration", "message_id", "type")
    texts += ("user_id", "app_id", "cluster_id")
    properties: dict[str, Any] = dict.fromkeys(texts, "some text")
    (message,), _, fault = rows(delivery(b"x", timestamp=5, delivery_mode=2, priority=9, headers={}, **properties))
    assert fault is None
    assert (message.payload, message.timestamp_ms, message.headers) == (b"x", 5000, b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak AMQP"),
        (b"AMQP\x00\x01\x00\x00", "another version"),
        (struct.pack(">BHI", 1, CHANNEL, 1 << 24) + b"x" * 20, "larger than was agreed"),
        (HEARTBEAT[:-1] + b"\x00", "does not end"),
        (struct.pack(">BHIHH", 1, CHANNEL, 4, 60, 60) + b"\xce", "method cannot be read"),
        (
            frame.Method(CHANNEL, spec.Basic.Deliver("c", 1, False, "", "")).marshal()
            + HEARTBEAT.replace(b"\x08\x00\x00", b"\x08\x00\x01"),
            "another kind",
        ),
        (frame.Body(CHANNEL, b"no header").marshal(), "another kind"),
        (delivery(b"abc")[:-11] + frame.Body(CHANNEL, b"abcd").marshal(), "longer than its header"),
    ],
    ids=["http", "version", "large", "end", "method", "heartbeat", "body", "long"],
)
def test_garbage_is_told_and_ends_the_connection(data: bytes, says: str) -> None:
    messages, _, fault = rows(HEARTBEAT + data)
    assert messages == []
    assert fault is not None
    assert says in fault


def test_a_reply_that_is_cut_short_gives_no_row(wire: Wire) -> None:
    wire.send(delivery(b"whole", 1) + delivery(b"cut off", 2)[:-3])
    wire.server.close()
    messages, _ = read(wire, CollectingSink())
    assert [message.payload for message in messages] == [b"whole"]
    assert wire.native.stream.fault() == "it closed the connection"


def test_a_message_is_offered_again_until_there_is_room(wire: Wire) -> None:
    wire.send(delivery(b"one", 1) + delivery(b"two in parts", 2, body_frame=5) + delivery(b"", 3))
    sink = CollectingSink(stall_after=0)
    for count in range(4):
        sink.stall_after(count)
        assert poll(wire.native, sink) == (STALLED if count < 3 else poll(wire.native, sink) or IDLE) or count == 3
        assert sink.payloads == [b"one", b"two in parts", b""][:count]


def test_what_is_done_in_order_is_acknowledged_by_one_frame(wire: Wire) -> None:
    wire.send(b"".join(delivery(b"x", tag) for tag in range(1, 11)))
    read(wire, CollectingSink())
    assert wire.native.unacknowledged == 10
    wire.native.done(PARTITION, [2, 1, 3, 5, 4])
    read(wire, CollectingSink())
    assert wire.acks() == [(5, True)]
    assert wire.native.unacknowledged == 5


def test_what_is_done_above_a_lane_that_lags_is_acknowledged_by_itself(wire: Wire) -> None:
    """The tag of a later multiple acknowledgement is one that was not acknowledged before."""
    wire.send(b"".join(delivery(b"x", tag) for tag in range(1, 101)))
    read(wire, CollectingSink())
    wire.native.done(PARTITION, list(range(2, 102, 2)))  # half of the prefetch
    read(wire, CollectingSink())
    assert wire.acks() == [(tag, False) for tag in range(2, 102, 2)]
    wire.native.done(PARTITION, [1, 3])
    read(wire, CollectingSink())
    assert wire.acks() == [(3, True)]
    wire.native.done(PARTITION, list(range(5, 101, 2)))
    read(wire, CollectingSink())
    assert wire.acks() == [(99, True)]
    assert wire.native.unacknowledged == 0


def test_what_was_delivered_on_another_channel_is_not_acknowledged(wire: Wire) -> None:
    wire.send(delivery(b"x", 1))
    read(wire, CollectingSink())
    wire.native.end_channel()
    wire.native.begin(CHANNEL, PARTITION + 1)
    wire.send(delivery(b"x", 1) + delivery(b"x", 2))
    read(wire, CollectingSink())
    wire.native.done(PARTITION, [1])
    wire.native.done(PARTITION + 1, [2, 99])
    read(wire, CollectingSink())
    assert wire.native.ack_frames == 0
    wire.native.done(PARTITION + 1, [1])
    read(wire, CollectingSink())
    assert wire.acks() == [(2, True)]


def test_with_auto_ack_nothing_is_acknowledged():
    wire = connect(auto_ack=True)
    wire.send(delivery(b"x", 1))
    assert len(read(wire, CollectingSink())[0]) == 1
    wire.native.done(PARTITION, [1])
    read(wire, CollectingSink())
    assert wire.native.ack_frames == 0
    wire.server.close()
    wire.client.close()


def test_what_comes_while_leaving_is_dropped(wire: Wire) -> None:
    wire.send(delivery(b"x", 1))
    assert not wire.native.turn(0.0)
    assert wire.native.appended == 0
