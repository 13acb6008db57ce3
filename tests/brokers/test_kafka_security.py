"""TLS and SASL: what a user gives reaches librdkafka, and what is secret is told to nobody."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from confluent_kafka import Consumer, Producer, TopicPartition
from cryptography.hazmat.primitives import serialization

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.kafka_broker import KafkaBroker, free_ports
from tests.support.kafka_libraries import ROOT
from tests.support.kafka_run import Sink

PASSWORD = "correct-horse-battery-staple"
ROWS = 2000
APP = """
import json
import os
from pythia_fast import App, KafkaConsumer, KafkaProducer

security = json.loads(os.environ["SECURITY"])
app = App("secure")


@app.batch_handler(
    source=KafkaConsumer("source", consumer_group=os.environ["GROUP"], options=security),
    sink=KafkaProducer("sink", options=security),
    dead_letter=KafkaProducer("dead", options=security),
    decoder="raw",
)
def echo(batch):
    batch.reject([payload == b"bad" for payload in batch.raw], reason="bad")
    return batch["payload"].tolist()
"""


@dataclasses.dataclass
class Secured:
    """A broker with a listener that asks for TLS and a password, beside the plain one of the tests' own clients."""

    broker: KafkaBroker
    servers: str
    options: dict[str, str]
    other_authority: Path


def pkcs8(private_key: bytes) -> bytes:
    """The key in the one form that Java reads."""
    key = serialization.load_pem_private_key(private_key, None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    certificate = authority.issue_cert("127.0.0.1")
    (folder / "broker.pem").write_bytes(
        b"".join([pkcs8(certificate.private_key_pem.bytes()), *(pem.bytes() for pem in certificate.cert_chain_pems)])
    )
    broker = KafkaBroker(folder / "kafka")
    (port,) = free_ports(1)
    plain, controller = broker.bootstrap_servers, f"127.0.0.1:{broker.controller_port}"
    broker.settings |= {
        "listeners": f"PLAINTEXT://{plain},SECURE://127.0.0.1:{port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{plain},SECURE://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="{PASSWORD}";'
        ),
    }
    options = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(folder / "authority.pem"),
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": PASSWORD,
    }
    with broker:
        for topic in ("source", "sink", "dead"):
            broker.create_topic(topic)
        producer = Producer({"bootstrap.servers": plain})
        for row in range(ROWS):
            producer.produce("source", b"bad" if row == 7 else b"%d" % row)
        assert producer.flush(60) == 0
        yield Secured(broker, f"127.0.0.1:{port}", options, folder / "other.pem")


def run(secured: Secured, folder: Path, group: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run the app through the secured listener to the end of its topic."""
    return command(
        secured, folder, group, changed,
        "run", "secure:app", "--until-end", "--connect-timeout", "5",
        "--report", str(folder / "report.json"), "--state-dir", str(folder / "state"),
    )  # fmt: skip


def command(
    secured: Secured, folder: Path, group: str, changed: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A command with the app, which reaches the secured listener."""
    (folder / "secure.py").write_text(APP)
    environment = {
        "PYTHONPATH": str(ROOT),
        "KAFKA_BOOTSTRAP_SERVERS": secured.servers,
        "GROUP": group,
        "SECURITY": json.dumps(secured.options | {name.replace("_", "."): value for name, value in changed.items()}),
    }
    line = [sys.executable, "-m", "pythia_fast", *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120)


def told(folder: Path, ended: subprocess.CompletedProcess[str]) -> str:
    """All that the run has told to anybody."""
    files = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return ended.stdout + ended.stderr + "".join(text for text in files if text != APP)


def test_source_sink_and_dead_letters_go_through_tls_with_a_password(secured: Secured, tmp_path: Path) -> None:
    ended = run(secured, tmp_path, "all")
    assert ended.returncode == ExitCode.DONE, ended.stderr
    plain = secured.broker.bootstrap_servers
    with Sink(plain, "sink") as written:
        written.read(lambda: len(written.messages) >= ROWS - 1)
        assert {message.value() for message in written.messages} == {b"%d" % row for row in range(ROWS) if row != 7}
    with Sink(plain, "dead") as dead:
        dead.read(lambda: len(dead.messages) >= 1)
        assert [message.value() for message in dead.messages] == [b"bad"]
    asking = Consumer({"bootstrap.servers": plain, "group.id": "all"})
    assert asking.committed([TopicPartition("source", 0)], timeout=30)[0].offset == ROWS
    asking.close()
    assert PASSWORD not in told(tmp_path, ended)


def test_a_wrong_password_is_told_without_it(secured: Secured, tmp_path: Path) -> None:
    ended = run(secured, tmp_path, "wrong-password", sasl_password="hunter2-hunter2")
    assert ended.returncode == ExitCode.UNREACHABLE, ended.stderr
    text = told(tmp_path, ended)
    assert "Authentication failed" in text
    assert "hunter2-hunter2" not in text


def test_a_broker_that_another_authority_vouches_for_is_refused(secured: Secured, tmp_path: Path) -> None:
    ended = run(secured, tmp_path, "wrong-authority", ssl_ca_location=str(secured.other_authority))
    assert ended.returncode == ExitCode.UNREACHABLE, ended.stderr
    text = told(tmp_path, ended)
    assert "certificate" in text
    assert PASSWORD not in text


def test_a_plain_client_at_a_tls_listener_is_told(secured: Secured, tmp_path: Path) -> None:
    ended = run(secured, tmp_path, "plain", security_protocol="PLAINTEXT")
    assert ended.returncode == ExitCode.UNREACHABLE, ended.stderr
    assert secured.servers in ended.stderr


def test_a_drill_uses_the_password_and_keeps_it_nowhere(secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    ended = command(
        secured, tmp_path, "drilled", {},
        "drill", "broker-cut", "--app", "secure:app", "--input", "rows.txt", "--rows", "4000", "--keep", "--quiet",
    )  # fmt: skip
    assert ended.returncode == ExitCode.DONE, ended.stdout + ended.stderr
    (folder,) = (tmp_path / "drill-output").iterdir()
    assert (folder / "run-settings.json").exists()
    assert PASSWORD not in told(tmp_path, ended)
