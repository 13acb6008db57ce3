"""RedisStreamsProducer's publisher against a real server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pythia_fast.brokers.base import Delivery, PublisherContext
from pythia_fast.brokers.framing import encode_headers, frame_record
from pythia_fast.brokers.redis import RedisStreamsProducer
from pythia_fast.brokers.redis_publisher import RedisPublisher
from pythia_fast.errors import SinkError
from tests.support.kafka_broker import free_ports
from tests.support.redis_server import RedisServerProcess
from tests.support.tcp_proxy import TcpProxy

Open = Callable[..., RedisPublisher]
_numbers = itertools.count()


@pytest.fixture
def stream() -> str:
    return f"published-{next(_numbers)}"


@pytest.fixture
def open_publisher(redis: RedisServerProcess, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_one(stream: str, *, log: Any = print, connect_timeout: float | None = None, **options: Any) -> Any:
            if not {"url", "host"} & options.keys():
                options["url"] = redis.url
            producer = RedisStreamsProducer(stream, **options)
            made = producer.open(PublisherContext("app", "handler", tmp_path, log, connect_timeout))
            stack.callback(made.close, 0)
            return made

        yield open_one


def frames(payloads: list[bytes | None]) -> memoryview:
    return memoryview(b"".join(frame_record(payload) for payload in payloads))


def deliver(publisher: RedisPublisher, tickets: int, seconds: float = 60) -> list[Delivery]:
    deadline = time.monotonic() + seconds
    done: list[Delivery] = []
    while len(done) < tickets:
        assert time.monotonic() < deadline, f"{len(done)} of {tickets} tickets: {publisher.trouble()}"
        done += publisher.deliveries(0.1)
    return done


def entries(redis: RedisServerProcess, stream: str) -> list[dict[bytes, bytes]]:
    with redis.client() as client:
        return [fields for _, fields in client.xrange(stream)]


def test_payload_key_and_headers_are_fields(redis: RedisServerProcess, stream: str, open_publisher: Open) -> None:
    publisher = open_publisher(stream)
    headers = encode_headers([("trace", b"\x00\r\n"), ("empty", None)])
    records = frame_record(b"one", b"k", headers) + frame_record(b"") + frame_record(b"three", b"")
    publisher.publish(memoryview(records), 3, 7)
    assert deliver(publisher, 1) == [Delivery(7)]
    assert entries(redis, stream) == [
        {b"data": b"one", b"key": b"k", b"trace": b"\x00\r\n", b"empty": b""},
        {b"data": b""},
        {b"data": b"three", b"key": b""},
    ]


def test_many_tickets_arrive_in_order(redis: RedisServerProcess, stream: str, open_publisher: Open) -> None:
    publisher = open_publisher(stream)
    payloads: list[bytes | None] = [b"%d" % number for number in range(30_000)]
    for ticket in range(10):
        publisher.publish(frames(payloads[ticket * 3000 : (ticket + 1) * 3000]), 3000, ticket)
    assert [delivery.ticket for delivery in deliver(publisher, 10)] == list(range(10))
    assert [fields[b"data"] for fields in entries(redis, stream)] == payloads


def test_an_empty_ticket_is_delivered(stream: str, open_publisher: Open) -> None:
    publisher = open_publisher(stream)
    publisher.publish(memoryview(b""), 0, 1)
    assert deliver(publisher, 1) == [Delivery(1)]


def test_maxlen_trims(redis: RedisServerProcess, stream: str, open_publisher: Open) -> None:
    publisher = open_publisher(stream, maxlen=1000, payload_field="body")
    publisher.publish(frames([b"x"] * 20_000), 20_000, 1)
    deliver(publisher, 1)
    with redis.client() as client:
        assert 1000 <= client.xlen(stream) < 2000
    assert entries(redis, stream)[0] == {b"body": b"x"}


def test_a_null_payload_is_refused(redis: RedisServerProcess, stream: str, open_publisher: Open) -> None:
    publisher = open_publisher(stream)
    publisher.publish(frames([None, b"a", None, b"b"]), 4, 1)
    publisher.publish(frames([None]), 1, 2)
    first, second = sorted(deliver(publisher, 2), key=lambda delivery: delivery.ticket)
    assert [failed.index for failed in first.failed] == [0, 2]
    assert [failed.index for failed in second.failed] == [0]
    assert "no null" in first.failed[0].reason
    assert [fields[b"data"] for fields in entries(redis, stream)] == [b"a", b"b"]


def test_a_payload_beyond_the_servers_limit_is_refused(tmp_path: Path, stream: str, open_publisher: Open) -> None:
    with RedisServerProcess(tmp_path / "own", {"proto-max-bulk-len": "1mb"}) as server:
        publisher = open_publisher(stream, url=server.url)
        publisher.publish(frames([b"a", b"x" * (2 << 20), b"b"]), 3, 1)
        (delivery,) = deliver(publisher, 1)
        assert [failed.index for failed in delivery.failed] == [1]
        assert "proto-max-bulk-len" in delivery.failed[0].reason
        assert [fields[b"data"] for fields in entries(server, stream)] == [b"a", b"b"]
        publisher.close(5)


def test_full_memory_is_waited_out(tmp_path: Path, stream: str, open_publisher: Open) -> None:
    with RedisServerProcess(tmp_path / "own") as server, server.client() as client:
        client.config_set("maxmemory", "1mb")
        publisher = open_publisher(stream, url=server.url)
        publisher.publish(frames([b"x" * 100] * 5000), 5000, 1)
        deadline = time.monotonic() + 60
        while "its memory is full" not in (publisher.trouble() or ""):
            assert time.monotonic() < deadline
            publisher.deliveries(0.05)
        assert f"127.0.0.1:{server.port}: stream {stream}" in (publisher.trouble() or "")
        client.config_set("maxmemory", "0")
        assert deliver(publisher, 1) == [Delivery(1)]
        assert client.xlen(stream) == 5000, "nothing twice: every record was answered"
        assert publisher.trouble() is None
        publisher.close(5)


def test_a_replica_is_waited_out(tmp_path: Path, stream: str, redis: RedisServerProcess, open_publisher: Open) -> None:
    with RedisServerProcess(tmp_path / "own") as server, server.client() as client:
        client.replicaof("127.0.0.1", str(redis.port))
        publisher = open_publisher(stream, url=server.url)
        publisher.publish(frames([b"x"]), 1, 1)
        deadline = time.monotonic() + 60
        while "replica" not in (publisher.trouble() or ""):
            assert time.monotonic() < deadline
            publisher.deliveries(0.05)
        client.replicaof("NO", "ONE")
        assert deliver(publisher, 1) == [Delivery(1)]
        publisher.close(5)


def test_cuts_lose_nothing(redis: RedisServerProcess, stream: str, open_publisher: Open) -> None:
    with TcpProxy(redis.port) as proxy:
        publisher = open_publisher(stream, host="127.0.0.1", port=proxy.port)
        payloads: list[bytes | None] = [b"%d" % number for number in range(20_000)]
        done = 0
        for ticket in range(20):
            publisher.publish(frames(payloads[ticket * 1000 : (ticket + 1) * 1000]), 1000, ticket)
            if ticket % 5 == 0:
                proxy.cut()
            done += len(publisher.deliveries(0.02))
        deliver(publisher, 20 - done)
        assert {fields[b"data"] for fields in entries(redis, stream)} == set(payloads)


def test_no_server_within_connect_timeout(stream: str, open_publisher: Open) -> None:
    (port,) = free_ports(1)
    publisher = open_publisher(stream, host="127.0.0.1", port=port, connect_timeout=0.3)
    publisher.publish(frames([b"x"]), 1, 1)
    with pytest.raises(SinkError, match=f"no Redis answers at 127.0.0.1:{port}"):
        deliver(publisher, 1)


def test_a_key_that_is_no_stream_is_trouble(redis: RedisServerProcess, stream: str, open_publisher: Open) -> None:
    with redis.client() as client:
        client.set(stream, "text")
        publisher = open_publisher(stream)
        publisher.publish(frames([b"x"]), 1, 1)
        deadline = time.monotonic() + 60
        while f"stream {stream}: the key holds something else" not in (publisher.trouble() or ""):
            assert time.monotonic() < deadline
            publisher.deliveries(0.05)
        client.delete(stream)
        assert deliver(publisher, 1) == [Delivery(1)]
