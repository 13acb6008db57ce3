"""What is refused before a run: handlers that take each other's messages, and those that feed themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pythia_fast import App, FileConsumer, FileProducer, KafkaConsumer, KafkaProducer, MemoryConsumer
from pythia_fast.brokers.base import Sink, Source
from pythia_fast.brokers.rabbitmq import RabbitMQConsumer, RabbitMQProducer
from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer
from pythia_fast.brokers.redis import RedisStreamsConsumer, RedisStreamsProducer
from pythia_fast.errors import ConfigError
from pythia_fast.handler_checks import check_handlers


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONSUMER_GROUP", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RABBITMQ_STREAM_URL"):
        monkeypatch.delenv(name, raising=False)


def app_of(*sources: Source, **options: Any) -> App:
    app = App("shop")
    for name, source in zip(("first", "second", "third"), sources, strict=False):
        app.batch_handler(source=source, decoder="raw", name=name, **options)(len)
    return app


def check(*sources: Source, **options: Any) -> None:
    app = app_of(*sources, **options)
    check_handlers(app.name, list(app.handlers.values()))


def test_two_handlers_of_one_topic_and_group_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    app = app_of(KafkaConsumer("orders", consumer_group="g"), KafkaConsumer("orders", consumer_group="g"))
    with pytest.raises(
        ConfigError,
        match=r"'first' and 'second' both read Kafka topic orders as consumer group 'g':.* a consumer_group= of",
    ):
        app.run(workers=2, state_dir=tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("consumer", "what"),
    [
        (KafkaConsumer, "Kafka topic"),
        (RedisStreamsConsumer, "Redis stream"),
        (RabbitMQStreamConsumer, "RabbitMQ stream"),
    ],
)
def test_a_group_that_the_environment_gives_to_both_is_refused_with_the_variable(
    consumer: Callable[..., Source], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(consumer("orders"), consumer("orders"))  # the default is another one for every handler
    monkeypatch.setenv("CONSUMER_GROUP", "of-all")
    with pytest.raises(
        ConfigError, match=rf"both read {what} orders as consumer group 'of-all', which the .* CONSUMER_GROUP gives"
    ):
        check(consumer("orders"), consumer("orders"))
    check(consumer("orders"), consumer("orders", consumer_group="own"))
    check(consumer("orders"), consumer("payments"))


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        ({"topics": ["a", "b"]}, {"topics": ["b", "c"]}, "b"),
        ({"topic": "^ord"}, {"topic": "orders"}, "orders"),
        ({"topic": "orders"}, {"topic": "^ord"}, "orders"),
        ({"topic": "^ord"}, {"topic": "^ord"}, r"\^ord"),
        (
            {"topic": "a", "bootstrap_servers": "k1:9092,k2:9092"},
            {"topic": "a", "bootstrap_servers": "SSL://K2", "security_protocol": "ssl"},
            "a",
        ),
        ({"topic": "^ord"}, {"topic": "payments"}, None),
        ({"topic": "^ord**"}, {"topic": "orders"}, None),
        ({"topic": "^[[:digit:]]"}, {"topic": "orders"}, None),
        ({"topic": "a", "bootstrap_servers": "k1:9092"}, {"topic": "a", "bootstrap_servers": "k1:9093"}, None),
    ],
)
def test_what_two_kafka_consumers_have_in_common(
    first: dict[str, Any], second: dict[str, Any], common: str | None
) -> None:
    sources = [KafkaConsumer(consumer_group="g", **options) for options in (first, second)]
    if common is None:
        check(*sources)
        return
    with pytest.raises(ConfigError, match=f"both read Kafka topic {common} as"):
        check(*sources)


def test_redis_streams_of_one_name_in_several_databases_are_several() -> None:
    def stream(**options: Any) -> Source:
        return RedisStreamsConsumer("orders", consumer_group="g", **options)

    check(stream(db=0), stream(db=1), stream(url="redis://other/1"))
    for other in (
        {"url": "redis://localhost/1"},
        {"url": "redis://localhost:6379?db=1"},
        {"host": "localhost", "db": 1},
    ):
        with pytest.raises(ConfigError, match="both read Redis stream orders"):
            check(stream(db=1), stream(**other))


def test_handlers_may_compete_for_a_queue() -> None:
    check(RabbitMQConsumer("orders"), RabbitMQConsumer("orders"))


def test_two_handlers_of_one_named_pipe_are_refused_whatever_they_call_it(tmp_path: Path) -> None:
    pipe, link, other = (tmp_path / name for name in ("pipe", "link", "other"))
    os.mkfifo(pipe)
    os.mkfifo(other)
    link.symlink_to(pipe)
    for name in (pipe, link, tmp_path / "." / ".." / tmp_path.name / "pipe"):
        with pytest.raises(ConfigError, match=rf"'first' and 'second' both read {pipe}.*: each byte would reach"):
            check(FileConsumer(pipe), FileConsumer(name, consumer_group="own"))
    (tmp_path / "file").write_bytes(b"1\n")
    check(FileConsumer(pipe), FileConsumer(other), FileConsumer("-"))
    check(FileConsumer(tmp_path / "file"), FileConsumer(tmp_path / "file"))


@pytest.mark.parametrize("second", ["-", "/dev/stdin"])
def test_two_handlers_of_standard_input_are_refused(second: str) -> None:
    kept, (out, into) = os.dup(0), os.pipe()
    try:
        os.dup2(out, 0)
        with pytest.raises(ConfigError, match="'first' and 'second' both read standard input"):
            check(FileConsumer("-"), FileConsumer(second))
    finally:
        os.dup2(kept, 0)
        for fd in (kept, out, into):
            os.close(fd)


@pytest.mark.parametrize("option", ["sink", "dead_letter"])
@pytest.mark.parametrize(
    ("source", "sink", "place"),
    [
        (KafkaConsumer("orders"), KafkaProducer("orders"), "Kafka topic orders"),
        (KafkaConsumer("^ord"), KafkaProducer("orders-dead"), "Kafka topic orders-dead"),
        (RedisStreamsConsumer("orders"), RedisStreamsProducer("orders"), "Redis stream orders"),
        (RabbitMQConsumer("orders"), RabbitMQProducer("orders"), "RabbitMQ queue orders"),
        (
            RabbitMQConsumer("orders", exchange="shop", routing_key="new"),
            RabbitMQProducer(exchange="shop", routing_key="new"),
            "RabbitMQ exchange shop with routing key 'new'",
        ),
        (RabbitMQStreamConsumer("orders"), RabbitMQProducer("orders"), "RabbitMQ stream orders"),
        (RabbitMQConsumer("orders"), RabbitMQProducer("results"), None),
        (RabbitMQConsumer("orders"), RabbitMQProducer("orders", virtual_host="other"), None),
        (RabbitMQConsumer("orders", port=5673), RabbitMQProducer("orders"), None),
        (
            RabbitMQConsumer("orders", exchange="shop", routing_key="new"),
            RabbitMQProducer(exchange="shop", routing_key="old"),
            None,
        ),
        (RabbitMQConsumer("orders"), RabbitMQProducer(exchange="orders"), None),
        (RabbitMQStreamConsumer("orders"), RabbitMQProducer("results"), None),
        (RabbitMQStreamConsumer("orders"), RabbitMQProducer("orders", port=5673), None),
        (KafkaConsumer("orders"), KafkaProducer("orders", bootstrap_servers="other:9092"), None),
        (KafkaConsumer("orders"), KafkaProducer("orders-dead"), None),
        (RedisStreamsConsumer("orders"), RedisStreamsProducer("orders", db=1), None),
        (KafkaConsumer("orders"), RedisStreamsProducer("orders"), None),
    ],
)
def test_what_a_handler_writes_to_a_broker_may_not_come_back_to_it(
    source: Source, sink: Sink, place: str | None, option: str
) -> None:
    if place is None:
        check(source, **{option: sink})
        return
    with pytest.raises(ConfigError, match=f"handler 'first': its {option} is {place}, which its source reads"):
        check(source, **{option: sink})


def test_two_sinks_that_are_one_file_are_refused_with_both_names(tmp_path: Path) -> None:
    out, link = tmp_path / "out", tmp_path / "link"
    link.symlink_to(out)
    app = App("shop")
    for name, path in (("first", out), ("second", link)):
        app.batch_handler(source=MemoryConsumer([]), decoder="raw", name=name, sink=FileProducer(path))(len)
    with pytest.raises(ConfigError) as raised:
        check_handlers(app.name, list(app.handlers.values()))
    assert str(raised.value) == (
        f"the sink of handler 'first' and the sink of handler 'second' are both the file {link} ({out} leads there, "
        "too), which one of them can write: give each a file of its own"
    )


def test_a_sink_that_is_the_file_of_its_own_dead_letters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"are both the file .*/out, which one of them can write"):
        check(MemoryConsumer([]), sink=FileProducer(tmp_path / "out"), dead_letter=FileProducer(tmp_path / "out"))
