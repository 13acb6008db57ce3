"""What a RabbitMQ is asked about its streams before a run, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pythia_fast import RabbitMQStreamConsumer
from tests.support.checkup import bad, context, found, told
from tests.support.kafka_broker import free_ports
from tests.support.rabbitmq_server import ADDRESS, PASSWORD, USER, RabbitMqServer
from tests.support.rabbitmq_stream import Stream, SuperStream, url_of
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture
def stream(rabbitmq: RabbitMqServer) -> Iterator[Stream]:
    made = Stream(rabbitmq)
    yield made
    made.close()


def test_a_stream_that_fits(stream: Stream) -> None:
    stream.publish([b"a", b"b", b"c"])
    source = RabbitMQStreamConsumer(stream.name, consumer_group="g", url=url_of(stream.server))
    findings = found(source)
    assert bad(findings) == []
    told(findings, "ok", f"RabbitMQ 3.10.8 at 127.0.0.1:{stream.server.stream_port}")
    told(findings, "ok", "with messages up to offset 2; group g has stored nothing and begins with its first message")
    told(findings, "note", "one run at a time has group g")
    assert stream.stored("g") is None  # nothing was changed


def test_an_offset_beyond_the_end(stream: Stream) -> None:
    source = RabbitMQStreamConsumer(stream.name, url=url_of(stream.server), offset=100)
    findings = found(source)
    told(findings, "ok", "with no messages")
    told(findings, "note", "offset=100 is beyond the end")


def test_a_super_stream(rabbitmq: RabbitMqServer) -> None:
    made = SuperStream(rabbitmq, 3)
    findings = found(RabbitMQStreamConsumer(super_stream=made.name, url=url_of(rabbitmq)))
    assert bad(findings) == []
    told(findings, "ok", f"super stream '{made.name}' has 3 streams: {made.name}-0, ")
    made.close()


def test_streams_that_are_missing(rabbitmq: RabbitMqServer) -> None:
    told(found(RabbitMQStreamConsumer("nowhere", url=url_of(rabbitmq))), "problem", "there is no such stream")
    findings = found(RabbitMQStreamConsumer(super_stream="nowhere", url=url_of(rabbitmq)))
    told(findings, "problem", "super stream 'nowhere' does not exist")


def test_no_way_in(rabbitmq: RabbitMqServer) -> None:
    login = {"host": ADDRESS, "username": USER, "password": PASSWORD}
    (nobody,) = free_ports(1)
    told(found(RabbitMQStreamConsumer("s", port=nobody, **login)), "problem", "nobody listens there")
    login["password"] = "wrong"
    findings = found(RabbitMQStreamConsumer("s", port=rabbitmq.stream_port, **login))
    told(findings, "problem", "refuses user 'pythia'")
    assert PASSWORD not in str(findings)


def test_a_server_that_does_not_answer(rabbitmq: RabbitMqServer) -> None:
    with TcpProxy(rabbitmq.stream_port) as proxy:
        proxy.freeze()
        source = RabbitMQStreamConsumer("s", url=url_of(rabbitmq, proxy.port))
        told(found(source, context(timeout_s=1)), "problem", "does not answer")
