"""What a RabbitMQ is asked before a run, on a real server: and that it is as it was afterwards."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from pythia_fast import RabbitMQConsumer
from pythia_fast.brokers.rabbitmq import RabbitMQProducer
from pythia_fast.brokers.rabbitmq_asking import ASKING_QUEUE, Asking
from tests.support.checkup import bad, context, found, told
from tests.support.kafka_broker import free_ports
from tests.support.rabbitmq_run import Queue
from tests.support.rabbitmq_server import READ_ONLY_USER, RabbitMqServer
from tests.support.tcp_proxy import TcpProxy

Declare = Callable[..., str]


@pytest.fixture
def declare(rabbitmq: RabbitMqServer) -> Iterator[Declare]:
    """Declare a queue that no other test uses; its name."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel = connection.channel()
    made: list[str] = []

    def queue(*, durable: bool = True, **arguments: Any) -> str:
        name = f"checkup-{uuid.uuid4().hex[:8]}"
        channel.queue_declare(
            name, durable=durable, arguments={key.replace("_", "-"): v for key, v in arguments.items()}
        )
        made.append(name)
        return name

    yield queue
    for name in made:
        channel.queue_delete(name)
    connection.close()


def exists(server: RabbitMqServer, queue: str) -> bool:
    with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
        try:
            connection.channel().queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True


def test_a_queue_that_fits(rabbitmq: RabbitMqServer, declare: Declare) -> None:
    name = declare(x_queue_type="quorum")
    findings = found(RabbitMQConsumer(name, url=rabbitmq.url))
    assert bad(findings) == []
    told(findings, "ok", f"RabbitMQ 3.10.8 at 127.0.0.1:{rabbitmq.port}")
    told(findings, "ok", f"queue '{name}' is there, with 0 messages ready and 0 consumers")
    told(findings, "ok", "is of type quorum")
    told(findings, "note", "has no x-delivery-limit")


def test_asking_takes_nothing_and_makes_nothing(rabbitmq: RabbitMqServer, queue: Queue) -> None:
    queue.publish([b"one", b"two"])
    for end in (RabbitMQConsumer(queue.name, url=rabbitmq.url), RabbitMQProducer(queue.name, url=rabbitmq.url)):
        assert bad(found(end)) == []
    assert queue.count() == 2
    method, _, body = queue.channel.basic_get(queue.name, auto_ack=True)
    assert (body, method.redelivered) == (b"one", False), "nobody was handed it before"
    assert queue.channel.queue_declare(queue.name, passive=True).method.consumer_count == 0
    assert not exists(rabbitmq, ASKING_QUEUE)


def test_a_queue_that_is_missing_is_not_made(rabbitmq: RabbitMqServer) -> None:
    findings = found(RabbitMQConsumer("checkup-missing", url=rabbitmq.url))
    told(findings, "note", "queue 'checkup-missing' does not exist; a run declares it, durable and classic")
    sink = found(RabbitMQProducer("checkup-missing", url=rabbitmq.url), context(role="sink"))
    told(sink, "problem", "queue 'checkup-missing' does not exist: every record would come back")
    exchange = found(RabbitMQProducer(exchange="checkup-none", url=rabbitmq.url), context(role="sink"))
    told(exchange, "problem", f"exchange 'checkup-none' at 127.0.0.1:{rabbitmq.port}, virtual host / does not exist")
    assert not exists(rabbitmq, "checkup-missing")


def test_a_user_without_rights(rabbitmq: RabbitMqServer, declare: Declare) -> None:
    name, url = declare(), rabbitmq.url_for(READ_ONLY_USER)
    reads = found(RabbitMQConsumer(name, url=url))
    assert bad(reads) == []
    told(reads, "note", f"the settings of queue '{name}' cannot be asked: user 'reader' may not declare it")
    missing = found(RabbitMQConsumer("checkup-missing", url=url))
    told(missing, "problem", "does not exist, and user 'reader' may not declare it")
    writes = found(RabbitMQProducer(name, url=url), context(role="sink"))
    told(writes, "problem", "user 'reader' may not write to the default exchange")
    elsewhere = found(RabbitMQConsumer(name, url=rabbitmq.url_for(READ_ONLY_USER, vhost="other")))
    told(elsewhere, "problem", "does not let user 'reader' into virtual host 'other'")


def test_a_user_who_may_not_read(rabbitmq: RabbitMqServer, declare: Declare) -> None:
    name = declare()
    rabbitmq.ctl("add_user", "nobody", "secret")
    rabbitmq.ctl("set_permissions", "nobody", "^$", "^$", "^$")
    findings = found(RabbitMQConsumer(name, url=rabbitmq.url_for("nobody", "secret")))
    told(findings, "problem", f"user 'nobody' may not read queue '{name}'")
    assert "secret" not in repr(findings)


def test_wrong_credentials(rabbitmq: RabbitMqServer) -> None:
    (finding,) = found(RabbitMQConsumer("orders", url=rabbitmq.url_for("pythia", "wrong-password")))
    assert finding.grade == "problem"
    assert "refuses user 'pythia': is the password right" in finding.what
    assert "wrong-password" not in repr(finding)


def test_nobody_listens() -> None:
    (port,) = free_ports(1)
    (finding,) = found(RabbitMQConsumer("orders", host="127.0.0.1", port=port))
    assert finding.grade == "problem"
    assert f"RabbitMQ at 127.0.0.1:{port} cannot be reached: Connection refused" in finding.what


def test_a_server_that_does_not_answer(rabbitmq: RabbitMqServer) -> None:
    with TcpProxy(rabbitmq.port) as proxy:
        proxy.freeze()
        begun = time.monotonic()
        (finding,) = found(
            RabbitMQConsumer("orders", url=rabbitmq.url_for("pythia", port=proxy.port)), context(timeout_s=1)
        )
        assert time.monotonic() - begun < 20
    assert finding.grade == "problem"
    assert f"RabbitMQ at 127.0.0.1:{proxy.port} did not answer within 0." in finding.what


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x_message_ttl": 5000}, "that are older than 5000 ms are dropped, read or not"),
        ({"x_max_length": 10}, "has x-max-length=10 with drop-head"),
        ({"x_queue_type": "quorum", "x_delivery_limit": 5}, "that was delivered more than 5 times is dropped"),
        ({"durable": False}, "is not durable"),
    ],
)
def test_what_loses_messages_is_a_warning(
    rabbitmq: RabbitMqServer, declare: Declare, arguments: dict[str, Any], words: str
) -> None:
    findings = found(RabbitMQConsumer(declare(**arguments), url=rabbitmq.url))
    told(findings, "warning", words)
    assert len(bad(findings)) == 1


def test_all_arguments_of_a_queue_are_found_out(rabbitmq: RabbitMqServer, declare: Declare) -> None:
    arguments = {"x_message_ttl": 60000, "x_max_length": 7, "x_overflow": "reject-publish", "x_queue_mode": "lazy"}
    findings = found(RabbitMQConsumer(declare(**arguments), url=rabbitmq.url))
    line = told(findings, "ok", "is of type classic").what
    for argument, value in arguments.items():
        assert f"{argument.replace('_', '-')}={value}" in line
    told(findings, "warning", "older than 60000 ms")
    assert len(bad(findings)) == 1, "a queue that refuses when it is full loses nothing"


def test_a_stream_is_no_queue(rabbitmq: RabbitMqServer, declare: Declare) -> None:
    told(found(RabbitMQConsumer(declare(x_queue_type="stream"), url=rabbitmq.url)), "problem", "is a stream")


def test_settings_against_the_handler(rabbitmq: RabbitMqServer, queue: Queue) -> None:
    queue.channel.basic_consume(queue.name, lambda *_: None)
    source = RabbitMQConsumer(queue.name, url=rabbitmq.url, prefetch_count=100, auto_ack=True)
    findings = found(source, context(ordering="key", batch_deadline_s=3600.0))
    told(findings, "warning", "auto_ack=True")
    told(findings, "warning", "prefetch_count=100 is less than batch_size=4,096")
    told(findings, "warning", 'has 1 consumers already, so its order is not kept: ordering="key"')
    told(findings, "warning", "batch_deadline=3600 s is longer than consumer_timeout, 1800 s")
    exclusive = found(RabbitMQConsumer(queue.name, url=rabbitmq.url, exclusive=True))
    told(exclusive, "problem", "exclusive=True")


def test_a_server_with_an_alarm(rabbitmq: RabbitMqServer, declare: Declare) -> None:
    name = declare()
    rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        findings = found(RabbitMQProducer(name, url=rabbitmq.url), context(role="sink"))
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    told(findings, "problem", "takes no messages now: an alarm of memory or disk is on")


def test_tls(rabbitmq: RabbitMqServer, declare: Declare) -> None:
    source = RabbitMQConsumer(
        declare(),
        host="127.0.0.1",
        port=rabbitmq.tls_port,
        username="pythia",
        password="fast",
        tls=rabbitmq.tls_context(),
    )
    assert bad(found(source)) == []


@pytest.mark.parametrize(("product", "version"), [("RabbitMQ", "3.8.9"), ("Another", "4.0.0")])
def test_a_server_that_might_do_what_is_to_be_refused_is_not_asked(
    rabbitmq: RabbitMqServer, monkeypatch: pytest.MonkeyPatch, product: str, version: str
) -> None:
    monkeypatch.setattr(Asking, "product", product)  # such servers are not to be had here
    monkeypatch.setattr(Asking, "server_version", version)
    findings = found(RabbitMQConsumer("checkup-missing", url=rabbitmq.url_for(READ_ONLY_USER)))
    told(findings, "note", f"this is {product} {version}")
    told(findings, "note", "queue 'checkup-missing' does not exist; a run declares it")
    assert bad(findings) == []
