"""MemoryConsumer and MemoryProducer: partitions, commits, live sends, faults."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pythia_fast._ext.collecting_sink import END, IDLE, STALLED, CollectingSink, poll, wake
from pythia_fast.brokers.base import FailedRecord, PublisherContext
from pythia_fast.brokers.framing import decode_headers, encode_headers, frame_record
from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage, MemoryProducer, MemoryRecord
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.testing.readers import RememberingListener, collect, drain, reader_context


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def test_given_payloads_come_in_order_and_then_the_end(tmp_path: Path) -> None:
    reader = MemoryConsumer([b"one", None, b"", b"four"]).open(reader_context(tmp_path))
    sink = CollectingSink()
    assert drain(reader, sink) == END
    assert sink.payloads == [b"one", None, b"", b"four"]
    assert [(m.partition, m.offset, m.next_offset, m.timestamp_ms) for m in sink.messages] == [
        (0, i, i + 1, -1) for i in range(4)
    ]
    assert all(m.key is None and m.headers == b"" for m in sink.messages)
    reader.close()


def test_keys_headers_partitions_and_timestamps(tmp_path: Path) -> None:
    headers = [("trace", b"\x00\xff"), ("trace", None), ("ünï", b"")]
    consumer = MemoryConsumer(
        [
            MemoryMessage(b"a", key="k", headers=headers, partition=2, timestamp_ms=1_700_000_000_123),
            (b"", b"b", None),
            MemoryMessage(b"c", partition=2),
        ],
        partitions=3,
    )
    listener = RememberingListener()
    reader = consumer.open(reader_context(tmp_path, listener=listener))
    sink = CollectingSink()
    assert drain(reader, sink) == END
    first, second, third = sink.messages
    assert (first.key, first.partition, first.offset, first.timestamp_ms) == (b"k", 2, 0, 1_700_000_000_123)
    assert decode_headers(first.headers) == headers
    assert (second.key, second.payload) == (b"", b"b")
    assert (third.partition, third.offset) == (2, 1)
    assert [(p.index, p.topic, p.partition) for p in listener.table.values()] == [(i, "memory", i) for i in range(3)]
    reader.close()


def test_bytes_and_keys_of_a_subclass_are_what_they_hold(tmp_path: Path) -> None:
    message = MemoryMessage(np.bytes_(b"b"), key=np.bytes_(b"k"), headers=[("h", np.bytes_(b"v"))])
    given = [np.bytes_(b"a"), message, (np.str_("k"), b"c", None)]
    consumer = MemoryConsumer(given, partitions=4, keep_open=True)
    consumer.send(np.bytes_(b"d"), key=np.bytes_(b"k"), partition=None)
    consumer.end()
    reader = consumer.open(reader_context(tmp_path))
    sink = CollectingSink()
    assert drain(reader, sink) == END
    assert sorted((m.payload, m.key) for m in sink.messages if m.key) == [(b"b", b"k"), (b"c", b"k"), (b"d", b"k")]
    assert len({m.partition for m in sink.messages if m.key}) == 1
    assert b"a" in sink.payloads
    reader.close()


def test_equal_keys_share_a_partition_and_the_keyless_go_in_turn(tmp_path: Path) -> None:
    keyed = MemoryConsumer([MemoryMessage(b"x", key=b"same")] * 5, partitions=4).open(reader_context(tmp_path))
    sink = CollectingSink()
    drain(keyed, sink)
    assert len({m.partition for m in sink.messages}) == 1
    keyed.close()
    plain = MemoryConsumer([b"x"] * 6, partitions=3).open(reader_context(tmp_path))
    sink = CollectingSink()
    drain(plain, sink)
    assert [m.partition for m in sink.messages] == [0, 1, 2, 0, 1, 2]
    plain.close()


def test_poll_appends_no_more_than_asked(tmp_path: Path) -> None:
    reader = MemoryConsumer([b"%d" % i for i in range(10)]).open(reader_context(tmp_path))
    reader.serve()
    sink = CollectingSink()
    poll(reader.native, sink, 3)
    assert sink.count == 3
    poll(reader.native, sink, 3)
    assert sink.payloads == [b"%d" % i for i in range(6)]
    reader.close()


@pytest.mark.parametrize("live", [False, True])
def test_stalled_message_is_offered_again(tmp_path: Path, live: bool) -> None:
    payloads = [b"%d" % i for i in range(5)]
    consumer = MemoryConsumer([] if live else payloads, keep_open=live)
    if live:
        for payload in payloads:
            consumer.send(payload)
        consumer.end()
    reader = consumer.open(reader_context(tmp_path))
    sink = CollectingSink(stall_after=2)
    assert drain(reader, sink) == STALLED
    assert drain(reader, sink) == STALLED
    sink.stall_after(None)
    assert drain(reader, sink) == END
    assert sink.payloads == payloads
    reader.close()


@pytest.mark.parametrize("live", [False, True])
def test_opened_again_it_goes_on_from_what_was_committed(tmp_path: Path, live: bool) -> None:
    messages = [MemoryMessage(b"%d" % i, partition=i % 2) for i in range(8)]
    consumer = MemoryConsumer([] if live else messages, partitions=2, keep_open=live)
    if live:
        for message in messages:
            consumer.send(message.payload, partition=message.partition or 0)
        consumer.end()
    reader = consumer.open(reader_context(tmp_path))
    drain(reader, CollectingSink())
    reader.commit({0: 3, 1: 1}, wait=True)
    assert consumer.committed == {0: 3, 1: 1}
    reader.close()
    again = consumer.open(reader_context(tmp_path))
    sink = CollectingSink()
    assert drain(again, sink) == END
    assert sink.payloads == [b"3", b"5", b"6", b"7"]
    again.close()


def test_a_commit_never_goes_back(tmp_path: Path) -> None:
    consumer = MemoryConsumer([b"x"] * 3)
    reader = consumer.open(reader_context(tmp_path))
    reader.commit({0: 2})
    reader.commit({0: 1})
    assert consumer.committed == {0: 2}
    reader.close()


def test_messages_sent_while_a_poll_waits(tmp_path: Path) -> None:
    consumer = MemoryConsumer([b"given"], keep_open=True)
    reader = consumer.open(reader_context(tmp_path))
    sink = collect(reader, 1)
    sender = threading.Thread(target=lambda: [consumer.send(b"%d" % i, key="k") for i in range(1000)])
    sender.start()
    collect(reader, 1001, sink)
    sender.join()
    assert sink.payloads == [b"given", *(b"%d" % i for i in range(1000))]
    assert [m.offset for m in sink.messages] == list(range(1001))
    consumer.end()
    assert drain(reader, sink) == END
    reader.close()


def test_many_senders_lose_nothing(tmp_path: Path) -> None:
    consumer = MemoryConsumer(keep_open=True, partitions=4)
    reader = consumer.open(reader_context(tmp_path))

    def send(partition: int) -> None:
        for i in range(500):
            consumer.send(b"%d" % i, partition=partition)

    senders = [threading.Thread(target=send, args=(p,)) for p in range(4)]
    for sender in senders:
        sender.start()
    sink = collect(reader, 2000)
    for sender in senders:
        sender.join()
    for partition in range(4):
        assert [m.payload for m in sink.messages if m.partition == partition] == [b"%d" % i for i in range(500)]
    reader.close()


def test_idle_poll_returns_and_wake_cuts_the_wait(tmp_path: Path) -> None:
    reader = MemoryConsumer(keep_open=True).open(reader_context(tmp_path))
    reader.serve()
    sink = CollectingSink()
    assert poll(reader.native, sink, timeout_us=0) == IDLE
    results: list[int] = []
    waiter = threading.Thread(target=lambda: results.append(poll(reader.native, sink, timeout_us=60_000_000)))
    waiter.start()
    wake(reader.native)
    waiter.join(30)
    assert results == [IDLE]
    reader.close()


def test_send_waits_for_room_and_commits_make_it(tmp_path: Path) -> None:
    consumer = MemoryConsumer(keep_open=True, room_bytes=1 << 16)
    reader = consumer.open(reader_context(tmp_path))
    payload = b"x" * 40_000
    consumer.send(payload)
    with pytest.raises(SourceError, match=r"no room for 0\.01 seconds: 40"):
        consumer.send(payload, timeout=0.01)
    collect(reader, 1)
    sender = threading.Thread(target=consumer.send, args=(payload,))
    sender.start()
    reader.commit({0: 1})
    sender.join(30)
    assert not sender.is_alive()
    collect(reader, 1)
    reader.close()


def test_a_message_larger_than_the_room_passes_alone(tmp_path: Path) -> None:
    consumer = MemoryConsumer(keep_open=True, room_bytes=10)
    consumer.send(b"x" * 1000, timeout=0)
    reader = consumer.open(reader_context(tmp_path))
    assert collect(reader, 1).payloads == [b"x" * 1000]
    reader.close()


def test_memory_of_committed_messages_is_given_back(tmp_path: Path) -> None:
    consumer = MemoryConsumer(keep_open=True)
    reader = consumer.open(reader_context(tmp_path))
    for i in range(100):
        consumer.send(b"x" * 10_000)
        collect(reader, 1)
        reader.commit({0: i + 1})
    assert consumer.log.live_bytes() == 0
    reader.close()


def test_send_after_end_is_refused() -> None:
    consumer = MemoryConsumer(keep_open=True)
    consumer.end()
    with pytest.raises(SourceError, match="after end"):
        consumer.send(b"x")


def test_two_readers_at_once_are_refused(tmp_path: Path) -> None:
    consumer = MemoryConsumer([b"x"])
    reader = consumer.open(reader_context(tmp_path))
    with pytest.raises(SourceError, match="being read already"):
        consumer.open(reader_context(tmp_path))
    reader.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"payloads": 3}, "payloads=3: a sequence of payloads"),
        ({"payloads": None}, "payloads=None: a sequence of payloads"),
        ({"payloads": ["text"]}, "message 0 is 'text': it takes bytes, None, a MemoryMessage"),
        ({"payloads": [b"", 5]}, "message 1 is 5: it takes bytes"),
        ({"payloads": [MemoryMessage("text")]}, "message 0: payload='text': bytes or None"),
        ({"payloads": [MemoryMessage(b"", key=5)]}, "message 0: key=5: bytes or None"),
        ({"payloads": [MemoryMessage(b"", headers=[("a", "text")])]}, "message 0: headers=.*: \\(name, bytes or None"),
        ({"payloads": [MemoryMessage(b"", headers=5)]}, "message 0: headers=5"),
        ({"payloads": [MemoryMessage(b"", partition=-1)]}, "message 0: partition=-1: a whole number from 0 to 0"),
        ({"payloads": [MemoryMessage(b"", partition="0")]}, "message 0: partition='0'"),
        ({"payloads": [MemoryMessage(b"", timestamp_ms=1.5)]}, "message 0: timestamp_ms=1.5: a whole number"),
        ({"partitions": "2"}, "partitions='2': a whole number of partitions from 1 to 4,096"),
        ({"partitions": 2.0}, "partitions=2.0"),
        ({"partitions": True}, "partitions=True"),
        ({"partitions": 2**32}, "partitions=4294967296"),
        ({"keep_open": 1}, "keep_open=1: True or False"),
        ({"topic": ""}, "topic='': a name"),
        ({"topic": None}, "topic=None: a name"),
        ({"room_bytes": -1}, "room_bytes=-1: a whole number of bytes from 1"),
        ({"keepopen": True}, "MemoryConsumer has no option 'keepopen'; did you mean 'keep_open'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MemoryConsumer(**options)


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        ({"payload": "text"}, "MemoryConsumer.send: payload='text': bytes or None"),
        ({"payload": b"", "key": 3}, "key=3"),
        ({"payload": b"", "partition": 1}, "partition=1: a whole number from 0 to 0"),
        ({"payload": b"", "timeout": float("nan")}, "timeout=nan: seconds, from 0"),
    ],
)
def test_what_is_no_message_is_not_sent(message: dict[str, Any], refusal: str) -> None:
    consumer = MemoryConsumer(keep_open=True)
    with pytest.raises(ConfigError, match=refusal):
        consumer.send(**message)


def test_a_sink_in_memory_takes_no_options() -> None:
    with pytest.raises(ConfigError, match="MemoryProducer has no option 'path'"):
        MemoryProducer(path="x")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="too many positional arguments; it takes no options"):
        MemoryProducer("x")  # type: ignore[call-arg]


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="partitions=0"):
        MemoryConsumer([], partitions=0)
    with pytest.raises(ConfigError, match=r"\[payload\] for one"):
        MemoryConsumer(b"abc")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="message 1: partition=3: a whole number"):
        MemoryConsumer([b"a", MemoryMessage(b"b", partition=3)])


def test_readers_leave_no_descriptor_open(tmp_path: Path) -> None:
    before = open_files()
    for _ in range(50):
        reader = MemoryConsumer([b"x"]).open(reader_context(tmp_path))
        drain(reader, CollectingSink())
        reader.close()
    assert open_files() == before


def publisher_context(state_dir: Path) -> PublisherContext:
    return PublisherContext("app", "handler", state_dir, lambda line: None)


def test_producer_keeps_records(tmp_path: Path) -> None:
    producer = MemoryProducer()
    publisher = producer.open(publisher_context(tmp_path))
    headers = [("a", b"1")]
    frames = frame_record(b"p", b"k", encode_headers(headers)) + frame_record(None) + frame_record(b"", b"")
    publisher.publish(memoryview(frames), 3, 7)
    assert producer.records == []
    (delivery,) = publisher.deliveries()
    assert (delivery.ticket, delivery.failed) == (7, ())
    assert producer.records == [
        MemoryRecord(b"k", headers, b"p"),
        MemoryRecord(None, [], None),
        MemoryRecord(b"", [], b""),
    ]
    assert publisher.deliveries() == []


def test_producer_in_trouble_delivers_nothing_until_it_passes(tmp_path: Path) -> None:
    producer = MemoryProducer()
    publisher = producer.open(publisher_context(tmp_path))
    producer.fail_with("no broker")
    publisher.publish(memoryview(frame_record(b"p")), 1, 1)
    assert publisher.deliveries() == []
    assert publisher.trouble() == "no broker"
    threading.Thread(target=producer.fail_with, args=(None,)).start()
    (delivery,) = publisher.deliveries(timeout=30)
    assert delivery.ticket == 1
    assert publisher.trouble() is None
    assert producer.payloads == [b"p"]


def test_producer_refuses_for_good_what_it_is_told_to(tmp_path: Path) -> None:
    producer = MemoryProducer()
    publisher = producer.open(publisher_context(tmp_path))
    producer.refuse(lambda record: "too odd" if record.payload == b"odd" else None)
    publisher.publish(memoryview(frame_record(b"even") + frame_record(b"odd")), 2, 1)
    (delivery,) = publisher.deliveries()
    assert delivery.failed == (FailedRecord(1, "too odd"),)
    assert producer.payloads == [b"even"]


def test_a_reason_that_is_no_function_is_refused_where_it_is_given() -> None:
    with pytest.raises(TypeError, match=r"refuse\(\) takes a function that is given a MemoryRecord .*; this is str"):
        MemoryProducer().refuse("no room")  # type: ignore[arg-type]
