"""``python -m pythia_fast doctor``: how it is called, what it prints, its exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pythia_fast.brokers import guarantees
from pythia_fast.cli.exit_codes import ExitCode
from tests.support.command_line import TWO_HANDLERS, run
from tests.support.kafka_broker import KafkaBroker, free_ports
from tests.support.rabbitmq_server import RabbitMqServer
from tests.support.redis_server import RedisServerProcess
from tests.support.tcp_proxy import TcpProxy

ALL = """
import os
from pythia_fast import App, KafkaConsumer, KafkaProducer, RabbitMQConsumer, RedisStreamsConsumer
from pythia_fast.brokers.rabbitmq import RabbitMQProducer
from pythia_fast.brokers.redis import RedisStreamsProducer

app = App("all")

@app.batch_handler(
    source=KafkaConsumer("TOPIC"),
    sink=RedisStreamsProducer("scored"),
    dead_letter=RabbitMQProducer("none"),
    decoder="raw",
)
def one(batch):
    pass

@app.batch_handler(source=RedisStreamsConsumer("orders"), decoder="raw")
def two(batch):
    pass

@app.batch_handler(source=RabbitMQConsumer("orders"), sink=KafkaProducer("TOPIC"), decoder="raw")
def three(batch):
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "two.py").write_text(TWO_HANDLERS)
    return tmp_path


def test_the_table(project: Path) -> None:
    finished = run(project, "doctor")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    for broker in guarantees.TABLE:
        assert f"{broker.broker}\n  source, sink" in finished.stdout
    assert run(project, "doctor", "--markdown").stdout == guarantees.as_markdown() + "\n"
    machine = json.loads(run(project, "doctor", "--json").stdout)
    assert machine == {"guarantees": json.loads(json.dumps(guarantees.as_data()))}


def test_the_help_has_examples(project: Path) -> None:
    finished = run(project, "doctor", "--help")
    assert finished.returncode == ExitCode.DONE
    assert "python -m pythia_fast doctor orders:app --handler score" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two:app", "--handlers", "x"], "did you mean --handler?"),
        (["two:app", "--handler", "scores"], "has no handler 'scores'; did you mean 'score'?"),
        (["two:app", "--timeout", "0"], "'0' is not a number of seconds from 0.5 to 3,600"),
        (["two:app", "--workers", "0"], "'0' is neither 'auto' nor a number of processes"),
        (["two:app", "--markdown"], "--markdown prints the table of all brokers"),
        (["--handler", "score"], "give MODULE:APP before it"),
        (["--json", "--markdown"], "--json and --markdown exclude each other"),
    ],
)
def test_what_cannot_work_is_refused(project: Path, arguments: list[str], message: str) -> None:
    finished = run(project, "doctor", *arguments)
    assert finished.returncode == ExitCode.USAGE, finished.stderr
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""


def test_an_app_that_cannot_be_imported(project: Path) -> None:
    finished = run(project, "doctor", "tow:app")
    assert finished.returncode == ExitCode.IMPORT
    assert "did you mean two.py?" in finished.stderr


def test_an_app_of_files(project: Path) -> None:
    finished = run(project, "doctor", "two:app")
    assert finished.returncode == ExitCode.FAILED, finished.stdout
    assert "handler 'score', source: file orders.ndjson\n  problem  cannot read" in finished.stdout
    (project / "orders.ndjson").write_text('{"qty":1,"price":1.5}\n')
    before = sorted(project.rglob("*.ndjson"))
    finished = run(project, "doctor", "two:app", "--json", "--workers", "2")
    assert finished.returncode == ExitCode.DONE, finished.stdout
    found = json.loads(finished.stdout)
    assert found["app"] == "orders"
    assert found["counts"]["problem"] == 0
    assert [subject["where"].partition(":")[0] for subject in found["subjects"]] == [
        "this machine",
        "state folder .pythia/orders",
        "handler 'score', source",
        "handler 'score', sink",
        "handler 'count', source",
    ]
    assert sorted(project.rglob("*.ndjson")) == before
    assert not (project / ".pythia").exists()
    one = run(project, "doctor", "two:app", "--handler", "count")
    assert "'count'" in one.stdout
    assert "'score'" not in one.stdout


def test_all_brokers(
    project: Path,
    kafka: KafkaBroker,
    redis: RedisServerProcess,
    rabbitmq: RabbitMqServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = kafka.create_topic(f"doctor-{time.time_ns()}", 4)
    (project / "all.py").write_text(ALL.replace("TOPIC", topic))
    servers = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "REDIS_URL": redis.url,
        "RABBITMQ_URL": rabbitmq.url,
    }
    finished = run(project, "doctor", "all:app", "--timeout", "60", environment=servers)
    assert finished.returncode == ExitCode.FAILED, finished.stderr
    assert finished.stderr == ""
    assert finished.stdout.count("  problem  ") == 1, finished.stdout
    assert "handler 'one', dead-letter: rabbitmq queue none\n" in finished.stdout
    assert "  problem  queue 'none' does not exist" in finished.stdout
    assert finished.stdout.splitlines()[-1].endswith(", 1 problem")


def test_a_server_that_is_silent_delays_no_other(project: Path, redis: RedisServerProcess) -> None:
    (project / "all.py").write_text(ALL.replace("TOPIC", "orders"))
    (port,) = free_ports(1)
    with TcpProxy(redis.port) as frozen:
        frozen.freeze()
        servers = {
            "KAFKA_BOOTSTRAP_SERVERS": frozen.address,
            "REDIS_URL": redis.url,
            "RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{port}/%2F",
        }
        finished = run(project, "doctor", "all:app", "--timeout", "3", environment=servers)
    assert finished.returncode == ExitCode.FAILED
    assert finished.stdout.count(f"no Kafka broker answered at {frozen.address} within ") == 2, finished.stdout
    assert finished.stdout.count(f"RabbitMQ at 127.0.0.1:{port} cannot be reached: Connection refused") == 2
    assert finished.stdout.count(f"Redis 7.0.15 at 127.0.0.1:{redis.port} let us in") == 2
    assert finished.stderr == ""
