"""What a RabbitMQStreamConsumer takes and refuses, when it is made."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from pythia_fast import RabbitMQStreamConsumer
from pythia_fast.brokers.rabbitmq_stream import Beginning
from pythia_fast.brokers.rabbitmq_stream_wire import Start
from pythia_fast.errors import ConfigError, UnknownOptionError


def test_the_default_address_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITMQ_STREAM_URL", raising=False)
    monkeypatch.setenv("RABBITMQ_URL", "amqp://other:x@elsewhere:1234/y")  # that of queues has the port of queues
    address = RabbitMQStreamConsumer("s").address
    assert (address.host, address.port, address.username, address.virtual_host) == ("localhost", 5552, "guest", "/")
    monkeypatch.setenv("RABBITMQ_STREAM_URL", "rabbitmq-stream+tls://me:p%40ss@host/v%2Fh")
    address = RabbitMQStreamConsumer("s").address
    assert (address.host, address.port, address.password, address.virtual_host) == ("host", 5551, "p@ss", "v/h")
    assert address.tls is not None
    assert "p@ss" not in str(address)


def test_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONSUMER_GROUP", raising=False)
    assert RabbitMQStreamConsumer("s").group("app", "handler") == "app-handler"
    monkeypatch.setenv("CONSUMER_GROUP", "from-env")
    assert RabbitMQStreamConsumer("s").group("app", "handler") == "from-env"
    assert RabbitMQStreamConsumer("s", consumer_group="g").group("app", "handler") == "g"


@pytest.mark.parametrize(
    ("offset", "beginning"),
    [
        ("first", Beginning(Start.FIRST, 0)),
        ("last", Beginning(Start.LAST, 0)),
        ("next", Beginning(Start.NEXT, 0)),
        (0, Beginning(Start.OFFSET, 0)),
        (17, Beginning(Start.OFFSET, 17)),
        (
            datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.UTC),
            Beginning(Start.TIMESTAMP, 1767323045678),
        ),
    ],
)
def test_offsets(offset: Any, beginning: Beginning) -> None:
    assert RabbitMQStreamConsumer("s", offset=offset).beginning == beginning


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give stream='name' or super_stream='name'"),
        ({"stream": "a", "super_stream": "b"}, "one of the two"),
        ({"stream": ""}, "stream"),
        ({"stream": "é" * 128}, "1 to 255 bytes"),
        ({"stream": "s", "offset": "frist"}, "'first', 'last', 'next', an offset"),
        ({"stream": "s", "offset": -1}, "an offset from 0"),
        ({"stream": "s", "offset": True}, "an offset from 0"),
        ({"stream": "s", "offset": datetime.datetime(2026, 1, 1)}, "a datetime with a time zone"),
        ({"stream": "s", "message_format": "amqp1"}, "message_format"),
        ({"stream": "s", "message_format": "raw", "key_property": "k"}, 'needs message_format="amqp"'),
        ({"stream": "s", "url": "amqp://localhost"}, "rabbitmq-stream://user:password@host"),
        ({"stream": "s", "url": "rabbitmq-stream://h", "host": "h"}, "give url= or host=, not both"),
        ({"stream": "s", "url": "rabbitmq-stream+tls://h", "tls": False}, "says the opposite"),
        ({"stream": "s", "read_ahead_bytes": 1}, "read_ahead_bytes"),
        ({"stream": "s", "max_chunk_bytes": 1}, "max_chunk_bytes"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match="RabbitMQStreamConsumer") as caught:
        RabbitMQStreamConsumer(**options)
    assert told in str(caught.value)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="consumer_group"):
        RabbitMQStreamConsumer("s", consumer_groop="g")  # type: ignore[call-arg]


def test_it_is_described_in_a_phrase() -> None:
    assert RabbitMQStreamConsumer("s", consumer_group="g").describe() == "rabbitmq stream s as group g"
    assert RabbitMQStreamConsumer(super_stream="s").describe() == "rabbitmq super stream s"
