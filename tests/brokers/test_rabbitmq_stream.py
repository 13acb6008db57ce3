"""Streams of RabbitMQ to a handler, against a real server: all of it arrives, in order, and is gone on with."""

from __future__ import annotations

import datetime
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pika
import pytest

from pythia_fast import App, Batch, RabbitMQStreamConsumer
from pythia_fast._ext.collecting_sink import CALL, END
from pythia_fast.brokers.memory import MemoryConsumer, MemoryProducer
from pythia_fast.brokers.rabbitmq import RabbitMQProducer
from pythia_fast.brokers.rabbitmq_stream_trouble import Refused
from pythia_fast.errors import SourceError
from tests.support.kafka_broker import free_ports
from tests.support.memory_run import echo
from tests.support.rabbitmq_run import echo_app
from tests.support.rabbitmq_server import ADDRESS, OTHER_VHOST, PASSWORD, USER, RabbitMqServer
from tests.support.rabbitmq_stream import Stream, SuperStream, entry, message, sub_batch, text, url_of
from tests.support.redis_reading import Reading
from tests.support.tcp_proxy import TcpProxy

SECONDS = 60.0
GROUP = "tests"


@pytest.fixture
def stream(rabbitmq: RabbitMqServer) -> Iterator[Stream]:
    made = Stream(rabbitmq)
    yield made
    made.close()


@pytest.fixture
def super_stream(rabbitmq: RabbitMqServer) -> Iterator[SuperStream]:
    made = SuperStream(rabbitmq, 3)
    yield made
    made.close()


def numbers(*span: int) -> list[bytes]:
    return [b"%d" % number for number in range(*span)]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def source_of(stream: Stream, *, port: int | None = None, **options: Any) -> RabbitMQStreamConsumer:
    told = {"consumer_group": GROUP, "url": url_of(stream.server, port), **options}
    return RabbitMQStreamConsumer(stream.name, **told)


def read(source: RabbitMQStreamConsumer, folder: Path, **options: Any) -> list[bytes | None]:
    """What one run to the end sends on."""
    app, sink = echo_app(source, **options)
    report = app.run(workers=1, until="end", state_dir=folder, connect_timeout=20)
    assert report.ending == "done"
    return sink.payloads


@contextmanager
def reading(source: RabbitMQStreamConsumer, folder: Path, **context: Any) -> Iterator[Reading]:
    """A reader without an end."""
    made = Reading(source, folder, **{"until": "forever", **context})
    try:
        yield made
    finally:
        made.reader.close()


def has(running: Reading, count: int) -> bool:
    return len(running.messages) >= count


def reasons(dead: MemoryProducer) -> list[str]:
    return [" ".join(str(value) for value in dict(record.headers).values()) for record in dead.records]


def may_publish(stream: Stream) -> bool:
    try:
        stream.publish([])
    except (OSError, Refused):
        return False
    return True


# -- all of it, once -------------------------------------------------------------------------------


def test_a_hundred_thousand_messages_in_their_order(stream: Stream, tmp_path: Path) -> None:
    stream.publish(numbers(100_000))
    assert read(source_of(stream), tmp_path, ordering="partition") == numbers(100_000)
    assert stream.stored(GROUP) == 99_999


def test_an_empty_stream_is_the_end(stream: Stream, tmp_path: Path) -> None:
    assert read(source_of(stream), tmp_path) == []
    assert stream.stored(GROUP) is None


def test_a_run_goes_on_behind_the_one_before(stream: Stream, tmp_path: Path) -> None:
    stream.publish(numbers(1000))
    assert read(source_of(stream), tmp_path) == numbers(1000)
    assert read(source_of(stream), tmp_path) == []
    stream.publish(numbers(1000, 1007))
    assert read(source_of(stream), tmp_path) == numbers(1000, 1007)
    assert read(source_of(stream, consumer_group="another"), tmp_path) == numbers(1007)


def test_what_comes_while_it_runs_is_handled_and_stored(stream: Stream, tmp_path: Path) -> None:
    with reading(source_of(stream), tmp_path) as running:
        stream.publish(numbers(10), at_once=1)
        running.poll_until(lambda: running.payloads == numbers(10))
        running.reader.commit({0: 7})
        wait_for(lambda: stream.stored(GROUP) == 6, "offsets are stored while it runs")
        assert running.reader.commit({0: 10}, wait=True) == ""
        assert stream.stored(GROUP) == 9


def test_how_far_it_is_behind(stream: Stream, tmp_path: Path) -> None:
    stream.publish(numbers(100))
    with reading(source_of(stream), tmp_path) as running:
        assert running.reader.lag() == {}  # nobody knows yet
        running.poll_until(lambda: has(running, 100))
        running.commit(60)
        assert running.reader.lag() == {(stream.name, 0): 40}
        assert running.reader.progress() is None
        assert running.reader.place(stream.name, 0, 1234) == f"stream {stream.name} offset 1,234"
    with reading(source_of(stream), tmp_path, until="end") as running:
        running.poll_to(END)
        assert running.payloads == numbers(60, 100)
        assert running.reader.progress() == (40, 40)


def test_large_messages_and_small_ones(stream: Stream, tmp_path: Path) -> None:
    payloads = [bytes(range(256)) * size for size in (0, 1, 1000, 3000, 0, 2)]
    stream.publish(payloads, at_once=1)
    source = source_of(stream, read_ahead_bytes=64 << 10)
    assert read(source, tmp_path, max_batch_bytes=4 << 20) == payloads


def test_chunks_that_are_larger_than_what_is_read_ahead(stream: Stream, tmp_path: Path) -> None:
    payloads = [b"%06d" % number + bytes(2000) for number in range(4000)]
    stream.publish(payloads)
    assert read(source_of(stream, read_ahead_bytes=64 << 10), tmp_path, ordering="partition") == payloads


def test_a_chunk_that_is_larger_than_may_be_ends_the_run(stream: Stream, tmp_path: Path) -> None:
    stream.publish([bytes(200_000)])
    app, _ = echo_app(source_of(stream, max_chunk_bytes=100_000))
    with pytest.raises(SourceError, match=r"a chunk of messages has 200,\d+ bytes, max_chunk_bytes is 100,000"):
        app.run(workers=1, until="end", state_dir=tmp_path)


def test_over_tls(stream: Stream, tmp_path: Path) -> None:
    server = stream.server
    stream.publish(numbers(50_000))
    source = source_of(stream, port=server.stream_tls_port, tls=server.tls_context(), read_ahead_bytes=128 << 10)
    assert read(source, tmp_path, ordering="partition") == numbers(50_000)
    assert stream.stored(GROUP) == 49_999


def test_a_certificate_that_nobody_vouches_for(stream: Stream, tmp_path: Path) -> None:
    app, _ = echo_app(source_of(stream, port=stream.server.stream_tls_port, tls=True))
    with pytest.raises(SourceError, match="its certificate is not accepted"):
        app.run(workers=1, until="end", state_dir=tmp_path)


def test_a_stream_is_written_to_as_a_queue(stream: Stream, tmp_path: Path) -> None:
    app = App("rabbit")
    source = MemoryConsumer([b"%d" % number for number in range(100)])
    sink = RabbitMQProducer(stream.name, url=stream.server.url)
    app.batch_handler(source=source, sink=sink, decoder="raw", name="echo")(echo)
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert read(source_of(stream), tmp_path / "reading") == numbers(100)


@pytest.mark.parametrize("tls", [False, True])
def test_a_sink_that_takes_nothing_bounds_what_is_read_and_keeps_the_connection(
    stream: Stream, tmp_path: Path, tls: bool
) -> None:
    stream.publish(bytes(10_000) for _ in range(4000))
    server = stream.server
    secured = {"port": server.stream_tls_port, "tls": server.tls_context()} if tls else {}
    source = source_of(stream, heartbeat=1, read_ahead_bytes=1 << 20, **secured)
    with reading(source, tmp_path) as running:
        running.sink.stall_after(100)
        running.poll_until(lambda: has(running, 100))
        outcomes: Counter[int] = Counter()
        deadline = time.monotonic() + 4  # longer than two heartbeats
        while time.monotonic() < deadline:
            outcomes[running.poll()] += 1
            time.sleep(0.005)
        _, received, _ = running.reader.native.counters
        assert received < 3 << 20
        assert outcomes[CALL] < 100  # it does not spin
        running.sink.stall_after(None)
        running.poll_until(lambda: has(running, 4000))
        assert [message.offset for message in running.messages] == list(range(4000))
        assert not running.has_told("trying on"), running.log


# -- where a group begins --------------------------------------------------------------------------


def test_offsets_to_begin_with(stream: Stream, tmp_path: Path) -> None:
    stream.publish(numbers(100))
    time.sleep(0.05)  # the next chunk has a later timestamp
    between = datetime.datetime.now(datetime.UTC)
    time.sleep(0.05)
    stream.publish(numbers(100, 150))
    for number, (offset, first) in enumerate([("first", 0), (0, 0), (42, 42), (149, 149), ("next", 150), (9999, 150)]):
        group = f"group-{number}"
        assert read(source_of(stream, consumer_group=group, offset=offset), tmp_path) == numbers(first, 150), offset
    assert read(source_of(stream, consumer_group="at", offset=between), tmp_path) == numbers(100, 150)
    last = read(source_of(stream, consumer_group="last", offset="last"), tmp_path)
    assert last == numbers(150)[-len(last) :]
    assert 0 < len(last) <= 50


def test_next_is_what_comes_after_the_start(stream: Stream, tmp_path: Path) -> None:
    stream.publish(numbers(10))
    with reading(source_of(stream, offset="next"), tmp_path) as running:
        running.poll_until(lambda: bool(running.listener.table))
        stream.publish(numbers(10, 20))
        running.poll_until(lambda: running.payloads == numbers(10, 20))
        assert [message.offset for message in running.messages] == list(range(10, 20))


def test_a_stored_offset_goes_before_the_option(stream: Stream, tmp_path: Path) -> None:
    stream.publish(numbers(10))
    read(source_of(stream), tmp_path)
    stream.publish(numbers(10, 12))
    assert read(source_of(stream, offset="first"), tmp_path) == numbers(10, 12)


# -- what is in it ---------------------------------------------------------------------------------


def seen(batch: Batch[Any]) -> list[str]:
    return [
        f"{payload!r} {key!r} {sorted(dict(headers).items())!r}"
        for payload, key, headers in zip(batch["payload"].tolist(), batch.keys, batch.headers, strict=True)
    ]


def test_messages_that_came_by_amqp_0_9_1_keep_key_and_headers(stream: Stream, tmp_path: Path) -> None:
    properties = pika.BasicProperties(headers={"trace": "t-1", "count": 3})
    stream.channel.confirm_delivery()
    stream.channel.basic_publish("", stream.name, b"payload", properties)
    app, sink = App("rabbit"), MemoryProducer()
    app.batch_handler(source=source_of(stream), sink=sink, decoder="raw", name="seen")(seen)
    app.run(workers=1, until="end", state_dir=tmp_path)
    (found,) = sink.payloads
    assert found is not None
    told = found.decode()
    assert told.startswith(f"b'payload' {stream.name.encode()!r}")
    assert "('trace', b't-1')" in told
    assert "('count', b'3')" in told


def test_the_key_is_the_application_property_that_is_named(stream: Stream, tmp_path: Path) -> None:
    stream.publish_raw([message(b"p", {"id": text("k-1"), "other": b"\x54\x05"})])
    app, sink = App("rabbit"), MemoryProducer()
    source = source_of(stream, key_property="id")
    app.batch_handler(source=source, sink=sink, decoder="raw", name="seen")(seen)
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert sink.payloads == [b"b'p' b'k-1' [('other', b'5')]"]


def test_bare_bytes(stream: Stream, tmp_path: Path) -> None:
    stream.publish_raw(numbers(100))
    assert read(source_of(stream, message_format="raw"), tmp_path) == numbers(100)


def test_what_is_no_amqp_message_is_a_dead_letter_that_says_what_to_do(stream: Stream, tmp_path: Path) -> None:
    stream.publish_raw([message(b"good"), b'{"bare":1}', message(b"too")])
    dead = MemoryProducer()
    assert read(source_of(stream), tmp_path, dead_letter=dead) == [b"good", b"too"]
    assert dead.payloads == [b'{"bare":1}']
    assert "message_format" in reasons(dead)[0]
    assert stream.stored(GROUP) == 2


def test_sub_batches_plain_and_with_gzip(stream: Stream, tmp_path: Path) -> None:
    def batch(first: int, compression: int) -> tuple[bytes, int]:
        return sub_batch([message(payload) for payload in numbers(first, first + 100)], compression), 100

    stream.publish_batches([batch(0, 0), batch(100, 1), batch(200, 0), batch(300, 1)])
    stream.publish(numbers(400, 410))
    assert read(source_of(stream), tmp_path, ordering="partition") == numbers(410)
    assert stream.stored(GROUP) == 409
    assert read(source_of(stream, consumer_group="within", offset=150), tmp_path) == numbers(150, 410)


def test_sub_batches_that_cannot_be_read_are_one_dead_letter_each(stream: Stream, tmp_path: Path) -> None:
    contents = [message(payload) for payload in numbers(10)]
    torn = b"".join(map(entry, contents))[:-3]
    stream.publish_batches(
        [
            (sub_batch(contents, 4, b"zstandard"), 10),
            (sub_batch(contents, 1, b"no gzip"), 10),
            (struct.pack(">BHII", 0x80, 10, len(torn), len(torn)) + torn, 10),
        ]
    )
    stream.publish(numbers(10, 20))
    dead = MemoryProducer()
    assert read(source_of(stream), tmp_path, dead_letter=dead, ordering="partition") == [*numbers(9), *numbers(10, 20)]
    assert dead.payloads == [b"zstandard", b"no gzip", torn[-len(entry(contents[9])) + 3 :]]
    packed, damaged, cut = reasons(dead)
    assert "compressed, and not with gzip" in packed
    assert "cannot be taken apart" in damaged
    assert "cannot be taken apart" in cut
    assert stream.stored(GROUP) == 39


# -- super streams ---------------------------------------------------------------------------------


def test_a_super_stream_is_read_as_partitions(super_stream: SuperStream, tmp_path: Path) -> None:
    for number in range(3):
        writer = super_stream.writer(number)
        writer.publish(message(b"%d-%d" % (number, i)) for i in range(1000 * number))
        writer.close()
    source = RabbitMQStreamConsumer(
        super_stream=super_stream.name, consumer_group=GROUP, url=url_of(super_stream.server)
    )
    found = read(source, tmp_path, ordering="partition")
    assert len(found) == 3000
    for number in range(3):
        of_one = [payload for payload in found if (payload or b"").startswith(b"%d-" % number)]
        assert of_one == [b"%d-%d" % (number, i) for i in range(1000 * number)]
    assert super_stream.stored(GROUP) == [None, 999, 1999]
    assert read(source, tmp_path) == []


# -- what can go wrong -----------------------------------------------------------------------------


def test_connections_that_are_cut(stream: Stream, tmp_path: Path) -> None:
    """Nothing is lost and nothing is repeated: a new connection goes on where the one before was."""
    stream.publish(numbers(20_000))
    with (
        TcpProxy(stream.server.stream_port) as proxy,
        reading(source_of(stream, port=proxy.port), tmp_path) as running,
    ):
        for count in (100, 5000, 20_000):
            running.poll_until(partial(has, running, count))
            proxy.cut()
        stream.publish(numbers(20_000, 20_010))
        running.poll_until(lambda: has(running, 20_010))
        assert running.payloads == numbers(20_010)
        running.commit()
        assert running.has_told("closed the connection; trying on")
    assert stream.stored(GROUP) == 20_009


def test_a_server_that_restarts(tmp_path: Path) -> None:
    with RabbitMqServer(tmp_path / "server") as server:
        stream = Stream(server)
        stream.leave()
        stream.publish(numbers(1000))
        with reading(source_of(stream), tmp_path) as running:
            running.poll_until(lambda: has(running, 1000))
            running.reader.commit({0: 1000})  # and its connection goes before anybody has seen it there
            server.restart()
            wait_for(lambda: may_publish(stream), "the stream has a leader again")
            stream.publish(numbers(1000, 1100))
            running.poll_until(lambda: has(running, 1100))
            assert running.payloads == numbers(1100)
            running.commit()
            # what the server stores takes offsets, too
            assert stream.stored(GROUP) == running.messages[-1].offset >= 1099


def test_a_stream_that_does_not_exist(rabbitmq: RabbitMqServer, tmp_path: Path) -> None:
    for source in (
        RabbitMQStreamConsumer("nowhere", url=url_of(rabbitmq)),
        RabbitMQStreamConsumer(super_stream="nowhere", url=url_of(rabbitmq)),
    ):
        app, _ = echo_app(source)
        with pytest.raises(SourceError, match=r"'nowhere'.*no such stream.*x-queue-type=stream"):
            app.run(workers=1, until="end", state_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"password": "wrong"}, "refuses user 'pythia': is the password right"),
        ({"username": "nobody"}, "refuses user 'nobody'"),
        ({"virtual_host": "nowhere"}, "into virtual host 'nowhere': does it exist"),
        ({"virtual_host": OTHER_VHOST}, "no such stream in virtual host 'other'"),
    ],
)
def test_logins_that_are_refused(stream: Stream, tmp_path: Path, options: dict[str, str], told: str) -> None:
    login = {"host": ADDRESS, "port": stream.server.stream_port, "username": USER, "password": PASSWORD, **options}
    app, _ = echo_app(RabbitMQStreamConsumer(stream.name, **login))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=told):
        app.run(workers=1, until="end", state_dir=tmp_path)


def test_another_protocol_at_the_port(stream: Stream, tmp_path: Path) -> None:
    app, _ = echo_app(source_of(stream, port=stream.server.port))
    with pytest.raises(SourceError, match="does not speak RabbitMQ's stream protocol"):
        app.run(workers=1, until="end", state_dir=tmp_path)


def test_nobody_at_the_port(stream: Stream, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    app, _ = echo_app(source_of(stream, port=port))
    with pytest.raises(SourceError, match=r"nobody listens there.*nothing came of it within 1 s"):
        app.run(workers=1, until="end", state_dir=tmp_path, connect_timeout=1.0)


def test_a_stream_that_is_deleted_while_it_is_read_is_told(stream: Stream, tmp_path: Path) -> None:
    stream.publish(numbers(10))
    with reading(source_of(stream), tmp_path) as running:
        running.poll_until(lambda: has(running, 10))
        stream.channel.queue_delete(stream.name)
        running.poll_until(lambda: running.has_told("was deleted"))
        running.poll_until(lambda: running.has_told("no such stream"))
