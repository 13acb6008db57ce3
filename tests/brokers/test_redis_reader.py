"""RedisStreamsConsumer's reader against a real server, driven as the intake thread drives it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pythia_fast._ext.collecting_sink import CALL, END, FAILED, IDLE, STALLED, poll, wake
from pythia_fast.brokers.redis import RedisStreamsConsumer
from tests.support.kafka_broker import free_ports
from tests.support.redis_reading import Reading, headers
from tests.support.redis_server import RedisServerProcess
from tests.support.tcp_proxy import TcpProxy

Open = Callable[..., Reading]
_numbers = itertools.count()


@pytest.fixture
def stream() -> str:
    return f"stream-{next(_numbers)}"


@pytest.fixture
def open_reading(redis: RedisServerProcess, tmp_path: Path) -> Iterator[Open]:
    """Open a reader; every one is closed after the test."""
    with ExitStack() as stack:

        def open_one(*streams: str, context: dict[str, Any] | None = None, **options: Any) -> Reading:
            if not {"url", "host", "port"} & options.keys():
                options["url"] = redis.url
            made = Reading(RedisStreamsConsumer(streams=streams, **options), tmp_path, **(context or {}))
            stack.callback(made.reader.close)
            return made

        yield open_one


def add(redis: RedisServerProcess, stream: str, count: int, **fields: Any) -> list[bytes]:
    """``count`` entries that hold their number in ``data``; their ids."""
    with redis.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(count):
            pipeline.xadd(stream, fields or {"data": str(number)})
        return pipeline.execute()


def pending(redis: RedisServerProcess, stream: str, group: str = "app-handler") -> int:
    with redis.client() as client:
        return int(client.xpending(stream, group)["pending"])


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# --- what is read ----------------------------------------------------------------------------------------------------


def test_entries_come_in_order_with_id_and_time(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    ids = add(redis, stream, 5000)
    reading = open_reading(stream)
    reading.poll_until(lambda: len(reading.messages) == 5000)
    assert reading.payloads == numbers(5000)
    assert [headers(message)["redis-id"] for message in reading.messages] == ids
    assert [message.timestamp_ms for message in reading.messages] == [int(each.split(b"-")[0]) for each in ids]
    assert [message.offset for message in reading.messages] == list(range(5000))
    assert {message.deliveries for message in reading.messages} == {0}
    assert reading.listener.table[0].topic == stream


def test_several_streams_are_partitions(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    names = [stream, f"{stream}-b", f"{stream}-c"]
    for count, name in zip((100, 2500, 7), names, strict=True):
        add(redis, name, count)
    reading = open_reading(*names, context={"until": "end"})
    reading.poll_to(END)
    for index, count in enumerate((100, 2500, 7)):
        assert [m.payload for m in reading.messages if m.partition == index] == numbers(count)
    reading.commit()
    assert [pending(redis, name) for name in names] == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "fields", "payload", "key", "others"),
    [
        ({}, {"data": "d", "body": "b", "x": "1"}, b"d", None, {"body": b"b", "x": b"1"}),
        ({}, {"x": "1", "body": "b"}, b"b", None, {"x": b"1"}),
        ({}, {"only": "o"}, b"o", None, {}),
        ({}, {"a": "1", "b": "2"}, None, None, {"a": b"1", "b": b"2"}),
        ({"payload_field": "x"}, {"data": "d", "x": ""}, b"", None, {"data": b"d"}),
        ({"payload_field": "gone"}, {"data": "d"}, None, None, {"data": b"d"}),
        ({"key_field": "k"}, {"data": "d", "k": "key"}, b"d", b"key", {}),
        ({"key_field": "k"}, {"data": b"\x00\xff\r\n"}, b"\x00\xff\r\n", None, {}),
    ],
)
def test_fields_become_payload_key_and_headers(
    redis: RedisServerProcess,
    stream: str,
    open_reading: Open,
    options: dict[str, str],
    fields: dict[str, Any],
    payload: bytes | None,
    key: bytes | None,
    others: dict[str, bytes],
) -> None:
    (id_,) = add(redis, stream, 1, **fields)
    reading = open_reading(stream, **options)
    reading.poll_until(lambda: len(reading.messages) == 1)
    (message,) = reading.messages
    assert (message.payload, message.key) == (payload, key)
    assert headers(message) == {"redis-id": id_, **others}


class Order(msgspec.Struct):
    order_id: int
    price: float | None
    name: str
    paid: bool


def test_fields_are_columns(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 1, order_id="7", price="1.5e3", name='a"\\\n', paid="1", more="x")
    add(redis, stream, 1, order_id="-7", price="", name="5", paid="false")
    add(redis, stream, 1, order_id='1,"price":0', price="0x10", name="n", paid="maybe")
    reading = open_reading(stream, fields=Order)
    reading.poll_until(lambda: len(reading.messages) == 3)
    first, second, third = [msgspec.json.decode(message.payload or b"") for message in reading.messages]
    assert first == {"order_id": 7, "price": 1500.0, "name": 'a"\\\n', "paid": True, "more": "x"}
    assert second == {"order_id": -7, "price": None, "name": "5", "paid": False}
    # What is no number stays a string, which the decoder refuses by its column's name.
    assert third == {"order_id": '1,"price":0', "price": "0x10", "name": "n", "paid": "maybe"}


def test_a_large_entry_among_small_ones(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    large = b"x" * (3 << 20)
    with redis.client() as client:
        for payload in (b"a", large, b"b", large):
            client.xadd(stream, {"data": payload})
    reading = open_reading(stream)
    reading.poll_until(lambda: len(reading.messages) == 4)
    assert reading.payloads == [b"a", large, b"b", large]


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_what_comes_later_is_read(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    reading = open_reading(stream)
    reading.poll_until(lambda: reading.has_told("created group"))
    for _ in range(3):
        before = len(reading.messages)
        add(redis, stream, 10)
        reading.poll_until(lambda before=before: len(reading.messages) == before + 10)  # type: ignore[misc]


def test_a_waiting_poll_is_left_at_wake(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    reading = open_reading(stream)
    reading.poll_until(lambda: reading.has_told("created group") and reading.reader.native.counters[2] > 0)
    wake(reading.reader.native)
    begun = time.monotonic()
    while reading.poll(timeout_us=60_000_000) != IDLE:
        wake(reading.reader.native)
    assert time.monotonic() - begun < 30


def test_a_stalled_sink_stops_reads_and_requests(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    payload = b"x" * 50_000
    with redis.client() as client:
        pipeline = client.pipeline(transaction=False)
        for _ in range(2000):
            pipeline.xadd(stream, {"data": payload})
        pipeline.execute()
    reading = open_reading(stream, read_ahead_bytes=1 << 20, timeout=0.5)
    reading.sink.stall_after(100)
    reading.poll_to(STALLED)
    for _ in range(20):  # one request may be due: the next read is on its way while an answer is taken in
        assert reading.poll(10_000) == STALLED
        time.sleep(0.02)
    before = reading.reader.native.counters
    for _ in range(100):
        assert reading.poll(10_000) == STALLED  # longer than an answer may take: nobody complains
        time.sleep(0.02)
    after = reading.reader.native.counters
    assert before == after
    assert after[1] < 100 * 50_100 + 4 * (1 << 20)
    assert pending(redis, stream) < 100 + 100
    reading.sink.stall_after(None)
    reading.poll_until(lambda: len(reading.messages) == 2000)
    assert not reading.has_told("does not answer")


# --- acknowledging ---------------------------------------------------------------------------------------------------


def test_only_what_is_committed_is_acknowledged(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 12_000)
    reading = open_reading(stream, context={"until": "end"})
    reading.poll_to(END)
    assert pending(redis, stream) == 12_000
    reading.commit(9_999)
    assert pending(redis, stream) == 2_001
    reading.commit()
    assert pending(redis, stream) == 0
    with redis.client() as client:
        assert client.xlen(stream) == 12_000


def test_a_temporary_name_is_deleted_at_the_end(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 3)
    for commits in (False, True):
        reading = open_reading(stream, consumer_group=f"group-{commits}", context={"until": "end"})
        reading.poll_to(END)
        if commits:
            reading.commit()
        reading.reader.close()
        with redis.client() as client:
            left = client.xinfo_consumers(stream, f"group-{commits}")
        assert [consumer["pending"] for consumer in left] == ([] if commits else [3])


def test_finish_leaves_nothing_lying(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 20_000)
    reading = open_reading(stream, consumer_name="one")
    reading.poll_until(lambda: len(reading.messages) > 1000)
    assert reading.reader.finish()
    reading.poll_to(END)
    reading.commit()
    assert pending(redis, stream) == 0
    assert len(reading.messages) < 20_000


def test_finish_ends_a_read_that_waits(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    reading = open_reading(stream)
    reading.poll_until(lambda: reading.reader.native.counters[2] > 0)
    reading.reader.finish()
    reading.poll_to(END)


# --- what was pending ------------------------------------------------------------------------------------------------


def test_an_earlier_life_is_read_first(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 2500)
    first = open_reading(stream, consumer_name="one", context={"until": "end"})
    first.poll_to(END)
    first.commit(300)
    first.reader.close()
    add(redis, stream, 10)
    second = open_reading(stream, consumer_name="one", context={"until": "end"})
    second.poll_to(END)
    assert second.payloads == numbers(2500)[300:] + numbers(10)
    assert [message.deliveries for message in second.messages] == [1] * 2200 + [0] * 10
    second.commit()
    assert pending(redis, stream) == 0


def test_entries_of_dead_consumers_are_reclaimed(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    ids = add(redis, stream, 1500)
    with redis.client() as client:
        client.xgroup_create(stream, "app-handler", id="0")
        client.xreadgroup("app-handler", "dead", {stream: ">"}, count=1500)
        client.execute_command("XCLAIM", stream, "app-handler", "dead", 0, ids[7], "RETRYCOUNT", 5)
    reading = open_reading(stream, min_idle=1)
    reading.poll_until(lambda: len(reading.messages) == 1500)
    assert sorted(headers(message)["redis-id"] for message in reading.messages) == sorted(ids)
    counts = {headers(message)["redis-id"]: message.deliveries for message in reading.messages}
    assert counts.pop(ids[7]) == 5
    assert set(counts.values()) == {1}
    reading.poll_until(lambda: reading.has_told("reclaimed"))
    reading.commit()
    assert pending(redis, stream) == 0


def test_what_is_reclaimed_beside_a_read_is_of_its_own_stream(
    redis: RedisServerProcess, stream: str, open_reading: Open
) -> None:
    """The same ids stand in both streams: one that is acknowledged in the wrong one is lost there."""
    left, unread = f"{stream}-left", f"{stream}-unread"
    ids = [f"{number}-1" for number in range(1, 4001)]
    with redis.client() as client:
        for name in (left, unread):
            pipeline = client.pipeline(transaction=False)
            for each in ids:
                pipeline.xadd(name, {"data": f"{name} {each}"}, id=each)
            pipeline.execute()
            client.xgroup_create(name, "app-handler", id="0")
        client.xreadgroup("app-handler", "dead", {left: ">"}, count=len(ids))
        for at in range(0, len(ids), 1000):
            client.xclaim(left, "app-handler", "dead", 0, ids[at : at + 1000], idle=60_000, justid=True)
    reading = open_reading(left, unread, min_idle=1)
    native, sink = reading.reader.native, reading.sink
    deadline = time.monotonic() + 60
    while len(sink.messages) < 2 * len(ids):  # a few at a time: claims are sent while the reply to a read is taken in
        assert time.monotonic() < deadline, f"{len(sink.messages)} messages; {reading.log}"
        if poll(native, sink, max_messages=20, timeout_us=1000) == CALL:
            reading.reader.serve()
        time.sleep(0.002)
    topics = {index: partition.topic.encode() for index, partition in reading.listener.table.items()}
    named = [b"%s %s" % (topics[message.partition], headers(message)["redis-id"]) for message in sink.messages]
    assert reading.payloads == named
    reading.commit()
    assert pending(redis, left) == pending(redis, unread) == 0


def test_what_is_in_hand_is_not_reclaimed_by_others(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 10)
    slow = open_reading(stream, consumer_name="slow", min_idle=1)
    slow.poll_until(lambda: len(slow.messages) == 10)
    other = open_reading(stream, consumer_name="other", min_idle=1)
    ends = time.monotonic() + 3
    other.poll_until(lambda: time.monotonic() > ends)
    assert other.messages == []
    slow.commit()
    assert pending(redis, stream) == 0


def test_pending_entries_that_were_trimmed_are_told(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    ids = add(redis, stream, 20)
    first = open_reading(stream, consumer_name="one", context={"until": "end"})
    first.poll_to(END)
    first.reader.close()
    with redis.client() as client:
        client.xdel(stream, *ids[:5])
    second = open_reading(stream, consumer_name="one")
    second.poll_until(lambda: len(second.messages) == 15 and second.has_told("5 pending entries of"))
    second.commit()
    assert pending(redis, stream) == 0


def test_trimming_that_overtakes_the_group_is_told(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 100)
    first = open_reading(stream, context={"until": "end"})
    first.poll_to(END)
    first.commit()
    first.reader.close()
    add(redis, stream, 50)
    with redis.client() as client:
        client.xtrim(stream, maxlen=20, approximate=False)
    second = open_reading(stream, context={"until": "end"})
    second.poll_to(END)
    assert len(second.messages) == 20
    assert second.has_told("30 entries of"), second.log


def test_a_live_namesake_is_told(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    first = open_reading(stream, consumer_name="same")
    first.poll_until(lambda: first.reader.native.counters[2] > 0)
    second = open_reading(stream, consumer_name="same")
    second.poll_until(lambda: second.has_told("another consumer of group"))
    assert not first.has_told("another consumer of group")


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_made_again(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    with TcpProxy(redis.port) as proxy:
        add(redis, stream, 30_000)
        reading = open_reading(stream, port=proxy.port, host="127.0.0.1", consumer_name="one")
        for at in (1, 10_000, 20_000):
            reading.poll_until(lambda at=at: len(reading.messages) >= at)  # type: ignore[misc]
            proxy.cut()
        reading.poll_until(lambda: len(set(reading.payloads)) == 30_000)
        assert len(reading.messages) == 30_000, "what is in hand is not read again"
        reading.commit()
        assert pending(redis, stream) == 0


def test_a_frozen_connection_is_given_up(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    with TcpProxy(redis.port) as proxy:
        reading = open_reading(stream, port=proxy.port, host="127.0.0.1", timeout=0.5)
        add(redis, stream, 10)
        reading.poll_until(lambda: len(reading.messages) == 10)
        proxy.freeze()
        reading.poll_until(lambda: reading.has_told("does not answer") or reading.has_told("no Redis answers"))
        proxy.cut()
        proxy.resume()
        add(redis, stream, 10)
        reading.poll_until(lambda: len(reading.messages) == 20)
        reading.commit()
        assert pending(redis, stream) == 0


def test_a_server_that_is_not_there_yet(stream: str, tmp_path: Path, open_reading: Open) -> None:
    server = RedisServerProcess(tmp_path / "own")
    reading = open_reading(stream, url=server.url)
    reading.poll_until(lambda: reading.has_told("no Redis answers at 127.0.0.1"))
    with server:
        add(server, stream, 5)
        reading.poll_until(lambda: len(reading.messages) == 5)
        reading.commit()
        assert pending(server, stream) == 0
        reading.reader.close()


def fails(reading: Reading) -> str:
    reading.poll_to(FAILED)
    return reading.reader.failure()


def test_no_server_within_connect_timeout(stream: str, open_reading: Open) -> None:
    (port,) = free_ports(1)
    reading = open_reading(stream, host="127.0.0.1", port=port, context={"connect_timeout": 0.3})
    assert f"no Redis answers at 127.0.0.1:{port}" in fails(reading)


def test_a_key_that_is_no_stream(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    with redis.client() as client:
        client.set(stream, "text")
    told = fails(open_reading(stream))
    assert f"Redis at 127.0.0.1:{redis.port}: stream {stream}, group app-handler: the key holds something else" in told


def test_wrong_credentials(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    told = fails(open_reading(stream, username="nobody", password="secret"))
    assert f"Redis at 127.0.0.1:{redis.port} refuses the credentials" in told
    assert "secret" not in told


def test_no_permission(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", "-xgroup", "-xreadgroup")
        add(redis, stream, 1)
        told = fails(open_reading(stream, username="few", password="pw"))
        assert f"stream {stream} has no group app-handler, and the user may not create it" in told
        client.xgroup_create(stream, "app-handler", id="0")
        told = fails(open_reading(stream, username="few", password="pw"))
        assert f"stream {stream}, group app-handler: the user may not do this" in told


def test_a_group_that_may_not_be_created(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    told = fails(open_reading(stream, create_group=False))
    assert f"stream {stream} has no group app-handler, and create_group=False" in told
    with redis.client() as client:
        assert not client.exists(stream)


def test_a_group_that_goes_away_is_created_again(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    add(redis, stream, 5)
    reading = open_reading(stream)
    reading.poll_until(lambda: len(reading.messages) == 5)
    with redis.client() as client:
        client.delete(stream)
    add(redis, stream, 3)
    reading.poll_until(lambda: len(reading.messages) == 8)
    assert reading.has_told("does not exist any more")
    reading.commit()
    assert pending(redis, stream) == 0


def test_an_entry_beyond_the_limit_ends_the_run(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    with redis.client() as client:
        client.xadd(stream, {"data": "fine"})
        client.xadd(stream, {"data": b"x" * 300_000})
    reading = open_reading(stream, max_entry_bytes=100_000)
    told = fails(reading)
    assert f"stream {stream}, group app-handler: an entry has 300,000 bytes or more, max_entry_bytes is 100,000" in told
    assert reading.payloads == [b"fine"]
    assert pending(redis, stream) == 2, "nothing is lost"


def test_calls_are_few(redis: RedisServerProcess, stream: str, open_reading: Open) -> None:
    """Python is asked once for the partitions, and not for a message."""
    add(redis, stream, 5000)
    reading = open_reading(stream)
    calls = 0

    def done() -> bool:
        nonlocal calls
        calls += reading.poll() == CALL
        return len(reading.messages) == 5000

    reading.poll_until(done)
    assert calls <= 1
