"""Runs to the end beside other members of their group, which were killed, read to the end as well, or go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.brokers.test_kafka_unread_partitions import wait_until
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import Runtime, Start, committed, ends, produce

ROWS = 400
TO_THE_END = ["--until-end"]
LONG_SESSION = {"session.timeout.ms": 45_000}  #: no test waits for its end
SOON_S = 15.0  #: much less than that


def start_beside(start: Start, first: Runtime, topic: str, **settings: object) -> Runtime:
    """A second member to the end, which has half of the partitions."""
    first.wait_for(f"assigned {topic}[0, 1, 2, 3]")
    second = start(arguments=TO_THE_END, **settings)
    second.wait_for("kafka: assigned ")
    return second


def left_by(report: dict[str, object]) -> list[str]:
    (handler,) = report["handlers"]  # type: ignore[misc]
    return list(handler["left_to_others"])  # type: ignore[has-type]


@pytest.mark.parametrize(
    ("strategy", "handler"),
    [("cooperative-sticky", {"transactional": True}), ("cooperative-sticky", {}), ("range", {})],
)
def test_partitions_of_a_member_that_was_killed_are_read_to_the_end(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, strategy: str, handler: dict[str, object]
) -> None:
    source = topics[0]
    produce(kafka.bootstrap_servers, source, range(ROWS))
    shared = {"options": {"partition.assignment.strategy": strategy}, "handler": handler}
    killed = start(seconds=0.3, rows=2, arguments=TO_THE_END, **shared)
    other = start_beside(start, killed, source, **shared)
    killed.kill()
    report = other.wait()
    assert report["ending"] == "done"
    assert committed(kafka.bootstrap_servers, f"group-of-{source}", source) == ends(kafka.bootstrap_servers, source)
    assert f"waits for {source}[" in other.log, other.log
    assert left_by(report) == []


def test_a_member_without_partitions_reads_those_of_one_that_was_killed(
    kafka: KafkaBroker, new_topic: Callable[..., str], start: Start
) -> None:
    source = new_topic()
    produce(kafka.bootstrap_servers, source, range(ROWS), partitions=1)
    options = {"session.timeout.ms": 14_000}  # longer than a member may have none before it is done
    killed = start(source=[source], seconds=0.3, rows=2, options=options, arguments=TO_THE_END)
    killed.wait_for(f"assigned {source}[0]")
    other = start(source=[source], options=options, arguments=TO_THE_END)
    other.wait_for("has had no partition for")
    killed.kill()
    assert other.wait()["ending"] == "done"
    servers = kafka.bootstrap_servers
    assert committed(servers, f"group-of-{source}", source, 1) == ends(servers, source, 1)


def test_two_members_to_the_end_both_end_at_once(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, servers = topics[0], kafka.bootstrap_servers
    produce(servers, source, range(ROWS))
    settings = {"seconds": 0.05, "rows": 4, "options": LONG_SESSION, "workers": 1}
    first = start(arguments=TO_THE_END, **settings)
    second = start_beside(start, first, source, **settings)
    wait_until(lambda: committed(servers, f"group-of-{source}", source) == ends(servers, source))
    begin = time.monotonic()
    reports = [first.wait(), second.wait()]
    assert time.monotonic() - begin < SOON_S
    assert [report["ending"] for report in reports] == ["done", "done"]
    assert sum(report["rows"] for report in reports) == ROWS


def test_partitions_of_a_member_that_reads_on_are_left_to_it(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, servers = topics[0], kafka.bootstrap_servers
    produce(servers, source, range(ROWS))
    reading_on = start(seconds=0.3, rows=2, options=LONG_SESSION, workers=1)
    other = start_beside(start, reading_on, source, options=LONG_SESSION)
    report = other.wait(SOON_S)
    assert report["ending"] == "done"
    (sentence,) = left_by(report)
    assert f"kafka: {sentence}" in other.log
    assert sentence.startswith(f"{source}[")
    assert ", which lives: up to " in sentence
    assert committed(servers, f"group-of-{source}", source) != ends(servers, source)


def test_a_member_that_lives_and_gets_nowhere_is_waited_for_until_a_session_has_passed(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, servers = topics[0], kafka.bootstrap_servers
    produce(servers, source, range(ROWS))
    hanging = start(seconds=3600, rows=ROWS, arguments=["--drain-timeout", "1"])
    report = start_beside(start, hanging, source).wait()
    (sentence,) = left_by(report)
    assert ", which lives: up to 200 messages before the end are not committed" in sentence
    assert (report["ending"], report["rows"]) == ("done", ROWS // 2)


def test_a_stop_ends_the_wait(kafka: KafkaBroker, topics: tuple[str, str, str], start: Start) -> None:
    source = topics[0]
    produce(kafka.bootstrap_servers, source, range(ROWS))
    killed = start(seconds=0.3, rows=2, options=LONG_SESSION)
    other = start_beside(start, killed, source, options=LONG_SESSION)
    killed.kill()
    other.wait_for(f"waits for {source}[")
    other.process.terminate()
    report = other.wait(SOON_S)
    assert report["ending"] == "drained"
    assert left_by(report) == []


def test_the_marker_of_a_transaction_is_not_waited_for(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, servers = topics[0], kafka.bootstrap_servers
    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"writes-{source}"})
    producer.init_transactions(30)
    for kept in (True, False):
        producer.begin_transaction()
        for i in range(ROWS):
            producer.produce(source, b'{"id":%d}' % i, partition=i % 4)
        if kept:
            producer.commit_transaction(30)
        else:
            producer.flush(30)
            producer.abort_transaction(30)
    reading_on = start(options=LONG_SESSION)
    group = f"group-of-{source}"
    wait_until(lambda: sum(committed(servers, group, source)) >= ROWS)
    assert committed(servers, group, source) != ends(servers, source)
    report = start_beside(start, reading_on, source, options=LONG_SESSION).wait(SOON_S)
    assert (report["ending"], left_by(report)) == ("done", [])


def test_a_member_of_the_broker_side_protocol_that_was_killed(
    topics: tuple[str, str, str], start: Start, tmp_path: Path
) -> None:
    source, sink, dead = topics
    settings = {
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "6000",
        "group.consumer.min.heartbeat.interval.ms": "500",
        "group.consumer.heartbeat.interval.ms": "500",
    }
    with KafkaBroker(tmp_path / "broker", settings=settings) as broker:
        for topic, partitions in ((source, 4), (sink, 1), (dead, 1)):
            broker.create_topic(topic, partitions)
        servers = broker.bootstrap_servers
        produce(servers, source, range(ROWS))
        options = {"group.protocol": "consumer", "session.timeout.ms": None, "heartbeat.interval.ms": None}
        shared = {"servers": servers, "options": options}
        killed = start(seconds=0.3, rows=2, arguments=TO_THE_END, **shared)
        other = start_beside(start, killed, source, **shared)
        killed.kill()
        report = other.wait()
        assert (report["ending"], left_by(report)) == ("done", [])
        assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


def test_partitions_of_a_topic_that_only_a_pattern_names(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, servers = topics[0], kafka.bootstrap_servers
    produce(servers, source, range(ROWS))
    settings = {"source": [f"^{source}$"], "group": f"group-of-{source}"}
    killed = start(seconds=0.3, rows=2, arguments=TO_THE_END, **settings)
    other = start_beside(start, killed, source, **settings)
    killed.kill()
    report = other.wait()
    assert (report["ending"], left_by(report)) == ("done", [])
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)
