"""Addresses of Kafka's brokers: what is no address is told when it is declared or read from the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer, admin_options
from pythia_fast.errors import ConfigError
from tests.support.command_line import HEAD, run

BROKEN = [
    ("localhost:99999999", "the port of 'localhost:99999999' is not a number from 1 to 65,535"),
    ("localhost:notaport", "the port of 'localhost:notaport'"),
    ("localhost:0", "the port of 'localhost:0'"),
    ("localhost:", "the port of 'localhost:'"),
    ("a:1,b:65536", "the port of 'b:65536'"),
    ("[::1]:x", "the port of '[::1]:x'"),
    (":9092", "':9092' names no host"),
    ("a b:9092", "'a b:9092' names no host"),
    ("http://a:9092", "'http://a:9092' names no protocol; there are: PLAINTEXT, SSL"),
    ("SSL://a:9092", "'SSL://a:9092' is of another protocol than security_protocol='plaintext'"),
    (" ", "host:port, several separated by commas"),
    (",,", "host:port, several separated by commas"),
]


@pytest.mark.parametrize(("servers", "message"), BROKEN)
def test_what_is_no_address_is_refused(servers: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for refused in (
        lambda: KafkaConsumer("a", bootstrap_servers=servers),
        lambda: KafkaProducer("a", options={"bootstrap.servers": servers}),
        lambda: admin_options("KafkaAdmin", [servers], None, {}),
    ):
        with pytest.raises(ConfigError, match=r"bootstrap_servers=.*" + re.escape(message)):
            refused()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    consumer = KafkaConsumer("a")
    with pytest.raises(ConfigError, match=r"environment: KAFKA_BOOTSTRAP_SERVERS=.*" + re.escape(message)):
        assert consumer.bootstrap_servers


@pytest.mark.parametrize(
    ("servers", "taken"),
    [
        ("localhost", "localhost"),
        ("a:1, b:65535,", "a:1,b:65535"),
        ("[::1]:9092,[fe80::2],::1", "[::1]:9092,[fe80::2],::1"),
        ("PLAINTEXT://a:9092/x,plaintext://b", "PLAINTEXT://a:9092/x,plaintext://b"),
    ],
)
def test_what_librdkafka_takes_is_taken(servers: str, taken: str) -> None:
    assert KafkaConsumer("a", bootstrap_servers=servers).bootstrap_servers == taken


def test_a_protocol_belongs_to_the_security_protocol() -> None:
    consumer = KafkaConsumer("a", bootstrap_servers="SSL://a:9093", security_protocol="ssl")
    assert consumer.bootstrap_servers == "SSL://a:9093"


def test_the_other_name_of_the_servers_is_not_lost_to_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    assert KafkaConsumer("a", metadata_broker_list="b:1").bootstrap_servers == "b:1"


def test_a_run_says_what_is_wrong_with_the_environment(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        f"{HEAD}\n@app.batch_handler(source=KafkaConsumer('orders'), schema=Order)\ndef score(batch): pass\n"
    )
    finished = run(tmp_path, "run", "shop:app", environment={"KAFKA_BOOTSTRAP_SERVERS": ",,"})
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-1].startswith("error: environment: KAFKA_BOOTSTRAP_SERVERS=',,': host:port")
