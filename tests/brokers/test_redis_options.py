"""What RedisStreamsConsumer and RedisStreamsProducer take, and how they refuse the rest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pythia_fast import RedisStreamsConsumer, RedisStreamsProducer
from pythia_fast.brokers.redis import bare_columns
from pythia_fast.errors import ConfigError, SchemaError, UnknownOptionError


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give stream='name', or streams=['one', 'another']"),
        ({"stream": "a", "streams": ["b"]}, "give stream='name', or streams="),
        ({"streams": []}, "each once"),
        ({"streams": ["a", "a"]}, "each once"),
        ({"streams": "orders"}, "streams='orders'"),
        ({"stream": ""}, "stream=''"),
        ({"stream": "s", "url": "http://x"}, "url= takes redis://, rediss:// (TLS) or unix://"),
        ({"stream": "s", "url": "redis://x:port"}, "url= takes"),
        ({"stream": "s", "url": "redis://x", "host": "y"}, "url= names the server already"),
        ({"stream": "s", "port": 0}, "port=0"),
        ({"stream": "s", "sentinels": [("a", 1)]}, "go together"),
        ({"stream": "s", "sentinels": ["a:1"], "service_name": "m"}, "addresses of Sentinel"),
        ({"stream": "s", "sentinels": [("a", 1)], "service_name": "m", "cluster": True}, "exclude each other"),
        ({"stream": "s", "start": "yesterday"}, "start='yesterday': '0' (everything)"),
        ({"stream": "s", "start": "1-2-3"}, "start='1-2-3'"),
        ({"stream": "s", "min_idle": 0.5}, "min_idle=0.5: seconds, from 1"),
        ({"stream": "s", "timeout": 0}, "timeout=0: seconds, from 0.01"),
        ({"stream": "s", "read_count": 0}, "read_count=0"),
        ({"stream": "s", "max_entry_bytes": 10}, "max_entry_bytes=10"),
        ({"stream": "s", "create_group": "no"}, "create_group='no': True or False"),
        ({"stream": "s", "decode_responses": True}, "payloads are bytes"),
        ({"stream": "s", "fields": dict}, "a msgspec.Struct, the handler's schema"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisStreamsConsumer(**options)
    assert str(caught.value).startswith("RedisStreamsConsumer: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(("name", "near"), [("consumer_grup", "consumer_group"), ("ssl_ca_cert", "ssl_ca_certs")])
def test_a_misspelt_option_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"no option '{name}'; did you mean '{near}'"):
        RedisStreamsConsumer("s", **{name: "x"})


@pytest.mark.parametrize("url", ["redis:/127.0.0.1:7000/0", "redis://h:1/db3", "redis://h:1/0/1", "unix:/run/redis"])
def test_a_url_that_redis_py_would_refuse_or_read_otherwise_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="url= takes redis://"):
        RedisStreamsConsumer("s", url=url)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h/", "REDIS://h:1/3?db=2", "unix:///run/redis", "rediss://:p@h:1/0"]
)
def test_a_url_of_a_server_is_taken(url: str) -> None:
    RedisStreamsConsumer("s", url=url)


def test_a_password_is_never_told() -> None:
    with pytest.raises(ConfigError) as caught:
        RedisStreamsConsumer("s", url="reddis://:secret@x")
    assert "secret" not in str(caught.value)
    consumer = RedisStreamsConsumer("s", url="redis://:secret@redis.example:6380/2")
    assert consumer.server.name == "redis.example:6380"
    assert "secret" not in consumer.describe()


def test_the_producer_checks_its_own_options() -> None:
    with pytest.raises(ConfigError, match="RedisStreamsProducer: maxlen=0"):
        RedisStreamsProducer("s", maxlen=0)
    with pytest.raises(UnknownOptionError, match="did you mean 'maxlen'"):
        RedisStreamsProducer("s", maxlenn=5)


def test_defaults_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:1234/3")
    monkeypatch.setenv("CONSUMER_GROUP", "theirs")
    consumer = RedisStreamsConsumer("s")
    assert consumer.server.name == "elsewhere:1234"
    assert consumer.group("app", "handler") == "theirs"
    monkeypatch.delenv("CONSUMER_GROUP")
    assert consumer.group("app", "handler") == "app-handler"
    assert RedisStreamsConsumer("s", consumer_group="mine").group("app", "handler") == "mine"


class Flat(msgspec.Struct, rename="camel"):
    order_id: int
    price: float | None
    name: str
    raw: bytes
    is_paid: bool = False


class Nested(msgspec.Struct):
    items: list[int]


def test_which_fields_stand_bare() -> None:
    assert bare_columns("x", Flat) == [(b"orderId", False), (b"price", False), (b"isPaid", True)]
    with pytest.raises(SchemaError, match="'items' is not"):
        bare_columns("x", Nested)
