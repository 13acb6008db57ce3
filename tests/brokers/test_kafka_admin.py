"""KafkaAdmin against a real broker: lag by hand, names that do not exist, topics made and described."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pythia_fast import KafkaAdmin
from pythia_fast.brokers.kafka_cluster import PartitionLag
from pythia_fast.errors import ConfigError, SourceError, UnknownGroupError, UnknownOptionError, UnknownTopicError
from tests.support.kafka_broker import KafkaBroker, free_ports

NewTopic = Callable[..., str]


@pytest.fixture
def admin(kafka: KafkaBroker) -> KafkaAdmin:
    return KafkaAdmin(bootstrap_servers=kafka.bootstrap_servers, timeout=30)


def fill(kafka: KafkaBroker, topic: str, counts: list[int]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for partition, count in enumerate(counts):
        for number in range(count):
            producer.produce(topic, b"%d" % number, partition=partition)
    assert producer.flush(60) == 0


def commit(kafka: KafkaBroker, group: str, topic: str, offsets: dict[int, int]) -> None:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, *part) for part in offsets.items()], asynchronous=False)
    consumer.close()


def test_lag_is_end_minus_committed_of_every_partition(
    kafka: KafkaBroker, admin: KafkaAdmin, new_topic: NewTopic
) -> None:
    topic = new_topic(3)
    fill(kafka, topic, [100, 20, 7])
    commit(kafka, "lagging", topic, {0: 40, 1: 20})
    lags = asyncio.run(admin.get_partition_lags("lagging", topic))
    assert lags == {0: PartitionLag(0, 100, 40), 1: PartitionLag(0, 20, 20), 2: PartitionLag(0, 7, None)}
    assert [part.lag for part in lags.values()] == [60, 0, 7]
    assert asyncio.run(admin.get_consumer_lag("lagging", topic)) == 67
    assert "lagging" in asyncio.run(admin.list_groups())


@pytest.mark.parametrize(
    ("part", "lag"),
    [
        (PartitionLag(0, 0, None), 0),
        (PartitionLag(5, 9, None), 4),
        (PartitionLag(5, 9, 2), 4),  # what it had not read was deleted
        (PartitionLag(0, 9, 9), 0),
        (PartitionLag(0, 3, 9), 0),  # the topic was made anew under its name
    ],
)
def test_lag_of_one_partition(part: PartitionLag, lag: int) -> None:
    assert part.lag == lag


def test_names_that_do_not_exist_are_told_apart(kafka: KafkaBroker, admin: KafkaAdmin, new_topic: NewTopic) -> None:
    topic = new_topic()
    commit(kafka, "order-processors", topic, {0: 0})
    with pytest.raises(UnknownTopicError, match=rf"no Kafka topic {topic}x at .*; did you mean {topic}\?"):
        asyncio.run(admin.get_consumer_lag("order-processors", f"{topic}x"))
    with pytest.raises(UnknownGroupError, match=r"no consumer group order-procesors at .*; did you mean order-proc"):
        asyncio.run(admin.get_consumer_lag("order-procesors", topic))
    with pytest.raises(UnknownTopicError):
        asyncio.run(admin.describe_topic(f"{topic}x"))
    assert f"{topic}x" not in asyncio.run(admin.list_topics())  # asking has not made it


def test_a_group_without_positions_in_the_topic_is_behind_by_all_of_it(
    kafka: KafkaBroker, admin: KafkaAdmin, new_topic: NewTopic
) -> None:
    read, unread = new_topic(), new_topic()
    fill(kafka, unread, [9])
    commit(kafka, "elsewhere", read, {0: 0})
    assert asyncio.run(admin.get_consumer_lag("elsewhere", unread)) == 9


def test_a_topic_is_made_once_and_described(admin: KafkaAdmin) -> None:
    async def make_and_describe() -> None:
        config = {"cleanup.policy": "compact", "retention.ms": "60000"}
        assert await admin.create_topic("made-by-admin", partitions=3, replication_factor=1, config=config)
        described = await admin.describe_topic("made-by-admin")
        assert list(described.partitions) == [0, 1, 2]
        assert {(part.leader, part.replicas, part.in_sync_replicas) for part in described.partitions.values()} == {
            (1, (1,), (1,))
        }
        assert config.items() <= described.config.items()
        assert not await admin.create_topic("made-by-admin", exist_ok=True)
        with pytest.raises(SourceError, match=r"topic made-by-admin cannot be created: .*exists"):
            await admin.create_topic("made-by-admin")
        assert await admin.create_topic("made-by-default")
        assert list((await admin.describe_topic("made-by-default")).partitions) == [0]
        with pytest.raises(SourceError, match="made-with-nonsense cannot be created"):
            await admin.create_topic("made-with-nonsense", config={"cleanup.policie": "x"})

    asyncio.run(make_and_describe())


def test_the_event_loop_goes_on_while_a_broker_does_not_answer() -> None:
    (port,) = free_ports(1)
    admin = KafkaAdmin(bootstrap_servers=f"127.0.0.1:{port}", timeout=1.0)

    async def ask() -> int:
        turns = 0
        question = asyncio.ensure_future(admin.get_consumer_lag("g", "t"))
        started = time.monotonic()
        while not question.done():
            await asyncio.sleep(0.01)
            turns += 1
            assert time.monotonic() - started < 60
        with pytest.raises(SourceError, match=f"Kafka at 127.0.0.1:{port}: "):
            await question
        return turns

    assert asyncio.run(ask()) > 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bootstrap_servers": 5}, "bootstrap_servers=5: host:port"),
        ({"timeout": 0}, "timeout=0: more than 0 seconds"),
        ({"options": {"sasl.mechanism": object()}}, "sasl.mechanism"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        KafkaAdmin(**options)  # type: ignore[arg-type]
    with pytest.raises(UnknownOptionError, match="did you mean 'sasl_mechanism'"):
        KafkaAdmin(sasl_mechanisn="PLAIN")


def test_arguments_that_cannot_be_are_refused(admin: KafkaAdmin) -> None:
    with pytest.raises(ConfigError, match="partitions=0: a whole number of partitions from 1"):
        asyncio.run(admin.create_topic("x", partitions=0))
    with pytest.raises(ConfigError, match=r"config=.*: a mapping of Kafka's settings"):
        asyncio.run(admin.create_topic("x", config={"retention.ms": 5}))  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="group='': the name of a group"):
        asyncio.run(admin.get_consumer_lag("", "x"))


def test_it_is_found_where_the_consumer_is() -> None:
    from pythia_fast.brokers import kafka as module

    assert module.KafkaAdmin is KafkaAdmin
    with pytest.raises(AttributeError, match="KafkaAdmim"):
        _ = module.KafkaAdmim
