"""Addresses of sources and sinks, as typed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from pythia_fast.brokers.file import FileConsumer
from pythia_fast.brokers.file_sink import FileProducer
from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer
from pythia_fast.brokers.rabbitmq import RabbitMQConsumer, RabbitMQProducer
from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer
from pythia_fast.brokers.redis import RedisStreamsConsumer, RedisStreamsProducer
from pythia_fast.errors import ConfigError, UnknownOptionError
from pythia_fast.moving.places import is_address, sink_at, source_at

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


def test_kafka() -> None:
    source = source_at("kafka://a:1,b:2/orders,payments?auto.offset.reset=latest&group_id=g")
    assert isinstance(source, KafkaConsumer)
    assert source.topics == ("orders", "payments")
    assert source.bootstrap_servers == "a:1,b:2"
    assert source.given_options["auto.offset.reset"] == "latest"
    assert source.group("app", "handler") == "g"
    assert source.as_group("other").group("app", "handler") == "other"
    assert source.group("app", "handler") == "g"
    since = source_at("kafka://a:1/orders?start_at=2h")
    assert isinstance(since, KafkaConsumer)
    assert since.start_at(NOW) == NOW - timedelta(hours=2)
    sink = sink_at("kafka://a:1/orders?linger.ms=9")
    assert isinstance(sink, KafkaProducer)
    assert (sink.topic, sink.bootstrap_servers, sink.given_options) == ("orders", "a:1", {"linger.ms": "9"})


def test_kafka_by_default_and_by_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "env:9092")
    source = source_at(r"kafka:///^orders\..*")
    assert isinstance(source, KafkaConsumer)
    assert (source.topics, source.bootstrap_servers) == ((r"^orders\..*",), "env:9092")


def test_redis() -> None:
    source = source_at("redis://user:pw@h:7/3/orders?min_idle=5&start=$&payload_field=7")
    assert isinstance(source, RedisStreamsConsumer)
    assert (source.streams, source.min_idle, source.start, source.payload_field) == (["orders"], 5, "$", "7")
    assert source.as_group("g").group("a", "h") == "g"
    assert isinstance(sink_at("redis://h/orders?maxlen=10"), RedisStreamsProducer)


def test_rabbitmq() -> None:
    source = source_at("amqp://user:pw@h:7/%2F/orders?prefetch_count=5")
    assert isinstance(source, RabbitMQConsumer)
    assert (source.queue, source.prefetch_count, source.address.virtual_host, source.address.port) == (
        "orders",
        5,
        "/",
        7,
    )
    assert source.as_group("g") is source
    other = source_at("amqp://h/shop/or%2Fders")
    assert isinstance(other, RabbitMQConsumer)
    assert (other.queue, other.address.virtual_host) == ("or/ders", "shop")
    assert isinstance(sink_at("amqp://h/orders"), RabbitMQProducer)


def test_rabbitmq_streams() -> None:
    source = source_at("rabbitmq-stream://user:pw@h:7/shop/orders?offset=5&consumer_group=7")
    assert isinstance(source, RabbitMQStreamConsumer)
    assert (source.stream, source.address.virtual_host, source.address.port) == ("orders", "shop", 7)
    assert source.group("app", "handler") == "7"
    assert source.as_group("g").group("app", "handler") == "g"
    assert source.group("app", "handler") == "7"
    with pytest.raises(ConfigError, match=r"'rabbitmq-stream://user:...@h/orders': a stream is written to as a queue"):
        sink_at("rabbitmq-stream://user:secret@h/orders")


def test_files() -> None:
    source = source_at("file:logs/a%20b.rec?format=records&follow=true")
    assert isinstance(source, FileConsumer)
    assert (source.paths, source.format, source.follow) == (["logs/a b.rec"], "records", True)
    assert source.as_group("g").consumer_group == "g"
    assert isinstance(sink_at("file:///tmp/x.rec?format=records"), FileProducer)


def test_what_is_an_address() -> None:
    assert is_address("kafka://h/t")
    assert is_address("file:x")
    assert not is_address("orders:app")
    assert not is_address("src/orders.py:app")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafak://h/t", "did you mean 'kafka'"),
        ("kafka://h", "names no topic: write kafka://HOST:PORT/TOPIC"),
        ("kafka://h/a/b", "names no topic"),
        ("redis://h/", "names no stream"),
        ("rabbitmq-stream://h/", "names no stream: write rabbitmq-stream://HOST:PORT/VHOST/STREAM"),
        ("amqp://user:secret@h/", "'amqp://user:...@h/' names no queue"),
        ("file:", "names no file"),
        ("kafka://h/t?linger.ms=1&linger.ms=2", "linger.ms is given twice"),
        ("redis://h/s#t", "write %23 for a #"),
        ("kafka://[/t", "is no address"),
    ],
)
def test_what_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source_at(text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("kafka://h/t?auto.offset.rset=latest", "auto.offset.reset"),
        ("redis://h/s?min_idel=5", "min_idle"),
        ("amqp://h/q?prefetch_cout=5", "prefetch_count"),
        ("rabbitmq-stream://h/s?ofset=5", "offset"),
        ("file:x?formt=fixed", "format"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises((UnknownOptionError, ConfigError), match=near):
        source_at(text)


@pytest.mark.parametrize(
    "address",
    [
        "amqpx://u:secret@h/q",
        "amqp://u:secret@h",
        "amqp://u:secret@h/q?x=1&x=2",
        "amqp://u:secret@h/q#part",
        "amqp://u:sec/secret?ret@h",
        "redis://u:secret:secret@h",
        "kafka://h/t?sasl.password=secret&sasl.password=secret",
        "kafka://h?sasl.password=secret",
        "amqp://u:secret@[h/q",
    ],
)
@pytest.mark.parametrize("at", [source_at, sink_at])
def test_a_wrong_address_is_told_without_what_is_secret(at: Callable[[str], object], address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        at(address)
    assert "secret" not in str(caught.value)
