"""RabbitMQProducer against a real server: confirmed, or refused with a reason; published again when that is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythia_fast import RabbitMQConsumer, RabbitMQProducer
from pythia_fast.brokers.base import Delivery, Publisher, PublisherContext
from pythia_fast.brokers.framing import encode_headers, frame_record
from pythia_fast.errors import ConfigError, SinkError
from tests.support.rabbitmq_run import Queue, echo_app
from tests.support.rabbitmq_server import RabbitMqServer
from tests.support.tcp_proxy import TcpProxy

SECONDS = 60.0
Open = Callable[..., Publisher]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def open_publisher(rabbitmq: RabbitMqServer, tmp_path: Path, lines: list[str]) -> Iterator[Open]:
    opened: list[Publisher] = []

    def open_one(*arguments: str, **options: object) -> Publisher:
        producer = RabbitMQProducer(*arguments, **{"url": rabbitmq.url, **options})  # type: ignore[arg-type]
        opened.append(producer.open(PublisherContext("app", "handler", tmp_path, lines.append)))
        return opened[-1]

    yield open_one
    for publisher in opened:
        publisher.close(0.0)


def delivered(publisher: Publisher, tickets: int = 1) -> list[Delivery]:
    found: list[Delivery] = []
    deadline = time.monotonic() + SECONDS
    while len(found) < tickets:
        assert time.monotonic() < deadline, publisher.trouble()
        found += publisher.deliveries(0.05)
    return found


def framed(*records: bytes) -> memoryview:
    return memoryview(b"".join(records))


def test_a_record_arrives_with_its_headers_and_is_persistent(queue: Queue, open_publisher: Open) -> None:
    publisher = open_publisher(queue.name)
    headers = encode_headers([("a", b"x"), ("none", None), ("a", b"")])
    publisher.publish(framed(frame_record(b"payload", b"key", headers), frame_record(b"")), 2, 7)
    assert delivered(publisher) == [Delivery(7)]
    method, properties, body = queue.channel.basic_get(queue.name, auto_ack=True)
    assert (method.routing_key, body) == (queue.name, b"payload")
    assert properties.delivery_mode == 2
    assert properties.headers["none"] is None
    assert queue.channel.basic_get(queue.name, auto_ack=True)[2] == b""


def test_a_body_of_many_frames_arrives_whole(queue: Queue, open_publisher: Open) -> None:
    publisher = open_publisher(queue.name)
    large = bytes(range(256)) * 5000
    publisher.publish(framed(frame_record(large)), 1, 1)
    delivered(publisher)
    assert queue.channel.basic_get(queue.name, auto_ack=True)[2] == large


def test_many_tickets_are_all_confirmed(queue: Queue, open_publisher: Open) -> None:
    publisher = open_publisher(queue.name)
    buffers = [framed(*(frame_record(b"%d" % (100 * ticket + i)) for i in range(100))) for ticket in range(100)]
    for ticket, buffer in enumerate(buffers):
        publisher.publish(buffer, 100, ticket)
    assert sorted(delivery.ticket for delivery in delivered(publisher, 100)) == list(range(100))
    assert queue.count() == 10_000


def test_what_no_queue_takes_is_refused_record_by_record(queue: Queue, open_publisher: Open) -> None:
    queue.channel.queue_bind(queue.name, "amq.direct", queue.name)
    publisher = open_publisher(exchange="amq.direct")  # each record's key is its routing key
    good, lost = queue.name.encode(), b"nobody"
    headers = encode_headers([("n", b"1")])
    records = [
        frame_record(b"x", good),
        frame_record(b"y", lost, headers),
        frame_record(b"z", good),
        frame_record(b"y", lost),
    ]
    publisher.publish(framed(*records), 4, 1)
    (delivery,) = delivered(publisher)
    assert [failed.index for failed in delivery.failed] == [1, 3]
    assert "unroutable" in delivery.failed[0].reason
    assert queue.count() == 2


def test_headers_that_route_are_left_out(queue: Queue, open_publisher: Open) -> None:
    """The server would send copies to the queues that they name, and closes the channel where they are no arrays."""
    publisher = open_publisher(queue.name)
    headers = encode_headers([("CC", b'["elsewhere"]'), ("a", b"x"), ("BCC", None), ("CCC", b"y"), ("cc", b"z")])
    only = encode_headers([("CC", b"")])
    publisher.publish(framed(frame_record(b"1", headers=headers), frame_record(b"2", headers=only)), 2, 1)
    assert delivered(publisher) == [Delivery(1)]
    _, properties, body = queue.channel.basic_get(queue.name, auto_ack=True)
    assert (properties.headers, body) == ({"a": "x", "CCC": "y", "cc": "z"}, b"1")
    _, properties, body = queue.channel.basic_get(queue.name, auto_ack=True)
    assert (properties.headers, body) == (None, b"2")


def test_a_message_that_comes_back_is_known_without_the_headers_that_route(queue: Queue, open_publisher: Open) -> None:
    publisher = open_publisher(exchange="amq.direct")
    queue.channel.queue_bind(queue.name, "amq.direct", "bound")
    with_cc, without = (encode_headers([*more, ("a", b"x")]) for more in ([("CC", b"q")], []))
    records = [frame_record(b"1", key, given) for key in (b"bound", b"lost") for given in (with_cc, without)]
    publisher.publish(framed(*records), 4, 1)
    (delivery,) = delivered(publisher)
    assert [failed.index for failed in delivery.failed] == [2, 3]
    assert queue.count() == 2


def test_what_cannot_be_said_is_refused(queue: Queue, open_publisher: Open) -> None:
    publisher = open_publisher(queue.name, max_message_size=10)
    name = encode_headers([("n" * 300, b"")])
    publisher.publish(
        framed(frame_record(None), frame_record(b"x" * 11), frame_record(b"y", headers=name), frame_record(b"z")), 4, 1
    )
    (delivery,) = delivered(publisher)
    reasons = {failed.index: failed.reason for failed in delivery.failed}
    assert list(reasons) == [0, 1, 2]
    assert "null" in reasons[0]
    assert "larger than 10 bytes" in reasons[1]
    assert "headers" in reasons[2]
    assert queue.count() == 1


def test_what_was_not_confirmed_is_published_again_after_a_cut(queue: Queue, open_publisher: Open) -> None:
    with TcpProxy(queue.server.port) as proxy:
        publisher = open_publisher(queue.name, url=queue.server.url_for("pythia", port=proxy.port))
        publisher.publish(framed(frame_record(b"first")), 1, 1)
        delivered(publisher)
        proxy.freeze()
        buffer = framed(*(frame_record(b"%d" % i) for i in range(1000)))
        publisher.publish(buffer, 1000, 2)
        assert publisher.deliveries(0.3) == []
        proxy.cut()
        proxy.resume()
        assert delivered(publisher) == [Delivery(2)]
    seen = set()
    while (body := queue.channel.basic_get(queue.name, auto_ack=True)[2]) is not None:
        seen.add(body)
    assert seen >= {b"%d" % i for i in range(1000)}


def test_what_a_full_queue_refuses_is_published_again(rabbitmq: RabbitMqServer, open_publisher: Open) -> None:
    full = Queue(rabbitmq, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    publisher = open_publisher(full.name)
    publisher.publish(framed(*(frame_record(b"%d" % i) for i in range(3))), 3, 1)
    bodies: set[bytes] = set()
    deadline = time.monotonic() + SECONDS
    while len(bodies) < 3:
        assert time.monotonic() < deadline
        body = full.channel.basic_get(full.name, auto_ack=True)[2]
        bodies |= {body} if body is not None else set()
        time.sleep(0.02)
    assert delivered(publisher) == [Delivery(1)]
    full.close()


def test_what_is_larger_than_the_server_allows_is_refused_alone(queue: Queue, open_publisher: Open) -> None:
    def allow(size: int) -> None:
        queue.server.evaluate(f"application:set_env(rabbit, max_message_size, {size})")

    allow(1000)
    try:
        publisher = open_publisher(queue.name)
        publisher.publish(framed(frame_record(b"x"), frame_record(b"y" * 1001), frame_record(b"z" * 1000)), 3, 1)
        (delivery,) = delivered(publisher)
    finally:
        allow(134_217_728)
    assert [failed.index for failed in delivery.failed] == [1]
    assert "larger than 1,000 bytes" in delivery.failed[0].reason
    assert queue.count() >= 2  # what was not confirmed when the channel was closed came again


def test_tls(queue: Queue, open_publisher: Open) -> None:
    server = queue.server
    url = server.url_for("pythia", port=server.tls_port)
    publisher = open_publisher(queue.name, url=url, tls=server.tls_context())
    publisher.publish(framed(*(frame_record(b"x" * 20_000) for _ in range(500))), 500, 1)
    assert delivered(publisher) == [Delivery(1)]
    assert queue.count() == 500


def test_a_blocked_connection_is_told_and_waited_out(queue: Queue, open_publisher: Open, lines: list[str]) -> None:
    publisher = open_publisher(queue.name)
    publisher.publish(framed(frame_record(b"first")), 1, 1)
    delivered(publisher)
    queue.server.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        deadline = time.monotonic() + SECONDS
        publisher.publish(framed(frame_record(b"second")), 1, 2)
        while "takes nothing from publishers" not in (publisher.trouble() or ""):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert publisher.deliveries() == []
    finally:
        queue.server.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    assert delivered(publisher) == [Delivery(2)]
    assert any("takes nothing from publishers" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"exchange": "missing"}, "no exchange 'missing'"),
        ({"queue": "missing"}, "no queue 'missing'"),
    ],
)
def test_what_is_missing_ends_the_run_by_a_sentence(open_publisher: Open, options: dict[str, str], says: str) -> None:
    publisher = open_publisher(**options)
    with pytest.raises(SinkError, match=says):
        publisher.deliveries(SECONDS)


def test_from_queue_to_queue_nothing_is_lost(queue: Queue, rabbitmq: RabbitMqServer, tmp_path: Path) -> None:
    other = Queue(rabbitmq)
    queue.publish(b"%d" % i for i in range(1000))
    source = RabbitMQConsumer(queue.name, url=rabbitmq.url)
    app, _ = echo_app(source, sink=RabbitMQProducer(other.name, url=rabbitmq.url))
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert (queue.count(), other.count()) == (0, 1000)
    other.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "one of the two"),
        ({"queue": "q", "exchange": "e"}, "one of the two"),
        ({"queue": "q", "routing_key": "k"}, "goes with exchange="),
        ({"queue": "q", "max_message_size": 0}, "bytes from 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RabbitMQProducer(**options)  # type: ignore[arg-type]
