"""What is secret among the options of sources and sinks is in no error, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pythia_fast import (
    KafkaAdmin,
    KafkaConsumer,
    KafkaProducer,
    RabbitMQConsumer,
    RabbitMQProducer,
    RabbitMQStreamConsumer,
    RedisStreamsConsumer,
    RedisStreamsProducer,
)
from pythia_fast.errors import ConfigError

MARK = "hunt3r2"
KAFKA = [
    lambda **options: KafkaConsumer("t", **options),
    lambda **options: KafkaProducer("t", **options),
    lambda **options: KafkaAdmin(**options),
]
RABBITMQ = [
    lambda **options: RabbitMQConsumer("q", **options),
    lambda **options: RabbitMQProducer("q", **options),
    lambda **options: RabbitMQStreamConsumer("q", **options),
]
REDIS = [
    lambda **options: RedisStreamsConsumer("s", **options),
    lambda **options: RedisStreamsProducer("s", **options),
]
SECRET_OPTIONS = [
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
]
BAD_SECRETS = [MARK.encode(), f"{MARK}\0", f"{MARK}\ud800", [MARK]]
WRONG_URLS = [
    "amqp://u:hunt3r2/x@h:1/",
    "amqp://u:12?hunt3r2@h:1/",
    "amqp://u:x#hunt3r2@h:1/",
    "amqp://u:hunt3r2[@h:1/",
    "amqp//u:hunt3r2@h/",
    "u:hunt3r2@h",
    "hunt3r2:x@h",
    "http://u:hunt3r2@h/",
    "amqp://u:hunt3r2@h/\0",
    "amqp://u:hunt3r2@h/a/b",
    "amqp://u:p@h/v?password=hunt3r2",
    b"amqp://u:hunt3r2@h/",
]

CASES: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    *[(each, {name.replace(".", "_"): bad}) for each in KAFKA for name in SECRET_OPTIONS for bad in BAD_SECRETS],
    *[(each, {"options": {name: bad}}) for each in KAFKA for name in SECRET_OPTIONS for bad in BAD_SECRETS],
    *[(each, {"options": [("sasl.password", MARK)]}) for each in KAFKA],
    *[
        (each, {"bootstrap_servers": servers})
        for each in KAFKA
        for servers in ("u:hunt3r2@h:9092", ["kafka://u:hunt3r2@h:9092"], b"kafka://u:hunt3r2@h:9092")
    ],
    *[(each, {"url": url}) for each in RABBITMQ for url in WRONG_URLS],
    *[(each, {"url": url.replace("amqp", "rabbitmq-stream")}) for each in RABBITMQ[2:] for url in WRONG_URLS[:5]],
    *[(each, {"password": bad}) for each in RABBITMQ for bad in (MARK.encode(), [MARK])],
    *[(each, {"url": url}) for each in REDIS for url in WRONG_URLS],
    *[(each, {"password": bad}) for each in REDIS for bad in BAD_SECRETS],
]  # type: ignore[list-item]


@pytest.mark.parametrize(("declare", "options"), CASES, ids=[str(at) for at in range(len(CASES))])
def test_no_error_tells_a_secret(declare: Callable[..., Any], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        declare(**options)
    assert MARK not in str(caught.value)


def test_what_is_wrong_with_a_secret_is_told_without_it() -> None:
    with pytest.raises(ConfigError, match="sasl_password=<bytes, not shown>: it must be a string"):
        KafkaConsumer("t", sasl_password=MARK.encode())
    with pytest.raises(ConfigError, match=r"'/' is written %2F, '\?' %3F, '#' %23"):
        RabbitMQConsumer("q", url=WRONG_URLS[0])
    with pytest.raises(ConfigError, match="url is no such URL: amqp://user:password@host"):
        RabbitMQConsumer("q", url="amqp//u:p@h/")
