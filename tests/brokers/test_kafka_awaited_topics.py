"""A transactional run whose sink or dead-letter topic does not exist: it says which, waits, and gives up in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.exactly_once import read_committed
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import Start, committed, ends, produce, runtimes

ROWS = 100


@pytest.fixture
def names(new_topic: Callable[..., str]) -> tuple[str, str, str]:
    """The source's topic, and two that do not exist."""
    source = new_topic(partitions=4)
    return source, f"sink-of-{source}", f"dead-of-{source}"


@pytest.fixture
def start_without_topics(kafka: KafkaBroker, tmp_path: Path, names: tuple[str, str, str]) -> Iterator[Start]:
    with runtimes(tmp_path, kafka.bootstrap_servers, names) as start:
        yield start


def test_a_sink_that_does_not_exist_yet_is_waited_for(
    kafka: KafkaBroker, names: tuple[str, str, str], start_without_topics: Start
) -> None:
    source, sink, dead = names
    servers = kafka.bootstrap_servers
    kafka.create_topic(dead, 1)
    produce(servers, source, range(ROWS))
    run = start_without_topics(handler={"transactional": True}, arguments=["--until-end"])
    run.wait_for(f"it waits until Kafka topic {sink} exists")
    kafka.create_topic(sink, 1)
    report = run.wait()
    assert (report["rows"], report["ending"], report["transactions_aborted"]) == (ROWS, "done", 1)
    assert sorted(read_committed(servers, sink)) == list(range(ROWS))
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


def test_the_topic_of_dead_letters_is_named_where_it_is_missing(
    kafka: KafkaBroker, names: tuple[str, str, str], start_without_topics: Start
) -> None:
    source, sink, dead = names
    kafka.create_topic(sink, 1)
    produce(kafka.bootstrap_servers, source, range(ROWS))
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(source, b"no row", partition=0)
    assert producer.flush(30) == 0
    run = start_without_topics(handler={"transactional": True}, arguments=["--connect-timeout", "2"])
    assert run.process.wait(60) == ExitCode.UNREACHABLE, run.log
    run.assert_gone()
    assert f"Kafka topic {dead} does not exist at {kafka.bootstrap_servers}: create it, or correct topic=" in run.log
    assert f"it waits until Kafka topic {dead} exists" in run.log
    assert f"Kafka topic {sink} does not exist" not in run.log
