"""Share groups that may not be read, or that the cluster does not have, and what the checkup finds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pythia_fast import KafkaShareConsumer
from pythia_fast.errors import SourceError
from tests.support.checkup import bad, context, found, told
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_libraries import java_program, libraries
from tests.support.kafka_run import committed
from tests.support.kafka_share_run import configure, echo_app, new_group, send
from tests.support.rabbitmq_run import Running

NewTopic = Callable[..., str]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that allows what nothing forbids."""
    broker = KafkaBroker(tmp_path_factory.mktemp("strict"))
    broker.settings |= {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    broker.start()
    broker.create_topic("orders")
    yield broker
    broker.close()


def allow(broker: KafkaBroker, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    """These, and nothing else of it."""
    rules = [
        AclBinding(kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", each, AclPermissionType.ALLOW)
        for each in operations
    ]
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    for made in admin.create_acls(rules).values():
        made.result(30)


def consumer(broker: KafkaBroker, group: str, topic: str = "orders") -> KafkaShareConsumer:
    return KafkaShareConsumer(topic, consumer_group=group, bootstrap_servers=broker.bootstrap_servers)


def test_a_group_that_may_not_be_read(strict: KafkaBroker, tmp_path: Path) -> None:
    group = new_group()
    allow(strict, ResourceType.GROUP, group, AclOperation.DESCRIBE)
    app, _ = echo_app(consumer(strict, group))
    with pytest.raises(SourceError, match=f"this user may not read as share group {group} .*--operation Read"):
        app.run(workers=1, until="end", state_dir=tmp_path)


def test_a_topic_that_may_not_be_read(strict: KafkaBroker, tmp_path: Path) -> None:
    topic = strict.create_topic("secret")
    send(strict.bootstrap_servers, topic, [b"a"])
    allow(strict, ResourceType.TOPIC, topic, AclOperation.DESCRIBE)
    app, _ = echo_app(consumer(strict, new_group(), topic))
    with pytest.raises(SourceError, match=r"this user may not read all of secret .*--operation Read"):
        app.run(workers=1, until="end", state_dir=tmp_path)


def test_a_group_whose_settings_may_not_be_changed(strict: KafkaBroker, tmp_path: Path) -> None:
    group = new_group()
    allow(strict, ResourceType.GROUP, group, AclOperation.READ, AclOperation.DESCRIBE_CONFIGS)
    send(strict.bootstrap_servers, "orders", [b"a"])
    app, sink = echo_app(consumer(strict, group))
    running = Running(app, until="end", state_dir=tmp_path)
    running.join()
    assert running.error is None
    (line,) = [line for line in running.events.lines if "could not be set to earliest" in line]
    assert "without a position it begins at the latest message" in line
    assert sink.payloads == []


def test_a_cluster_without_share_groups(tmp_path: Path) -> None:
    with KafkaBroker(tmp_path / "kafka") as broker:
        broker.create_topic("orders")
        tool = [java_program(), "-cp", f"{libraries()}/*", "org.apache.kafka.tools.FeatureCommand"]
        tool += ["--bootstrap-server", broker.bootstrap_servers, "downgrade", "--feature", "share.version=0"]
        subprocess.run(tool, check=True, capture_output=True, timeout=60)
        app, _ = echo_app(consumer(broker, new_group()))
        with pytest.raises(SourceError, match=r"has no share groups .* share\.version=1"):
            app.run(workers=1, until="end", state_dir=tmp_path / "state")


def test_a_checkup_finds_what_there_is(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(2), new_group()
    committed(kafka.bootstrap_servers, "any", topic, 2)  # waits for the coordinator of groups, which may be starting
    findings = found(consumer(kafka, group, topic))
    told(findings, "ok", "has 2 partitions")
    told(findings, "ok", "rows are kept for 30 s (share.record.lock.duration.ms), delivered 5 times at most")
    assert bad(findings) == []


def test_a_checkup_finds_what_is_wrong(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(1), new_group()
    configure(kafka.bootstrap_servers, group, auto_offset_reset="latest")
    source = KafkaShareConsumer(
        topics=[topic, f"{topic}-not"],
        consumer_group=group,
        bootstrap_servers=kafka.bootstrap_servers,
        max_poll_records=2000,
    )
    findings = found(source, context(batch_deadline_s=60.0))
    told(findings, "problem", f"{topic}-not")
    told(findings, "warning", "batch_deadline=60 s is not below the 30 s for which rows are kept")
    told(findings, "note", "4 members of 2,000 rows each ask for 8,000")
    told(findings, "note", "begins at the latest message")


def test_a_checkup_finds_an_ordinary_group(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(1), new_group()
    ordinary = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    ordinary.subscribe([topic])
    while not ordinary.assignment():
        ordinary.poll(0.1)
    told(found(consumer(kafka, group, topic)), "problem", f"group {group} is an ordinary consumer group")
    ordinary.close()
