"""What Kafka is asked before a run, on real brokers: no member joins, nothing is made."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pythia_fast import KafkaConsumer, KafkaProducer
from tests.support.checkup import bad, context, found, told
from tests.support.kafka_broker import KafkaBroker, free_ports
from tests.support.tcp_proxy import TcpProxy

NewTopic = Callable[..., str]
PASSWORD = "correct-horse-battery-staple"


def produce(broker: KafkaBroker, topic: str, count: int, **options: Any) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for number in range(count):
        producer.produce(topic, str(number), **options)
    assert producer.flush(60) == 0


def commit(broker: KafkaBroker, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    deadline = time.monotonic() + 60
    while True:
        try:
            consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
            break
        except KafkaException as error:  # a broker that has just started is not yet the group's coordinator
            loading = error.args[0].code() == KafkaError.COORDINATOR_LOAD_IN_PROGRESS
            if not (loading or error.args[0].retriable()) or time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
    consumer.close()


def source(broker: KafkaBroker, topic: str, **options: Any) -> KafkaConsumer:
    return KafkaConsumer(topic, **{"bootstrap_servers": broker.bootstrap_servers, **options})


def new_group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


def test_a_topic_and_a_group_that_fit(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(4), new_group()
    produce(kafka, topic, 10, partition=0)
    commit(kafka, group, topic, 3)
    findings = found(source(kafka, topic, consumer_group=group), context(ordering="partition"))
    assert bad(findings) == []
    told(findings, "ok", f"Kafka at {kafka.bootstrap_servers} answered after ")
    told(findings, "ok", f"topic {topic} has 4 partitions, replication factor 1, min.insync.replicas 1")
    told(findings, "ok", f"group {group} has 7 messages of topic {topic} to read")
    told(findings, "ok", f"group {group} is empty, with 0 members")
    told(findings, "note", "as the cluster has one broker")


def test_asking_makes_no_topic_and_no_group(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(), new_group()
    told(
        found(source(kafka, topic, consumer_group=group)),
        "note",
        f"group {group} does not exist yet: it begins at the earliest",
    )
    told(found(source(kafka, f"{topic}-none", consumer_group=group)), "problem", f"no Kafka topic {topic}-none")
    sink = KafkaProducer(f"{topic}-none", bootstrap_servers=kafka.bootstrap_servers)
    told(found(sink, context(role="sink")), "problem", "did you mean topic-")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    assert f"{topic}-none" not in admin.list_topics(timeout=30).topics
    assert group not in [each.group_id for each in admin.list_consumer_groups().result(30).valid]


def test_patterns(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic(2)
    told(found(source(kafka, f"^{topic}$")), "ok", f"1 topics match ^{topic}$")
    told(found(source(kafka, "^no-such-.*")), "problem", "no topic matches ^no-such-.*")


def test_fewer_partitions_than_processes(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    findings = found(source(kafka, new_topic(3)), context(ordering="partition", workers=8))
    finding = told(
        findings, "warning", 'ordering="partition" with 8 processes and 3 partitions: 5 processes have nothing'
    )
    assert "--workers 3" in finding.change
    assert bad(found(source(kafka, new_topic(3)), context(ordering="key", workers=8))) == []


def test_members_elsewhere(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(), new_group()
    options = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": group,
        "partition.assignment.strategy": "range",
    }
    member = Consumer({**options, "group.instance.id": "one"})
    member.subscribe([topic])
    try:
        deadline = time.monotonic() + 60
        while not member.assignment() and time.monotonic() < deadline:
            member.poll(0.1)
        assert member.assignment()
        findings = found(source(kafka, topic, consumer_group=group, group_instance_id="one"))
        told(findings, "ok", f"group {group} is stable, with 1 member")
        told(findings, "note", f"members of group {group} are at ")
        told(findings, "problem", "share partitions by range, this one by cooperative-sticky: it cannot join")
        told(findings, "warning", "group.instance.id one is a member already")
        told(findings, "warning", "1 partition for 1 member and this one: one gets none")
        assert member.assignment(), "nobody joined, so nobody's partitions were taken"
    finally:
        member.close()


def test_retention_shorter_than_the_lag(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(1, retention_ms="3600000"), new_group()
    produce(kafka, topic, 3, timestamp=int((time.time() - 3000) * 1000))
    produce(kafka, topic, 3)
    commit(kafka, group, topic, 1)
    findings = found(source(kafka, topic, consumer_group=group))
    told(
        findings,
        "warning",
        f"unread messages in 1 partition of topic {topic} are older than 0.5 h, and it keeps them for 1 h",
    )
    commit(kafka, group, topic, 3)
    assert bad(found(source(kafka, topic, consumer_group=group))) == []


def test_messages_that_were_removed_unread(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic, group = new_topic(), new_group()
    produce(kafka, topic, 10)
    commit(kafka, group, topic, 2)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_records([TopicPartition(topic, 0, 6)])[TopicPartition(topic, 0)].result(30)
    told(
        found(source(kafka, topic, consumer_group=group)), "warning", f"4 offsets of topic {topic} were removed before"
    )


def test_sizes_against_the_handler(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    large, small = new_topic(1, max_message_bytes="5000000"), new_topic(1, max_message_bytes="100000")
    told(
        found(source(kafka, large)),
        "warning",
        f"topic {large} takes messages of 4,999,930 bytes, and a batch holds 1,048,576",
    )
    sink = KafkaProducer(small, bootstrap_servers=kafka.bootstrap_servers)
    told(found(sink, context(role="sink")), "note", f"topic {small} takes 100,000 bytes at once")
    in_transactions = found(sink, context(role="sink", transactional=True))
    finding = told(in_transactions, "warning", f"topic {small} takes 100,000 bytes at once")
    assert "batch_size=100000" in finding.change
    fitting = KafkaProducer(
        small, bootstrap_servers=kafka.bootstrap_servers, batch_size=100_000, message_max_bytes=100_000
    )
    assert bad(found(fitting, context(role="sink"))) == []


def test_timeouts(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic()
    findings = found(
        source(kafka, topic, session_timeout_ms=500, heartbeat_interval_ms=100), context(batch_deadline_s=300.0)
    )
    told(findings, "problem", "session.timeout.ms=500 is refused by the brokers, which take 1,000 to 1,800,000")
    told(findings, "warning", "batch_deadline=300 s is not below max.poll.interval.ms, 300 s")


def test_transactions(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    servers = kafka.bootstrap_servers
    sink = KafkaProducer(new_topic(), bootstrap_servers=servers, transaction_timeout_ms=1_000_000)
    findings = found(sink, context(role="sink", transactional=True, batch_deadline_s=2000.0))
    told(findings, "problem", "transaction.timeout.ms=1,000,000 is refused by the brokers, which take up to 900,000")
    told(findings, "warning", "batch_deadline=2000 s does not fit into a transaction")
    told(findings, "note", "transaction.state.log.replication.factor is 1")


def test_too_few_replicas_to_write(kafka: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic(1, min_insync_replicas="2")
    sink = KafkaProducer(topic, bootstrap_servers=kafka.bootstrap_servers)
    told(found(sink, context(role="sink")), "problem", "fewer in-sync replicas than min.insync.replicas=2")
    assert bad(found(source(kafka, topic))) == [], "it can be read all the same"


def test_nobody_listens() -> None:
    (port,) = free_ports(1)
    (finding,) = found(KafkaConsumer("orders", bootstrap_servers=f"127.0.0.1:{port}"), context(timeout_s=2))
    assert finding.grade == "problem"
    assert f"no Kafka broker answered at 127.0.0.1:{port} within 1." in finding.what
    assert "Connection refused" in finding.what


def test_a_broker_that_does_not_answer(kafka: KafkaBroker, proxy: TcpProxy) -> None:
    proxy.freeze()
    begun = time.monotonic()
    (finding,) = found(KafkaConsumer("orders", bootstrap_servers=proxy.address), context(timeout_s=1))
    assert time.monotonic() - begun < 20
    assert finding.grade == "problem"
    assert f"no Kafka broker answered at {proxy.address} within 0." in finding.what


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaBroker, dict[str, str]]]:
    """A broker with rules, which the plain listener's users stand above, and alice, who may do what she is allowed."""
    broker = KafkaBroker(tmp_path_factory.mktemp("guarded"))
    (port,) = free_ports(1)
    plain, controller = broker.bootstrap_servers, f"127.0.0.1:{broker.controller_port}"
    broker.settings |= {
        "listeners": f"PLAINTEXT://{plain},ASKING://127.0.0.1:{port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{plain},ASKING://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,ASKING:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listener.name.asking.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.asking.plain.sasl.jaas.config": (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="{PASSWORD}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    options = {
        "bootstrap.servers": f"127.0.0.1:{port}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": PASSWORD,
    }
    with broker:
        broker.create_topic("orders")
        broker.create_topic("secret")
        admin = AdminClient({"bootstrap.servers": plain})
        allowed = [
            (ResourceType.TOPIC, "orders", AclOperation.DESCRIBE),
            (ResourceType.TOPIC, "orders", AclOperation.DESCRIBE_CONFIGS),
            (ResourceType.GROUP, "shop-score", AclOperation.DESCRIBE),
        ]
        rules = [
            AclBinding(kind, name, ResourcePatternType.LITERAL, "User:alice", "*", operation, AclPermissionType.ALLOW)
            for kind, name, operation in allowed
        ]
        for answer in admin.create_acls(rules).values():
            answer.result(30)
        commit(broker, "shop-score", "orders", 0)
        yield broker, options


def test_a_user_without_rights(guarded: tuple[KafkaBroker, dict[str, str]]) -> None:
    _, options = guarded
    findings = found(KafkaConsumer("orders", options=options))
    told(findings, "problem", "this user may not read topic orders")
    told(findings, "problem", "this user may not read as group shop-score")
    told(findings, "note", "the brokers' own settings cannot be asked")
    told(
        found(KafkaProducer("orders", options=options), context(role="sink")),
        "problem",
        "may not write to topic orders",
    )
    told(found(KafkaConsumer("secret", options=options)), "problem", "there is no Kafka topic secret")
    told(found(KafkaConsumer("orders", consumer_group="other", options=options)), "problem", "group other")


def test_wrong_credentials(guarded: tuple[KafkaBroker, dict[str, str]]) -> None:
    _, options = guarded
    (finding,) = found(KafkaConsumer("orders", options=options | {"sasl.password": "wrong-password"}))
    assert finding.grade == "problem"
    assert "does not let us in" in finding.what
    assert "uthentication failed" in finding.what
    assert "wrong-password" not in repr(finding)
