"""What a RabbitMQConsumer takes, what it refuses, and where it would connect; no server is asked."""

from __future__ import annotations

import ssl
import subprocess
import sys
from typing import Any

import pytest

from pythia_fast import RabbitMQConsumer
from pythia_fast.brokers.rabbitmq_session import LONGEST_WAIT_S, Backoff
from pythia_fast.errors import ConfigError, UnknownOptionError


@pytest.fixture(autouse=True)
def no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITMQ_URL", raising=False)


def test_a_url_is_read_whole():
    address = RabbitMQConsumer("q", url="amqp://us%40er:p%2Fw@example.org:1234/my%2Fhost").address
    assert (address.host, address.port, address.username, address.password) == ("example.org", 1234, "us@er", "p/w")
    assert (address.virtual_host, address.tls) == ("my/host", None)
    assert "p/w" not in f"{address} {address.place}"


def test_without_anything_it_is_the_server_on_this_machine():
    address = RabbitMQConsumer("q").address
    assert (address.host, address.port, address.username, address.virtual_host) == ("localhost", 5672, "guest", "/")


def test_the_environment_is_asked_when_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = RabbitMQConsumer("q")
    monkeypatch.setenv("RABBITMQ_URL", "amqps://there/vhost")
    address = consumer.address
    assert (address.host, address.port, address.virtual_host) == ("there", 5671, "vhost")
    assert isinstance(address.tls, ssl.SSLContext)
    assert RabbitMQConsumer("q", host="here").address.host == "here"
    monkeypatch.setenv("RABBITMQ_URL", "http://there")
    with pytest.raises(ConfigError, match="RABBITMQ_URL begins with 'http://'"):
        consumer.address  # noqa: B018


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"queue": ""}, "a name of 1 to 255 bytes"),
        ({"queue": "ü" * 128}, "a name of 1 to 255 bytes"),
        ({"prefetch_count": 0}, "from 1 to 65,535"),
        ({"prefetch_count": 65_536}, "from 1 to 65,535"),
        ({"auto_ack": "yes"}, "True or False"),
        ({"routing_key": "a.*"}, "needs exchange="),
        ({"url": "localhost"}, "amqp://user:password"),
        ({"url": "amqp://h/a/b"}, "written %2F"),
        ({"url": "amqp://h:port/"}, "url: "),
        ({"url": "amqp://h/?heartbeat=3"}, "options of their own"),
        ({"url": "amqps://h/", "tls": False}, "says the opposite"),
        ({"url": "amqp://h/", "host": "other"}, "url= or host=, not both"),
        ({"port": 70_000}, "from 1 to 65,535"),
        ({"password": 5}, "password= must be a string"),
        ({"tls": "yes"}, "an ssl.SSLContext"),
        ({"heartbeat": -1}, "seconds"),
        ({"arguments": ["x-queue-type"]}, "a mapping of names"),
        ({"durable": 1}, "True or False"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RabbitMQConsumer(**{"queue": "q", **options})
    assert says in str(refused.value)


def test_an_option_that_is_misspelt_is_told_its_right_name():
    with pytest.raises(UnknownOptionError, match="did you mean 'prefetch_count'"):
        RabbitMQConsumer("q", prefetch=10)  # type: ignore[call-arg]


def test_declaring_a_consumer_does_not_import_pika():
    code = "import sys, pythia_fast; pythia_fast.RabbitMQConsumer('q'); sys.exit('pika' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_attempts_come_less_and_less_often_up_to_a_limit():
    backoff = Backoff()
    waits = [backoff.next_s() for _ in range(12)]
    assert waits[0] < 0.2 < waits[3]
    assert max(waits) <= LONGEST_WAIT_S * 1.25
    backoff.reset()
    assert backoff.next_s() < 0.2
