"""RabbitMQ to a handler, against a real server: all of it arrives, is acknowledged, and survives what happens to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pytest

from pythia_fast import App, Batch, RabbitMQConsumer, RabbitMQProducer, RetryPolicy
from pythia_fast.brokers.memory import MemoryProducer
from pythia_fast.errors import SourceError
from tests.support.memory_run import Events
from tests.support.rabbitmq_run import Queue, Running, echo_app
from tests.support.rabbitmq_server import OTHER_VHOST, READ_ONLY_USER, RabbitMqServer
from tests.support.tcp_proxy import TcpProxy

SECONDS = 60.0


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("ordering", ["unordered", "key"])
def test_every_message_is_handled_once_and_acknowledged(queue: Queue, tmp_path: Path, ordering: str) -> None:
    queue.publish(numbers(2000))
    source = RabbitMQConsumer(queue.name, url=queue.server.url)
    app, sink = echo_app(source, ordering=ordering, batch_size=64)
    report = app.run(workers=2, until="end", state_dir=tmp_path)
    assert report.ending == "done"
    assert sorted(int(payload or b"") for payload in sink.payloads) == list(range(2000))
    assert queue.count() == 0


def test_an_empty_queue_is_the_end(queue: Queue, tmp_path: Path) -> None:
    app, sink = echo_app(RabbitMQConsumer(queue.name, url=queue.server.url))
    assert app.run(workers=1, until="end", state_dir=tmp_path).rows == 0
    assert sink.payloads == []


def test_a_message_in_many_frames_and_one_without_a_body_arrive_whole(queue: Queue, tmp_path: Path) -> None:
    large = bytes(range(256)) * 4096
    queue.publish([b"", large, b"small"])
    app, sink = echo_app(RabbitMQConsumer(queue.name, url=queue.server.url), max_batch_bytes=1 << 21)
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert sorted(sink.payloads, key=lambda payload: len(payload or b"")) == [b"", b"small", large]


def test_a_prefetch_count_that_is_given_is_never_exceeded(queue: Queue, tmp_path: Path) -> None:
    queue.publish(numbers(100))
    source = RabbitMQConsumer(queue.name, url=queue.server.url, prefetch_count=7)
    app, sink = echo_app(source)
    sink.fail_with("nothing is taken")  # so nothing may be acknowledged
    running = Running(app, until="end", state_dir=tmp_path)
    wait_for(lambda: queue.count() == 93, "seven are delivered")
    time.sleep(0.5)
    assert queue.count() == 93
    sink.fail_with(None)
    running.join()
    assert len(sink.payloads) == 100
    assert queue.count() == 0


def test_nothing_is_acknowledged_before_its_output_is_confirmed(queue: Queue, tmp_path: Path) -> None:
    queue.publish(numbers(50))
    with TcpProxy(queue.server.port) as proxy:
        app, sink = echo_app(RabbitMQConsumer(queue.name, url=queue.server.url_for("pythia", port=proxy.port)))
        sink.fail_with("nothing is taken")
        running = Running(app, until="end", state_dir=tmp_path)
        wait_for(lambda: queue.count() == 0, "all are delivered")
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: queue.count() == 50, "what was not acknowledged is back")
        proxy.resume()
        wait_for(lambda: any("answers" in line or "trying" in line for line in running.events.lines), "it is told")
        sink.fail_with(None)
        running.join()
    assert running.error is None
    assert {int(payload or b"") for payload in sink.payloads} == set(range(50))
    assert queue.count() == 0


def test_a_connection_that_is_cut_is_made_again_and_nothing_is_lost(queue: Queue, tmp_path: Path) -> None:
    queue.publish(numbers(600))
    with TcpProxy(queue.server.port) as proxy:
        url = queue.server.url_for("pythia", port=proxy.port)
        app, sink = echo_app(RabbitMQConsumer(queue.name, url=url, prefetch_count=20), batch_size=10)
        sink.fail_with("nothing is taken")
        running = Running(app, until="end", state_dir=tmp_path)
        wait_for(lambda: queue.count() == 580, "the first are delivered")
        cuts = proxy.cut()
        sink.fail_with(None)
        while len(sink.payloads) < 400 and running.error is None:
            cuts += proxy.cut()
            time.sleep(0.3)
        running.join()
    assert running.error is None
    assert cuts > 0
    assert {int(payload or b"") for payload in sink.payloads} == set(range(600))
    assert queue.count() == 0


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_server_that_restarts_loses_nothing_of_a_durable_queue(tmp_path: Path, how: str) -> None:
    with RabbitMqServer(tmp_path / "server") as server:
        queue, results = Queue(server), Queue(server)
        queue.publish(numbers(3000), delivery_mode=2)
        app, _ = echo_app(
            RabbitMQConsumer(queue.name, url=server.url, prefetch_count=100),
            sink=RabbitMQProducer(results.name, url=server.url),
            batch_size=20,
            rate_limit=2000,
        )
        running = Running(app, until="end", state_dir=tmp_path / "state")
        wait_for(lambda: results.count() > 200, "the first are sent on")
        queue.close()
        results.close()
        if how == "killed":
            server.kill()
            server.start()
        else:
            server.restart()
        running.join()
        assert running.error is None
        assert server.messages(queue.name) == 0
        assert {int(payload) for payload in taken(server, results.name)} == set(range(3000))
    assert any("trying" in line for line in running.events.lines)


def taken(server: RabbitMqServer, name: str) -> list[bytes]:
    """All that is in a queue."""
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    channel = connection.channel()
    payloads = []
    while (got := channel.basic_get(name, auto_ack=True))[0] is not None:
        payloads.append(got[2])
    connection.close()
    return payloads


def test_a_server_that_falls_silent_is_left_and_found_again(queue: Queue, tmp_path: Path) -> None:
    with TcpProxy(queue.server.port) as proxy:
        url = queue.server.url_for("pythia", port=proxy.port)
        app, sink = echo_app(RabbitMQConsumer(queue.name, url=url, heartbeat=1))
        sink.fail_with("nothing is taken")
        queue.publish(numbers(10))
        running = Running(app, until="end", state_dir=tmp_path)
        wait_for(lambda: queue.count() == 0, "all are delivered")
        proxy.freeze()
        wait_for(lambda: any("sign of life" in line for line in running.events.lines), "the silence is told")
        proxy.resume()
        sink.fail_with(None)
        running.join()
    assert {int(payload or b"") for payload in sink.payloads} == set(range(10))
    assert queue.count() == 0


def delivery_counts(batch: Batch[Any]) -> list[bytes]:
    return [b"%d" % count for count in batch.delivery_counts]


@pytest.mark.parametrize(("kind", "told"), [("quorum", b"2"), ("classic", b"1")])
def test_a_row_knows_how_often_it_was_delivered_before(
    rabbitmq: RabbitMqServer, tmp_path: Path, kind: str, told: bytes
) -> None:
    """A classic queue says only that it was."""
    arguments = {"x-queue-type": kind}
    made = Queue(rabbitmq, arguments=arguments)
    made.publish([b"a"])
    for _ in range(2):
        method, _, _ = made.channel.basic_get(made.name)
        made.channel.basic_nack(method.delivery_tag, requeue=True)
    app, sink = App("counts"), MemoryProducer()
    source = RabbitMQConsumer(made.name, url=rabbitmq.url, durable=True, arguments=arguments)
    app.batch_handler(source=source, sink=sink, decoder="raw", name="counts")(delivery_counts)
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert sink.payloads == [told]
    wait_for(lambda: made.count() == 0, "it is acknowledged")
    made.close()


def test_deliveries_that_are_kept_too_long_for_the_server_are_told_and_come_again(queue: Queue, tmp_path: Path) -> None:
    def set_times(timeout_ms: int, tick_ms: int) -> None:
        queue.server.ctl(
            "eval",
            f"application:set_env(rabbit, consumer_timeout, {timeout_ms}), "
            f"application:set_env(rabbit, channel_tick_interval, {tick_ms}).",
        )

    queue.publish(numbers(3))
    app, sink = echo_app(RabbitMQConsumer(queue.name, url=queue.server.url))
    sink.fail_with("nothing is taken")
    set_times(500, 200)
    try:
        running = Running(app, until="end", state_dir=tmp_path)
        wait_for(lambda: any("consumer_timeout" in line for line in running.events.lines), "the timeout is told")
    finally:
        set_times(1_800_000, 60_000)
    sink.fail_with(None)
    running.join()
    assert running.error is None
    assert {int(payload or b"") for payload in sink.payloads} == {0, 1, 2}
    assert queue.count() == 0


def test_tls(queue: Queue, tmp_path: Path) -> None:
    queue.publish([*numbers(500), b"x" * 300_000])
    server = queue.server
    source = RabbitMQConsumer(
        queue.name, url=server.url.replace(str(server.port), str(server.tls_port)), tls=server.tls_context()
    )
    app, sink = echo_app(source)
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert len(sink.payloads) == 501
    assert queue.count() == 0


def test_a_queue_that_does_not_exist_is_declared_and_bound(queue: Queue, tmp_path: Path) -> None:
    name = f"{queue.name}-new"
    source = RabbitMQConsumer(name, url=queue.server.url, exchange="amq.topic", routing_key="orders.*")
    app, sink = echo_app(source)
    events = Events()
    app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert any("does not exist; declaring" in line for line in events.lines)
    queue.channel.basic_publish("amq.topic", "orders.new", b"routed")
    app.run(workers=1, until="end", state_dir=tmp_path)
    assert sink.payloads == [b"routed"]


def test_a_queue_that_is_deleted_while_it_is_read_is_told_and_declared_again(queue: Queue, tmp_path: Path) -> None:
    app, sink = echo_app(RabbitMQConsumer(queue.name, url=queue.server.url))
    sink.fail_with("nothing is taken")
    queue.publish([b"1"])
    running = Running(app, until="end", state_dir=tmp_path)
    wait_for(lambda: queue.count() == 0, "it is delivered")
    queue.channel.queue_delete(queue.name)
    wait_for(lambda: any("was deleted" in line for line in running.events.lines), "it is told")
    wait_for(lambda: any("does not exist; declaring" in line for line in running.events.lines), "it is declared again")
    sink.fail_with(None)
    running.join()
    assert running.error is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"user": "pythia", "password": "wrong"}, "refuses user 'pythia'"),
        ({"user": "pythia", "vhost": "missing"}, "virtual host 'missing'"),
        ({"user": READ_ONLY_USER, "vhost": OTHER_VHOST}, f"virtual host '{OTHER_VHOST}'"),
        ({"user": READ_ONLY_USER, "queue": "missing"}, "user 'reader' may not declare queue 'missing'"),
        ({"user": "pythia", "durable": False}, "which is there with other properties"),
        ({"user": "pythia", "exchange": "missing"}, "no exchange 'missing'"),
    ],
    ids=["password", "vhost", "permission", "queue", "declared otherwise", "exchange"],
)
def test_what_the_server_refuses_ends_the_run_by_a_sentence(
    queue: Queue, tmp_path: Path, options: dict[str, str], says: str
) -> None:
    given = dict(options)
    url = queue.server.url_for(given.pop("user"), given.pop("password", "fast"), vhost=given.pop("vhost", "%2F"))
    app, _ = echo_app(RabbitMQConsumer(given.pop("queue", queue.name), url=url, **given))  # type: ignore[arg-type]
    with pytest.raises(SourceError) as refused:
        app.run(workers=1, until="end", state_dir=tmp_path)
    assert says in str(refused.value)
    assert "127.0.0.1" in str(refused.value)
    assert "fast" not in str(refused.value)


def test_what_is_done_is_acknowledged_while_rows_beside_it_wait(queue: Queue, tmp_path: Path) -> None:
    """A row of every tenth batch waits. With all of their batches unacknowledged no more would be delivered."""
    queue.publish(numbers(1000))
    source = RabbitMQConsumer(queue.name, url=queue.server.url, prefetch_count=50)
    app, sink, served = App("waits"), MemoryProducer(), tmp_path / "served"

    @app.batch_handler(
        source=source,
        sink=sink,
        decoder="raw",
        batch_size=10,
        batch_timeout=0.05,
        retry=RetryPolicy(max_attempts=1000, backoff=0.2, max_backoff=0.2),
    )
    def handler(batch: Batch[Any]) -> list[bytes]:
        payloads: list[bytes] = batch["payload"].tolist()
        batch.retry([int(payload) % 100 == 7 and not served.exists() for payload in payloads])
        return payloads

    running = Running(app, until="end", state_dir=tmp_path / "state")
    wait_for(lambda: len(sink.payloads) == 990, "all but those that wait are handled")
    served.touch()
    running.join()
    assert running.error is None
    assert sorted(int(payload or b"") for payload in sink.payloads) == list(range(1000))
    assert queue.count() == 0
