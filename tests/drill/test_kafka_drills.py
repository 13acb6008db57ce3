"""The drills that need brokers, with a real one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.drill.topics import FILL_QUEUE, DrillTopics
from tests.support.command_line import processes_in, run, running
from tests.support.drill import ECHO, drilled, drilled_app
from tests.support.kafka_broker import KafkaBroker

ROWS = 40_000


def left_behind(kafka: KafkaBroker) -> list[str]:
    """Topics and groups of drills that are still there."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    groups = admin.list_consumer_groups().result().valid
    names = [*admin.list_topics(timeout=10).topics, *(group.group_id for group in groups)]
    return [name for name in names if name.startswith("pythia-fast-drill")]


@pytest.mark.parametrize("fault", ["broker-cut", "slow-broker", "rebalance"])
def test_nothing_is_lost_and_nothing_comes_twice(kafka: KafkaBroker, tmp_path: Path, fault: str) -> None:
    arguments = (fault, "--rows", str(ROWS), "--bootstrap-servers", kafka.bootstrap_servers)
    (result,) = drilled(tmp_path, *arguments)
    assert result.broken == []
    assert (result.rows_in, result.rows_out, result.lost, result.duplicated) == (ROWS, ROWS, 0, 0)
    assert result.recovered_ms
    assert left_behind(kafka) == []


def test_an_app_of_a_user_reads_the_topics_of_the_drill(kafka: KafkaBroker, tmp_path: Path) -> None:
    result = drilled_app(tmp_path, ECHO, "broker-cut", "--bootstrap-servers", kafka.bootstrap_servers)
    assert result.broken == []
    assert (result.rows_in, result.rows_out) == (4000, 4000)


BREAKS_ON_KAFKA = """
from pythia_fast.brokers.base import Delivery
from pythia_fast.brokers.kafka_publisher import KafkaPublisher

publish, deliveries = KafkaPublisher.publish, KafkaPublisher.deliveries
dropped = []

def dropping(self, records, count, ticket):
    if ticket == 5:
        dropped.append(Delivery(ticket))
    else:
        publish(self, records, count, ticket)

def with_dropped(self, timeout=0.0):
    found = [*deliveries(self, timeout), *dropped]
    dropped.clear()
    return found

KafkaPublisher.publish, KafkaPublisher.deliveries = dropping, with_dropped
"""


def test_a_sink_that_drops_rows_fails_the_drill(kafka: KafkaBroker, tmp_path: Path) -> None:
    servers = ("--bootstrap-servers", kafka.bootstrap_servers)
    result = drilled_app(tmp_path, ECHO + BREAKS_ON_KAFKA, "slow-broker", "--patience", "4", *servers)
    assert not result.passed
    assert 0 < result.lost == 4000 - result.rows_out
    assert left_behind(kafka) == []


def test_a_drill_that_is_stopped_removes_its_topics_and_ends_its_runs(kafka: KafkaBroker, tmp_path: Path) -> None:
    arguments = ("drill", "rebalance", "--rows", "2000", "--bootstrap-servers", kafka.bootstrap_servers)
    with running(tmp_path, *arguments) as drill:
        deadline = time.monotonic() + 60
        while len(processes_in(tmp_path)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(drill.pid, signal.SIGTERM)
        assert drill.wait(30) == ExitCode.KILLED
    assert processes_in(tmp_path) == []
    assert left_behind(kafka) == []


def test_brokers_that_are_not_there_are_told(tmp_path: Path) -> None:
    finished = run(tmp_path, "drill", "broker-cut", "--rows", "2000", "--bootstrap-servers", "127.0.0.1:1")
    assert finished.returncode == ExitCode.UNREACHABLE
    assert finished.stdout.startswith("drill broker-cut: ERROR  Kafka at 127.0.0.1:1: ")
    assert "Traceback" not in finished.stderr


def test_a_broker_that_stalls_while_it_gets_the_rows_has_them_all(kafka: KafkaBroker) -> None:
    assert kafka.pid is not None
    broker, given, given_meanwhile = kafka.pid, 0, 0

    def payloads() -> Iterator[bytes]:
        nonlocal given
        for given in range(1, ROWS + 1):
            if given == 1000:
                os.kill(broker, signal.SIGSTOP)
                stalled.start()
            yield b"row"

    def go_on() -> None:
        nonlocal given_meanwhile
        given_meanwhile = given
        os.kill(broker, signal.SIGCONT)

    topics = DrillTopics({"bootstrap.servers": kafka.bootstrap_servers}, 1, timeout_s=5.0)
    topics.make()
    topics.await_leaders()
    stalled = threading.Timer(topics._timeout_s + 2, go_on)
    try:
        keys = topics.fill(payloads())
    finally:
        stalled.join()
        topics.remove()
    assert len(np.unique(keys)) == ROWS
    assert given_meanwhile <= 1000 + FILL_QUEUE
