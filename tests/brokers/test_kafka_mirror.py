"""``mirror`` between two real clusters: every message with all that belongs to it, kills, groups, what is refused."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.brokers.kafka_cluster import KafkaCluster
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.errors import SourceError
from pythia_fast.observer import Snapshot
from pythia_fast.runtime.control import Request, ask
from tests.support.command_line import ENVIRONMENT, command, processes_in, run
from tests.support.kafka_broker import KafkaBroker, wait_for_leaders

#: So many requests that a kill finds a mirror at work.
SLOWLY = ("--to-option", "batch.num.messages=50", "--to-option", "max.in.flight.requests.per.connection=1")
OTHER_CLUSTER = "cHl0aGlhLWZhc3QtdHdvMg"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A second cluster."""
    broker = KafkaBroker(tmp_path_factory.mktemp("other"), cluster_id=OTHER_CLUSTER)
    broker.start()
    yield broker
    broker.close()


class Stored(NamedTuple):
    """A message as a consumer sees it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int


class Mirror:
    """One mirror between the two: topics of its own, a group of its own."""

    def __init__(self, source: KafkaBroker, target: KafkaBroker, folder: Path) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.name = f"mirrored-{next(_numbers)}"

    def arguments(self, *more: str, topics: str | None = None) -> list[str]:
        return [
            *("mirror", "--from", self.source.bootstrap_servers, "--to", self.target.bootstrap_servers),
            *("--topics", topics or rf"{self.name}\..*", "--group", f"{self.name}-mirror", *more),
        ]

    def run(self, *more: str, topics: str | None = None) -> subprocess.CompletedProcess[str]:
        return run(self.folder, *self.arguments(*more, topics=topics))

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*self.arguments(*more)),
            cwd=self.folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def snapshot(self, pid: int) -> Snapshot:
        """How a mirror that runs stands."""
        (socket,) = self.folder.glob(f".pythia/**/control-{pid}.sock")
        answer = msgspec.convert(ask(socket.parent, pid, Request("status")).result, dict[str, Any])
        return msgspec.convert(answer["snapshot"], Snapshot)

    def produce(self, topic: str, partition: int, messages: list[Stored], **options: object) -> None:
        producer = Producer({"bootstrap.servers": self.source.bootstrap_servers, "linger.ms": 20, **options})

        def delivered(error: KafkaError | None, _message: object) -> None:
            assert error is None, error

        if "transactional.id" in options:
            producer.init_transactions(30)
            producer.begin_transaction()
        for message in messages:
            producer.produce(
                topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers) or None,
                timestamp=message.timestamp_ms,
                partition=partition,
                on_delivery=delivered,
            )
            producer.poll(0)
        if "transactional.id" in options:
            producer.commit_transaction(30)
        producer.flush(30)


@pytest.fixture
def mirror(kafka: KafkaBroker, other: KafkaBroker, tmp_path: Path) -> Mirror:
    return Mirror(kafka, other, tmp_path)


def messages(count: int, first: int = 0) -> list[Stored]:
    """Of every kind: null and empty values and keys, headers twice under one name and with null."""
    now_ms = int(time.time() * 1000) - 600_000
    made = []
    for i in range(first, first + count):
        value = None if i % 7 == 0 else b"" if i % 11 == 0 else b"value %d" % i
        key = None if i % 5 == 0 else b"" if i % 13 == 0 else b"key %d" % (i % 50)
        headers: list[tuple[str, bytes | None]] = [("a", b"%d" % i), ("a", None), ("b", b"")] if i % 3 == 0 else []
        made.append(Stored(key, value, headers, now_ms + i))
    return made


def stored(broker: KafkaBroker, topic: str, partition: int) -> dict[int, Stored]:
    """All messages of a partition, by offset."""
    options = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "look", "enable.partition.eof": True}
    consumer = Consumer({**options, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, partition, 0)])
    found = {}
    while (message := consumer.poll(30)) is not None and message.error() is None:
        headers = [(name, value) for name, value in message.headers() or []]
        found[message.offset()] = Stored(message.key(), message.value(), headers, message.timestamp()[1])
    consumer.close()
    return found


def values(broker: KafkaBroker, topic: str, partition: int) -> list[Stored]:
    return list(stored(broker, topic, partition).values())


def commit(broker: KafkaBroker, group: str, positions: Mapping[tuple[str, int], int]) -> None:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    parts = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
    consumer.commit(offsets=parts, asynchronous=False)
    consumer.close()


def committed(broker: KafkaBroker, group: str) -> dict[tuple[str, int], int]:
    access = KafkaAccess({"bootstrap.servers": broker.bootstrap_servers}, 30)
    topics = KafkaCluster(access).topics()
    keys = [(topic, partition) for topic in topics if topic.startswith("mirrored-") for partition in topics[topic]]
    return access.committed(group, keys, SourceError)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def end_of(broker: KafkaBroker, topic: str, partition: int) -> int:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "look"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1])
    except Exception:  # it is not there yet
        return 0
    finally:
        consumer.close()


def test_messages_keep_everything(mirror: Mirror) -> None:
    eu, us = f"{mirror.name}.eu", f"{mirror.name}.us"
    mirror.source.create_topic(eu, 3, cleanup_policy="compact")
    mirror.source.create_topic(us, 2, retention_ms="7200000")
    mirror.source.create_topic(f"{mirror.name}-not", 1)
    sent = {(topic, p): messages(300, 1000 * p) for topic, count in ((eu, 3), (us, 2)) for p in range(count)}
    for (topic, partition), each in sent.items():
        if topic == eu:  # a compacted topic takes no message without a key
            each[:] = [message._replace(key=message.key or b"key") for message in each]
        mirror.produce(topic, partition, each)
    commit(mirror.source, f"{mirror.name}-shop", {(eu, 0): 17, (us, 1): 300})

    finished = mirror.run("--until-end", "--groups", f"{mirror.name}-sh.*")

    assert finished.returncode == ExitCode.DONE, finished.stderr
    for (topic, partition), each in sent.items():
        assert values(mirror.target, topic, partition) == each
    assert f"mirroring {eu}, {us}\n" in finished.stderr
    assert f"made topic {eu} with 3 partitions, cleanup.policy=compact" in finished.stderr
    assert "mirrored 1,500 messages from" in finished.stdout
    cluster = KafkaCluster(KafkaAccess({"bootstrap.servers": mirror.target.bootstrap_servers}, 30))
    assert f"{mirror.name}-not" not in cluster.topics()
    made = cluster.describe_topic(eu), cluster.describe_topic(us)
    assert [len(topic.partitions) for topic in made] == [3, 2]
    assert [topic.config["cleanup.policy"] for topic in made] == ["compact", "delete"]
    assert made[1].config["retention.ms"] == "7200000"
    assert committed(mirror.target, f"{mirror.name}-shop") == {(eu, 0): 17, (us, 1): 300}
    own = committed(mirror.source, f"{mirror.name}-mirror")
    assert own == dict.fromkeys(sent, 300)
    assert committed(mirror.target, f"{mirror.name}-mirror") == own
    assert processes_in(mirror.folder) == []


def test_a_killed_mirror_goes_on_without_loss_and_in_order(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 2)
    sent = {partition: messages(60_000, 100_000 * partition) for partition in range(2)}
    for partition, each in sent.items():
        mirror.produce(topic, partition, each)
    process = mirror.start("--until-end", *SLOWLY)
    own = f"{mirror.name}-mirror"
    try:
        wait_for(lambda: sum(committed(mirror.source, own).values()) > 0)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    wait_for(lambda: processes_in(mirror.folder) == [])
    resumed_at = sum(committed(mirror.source, own).values())
    assert 0 < resumed_at < 120_000
    commit(mirror.source, f"{mirror.name}-shop", {(topic, 0): 30_000, (topic, 1): 59_999})

    finished = mirror.run("--until-end", "--groups", f"{mirror.name}-shop")

    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert f"mirrored {120_000 - resumed_at:,} messages" in finished.stdout
    moved = committed(mirror.target, f"{mirror.name}-shop")
    for partition, each in sent.items():
        there = values(mirror.target, topic, partition)
        # Some of them twice: without what is a repetition of an earlier one, they are what was sent, in order.
        assert list(dict.fromkeys(message.timestamp_ms for message in there)) == [m.timestamp_ms for m in each]
        assert there[-1000:] == each[-1000:]
        position = 30_000 if partition == 0 else 59_999
        assert there[moved[topic, partition] :] == each[position:]


def test_positions_are_translated_over_gaps(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 1)
    # A transaction's end takes an offset of its own in the source, and there is none of that in the target.
    for batch in range(4):
        mirror.produce(topic, 0, messages(10, 10 * batch), **{"transactional.id": f"{mirror.name}-tx"})
    there = stored(mirror.source, topic, 0)
    assert max(there) > 39
    offsets = sorted(there)
    for n, position in enumerate([offsets[0], offsets[15], offsets[19] + 1, offsets[25], offsets[39] + 2]):
        commit(mirror.source, f"{mirror.name}-g{n}", {(topic, 0): position})
    finished = mirror.run("--until-end", "--groups", f"{mirror.name}-g.*")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert values(mirror.target, topic, 0) == list(there.values())
    got = [committed(mirror.target, f"{mirror.name}-g{n}")[topic, 0] for n in range(5)]
    assert got == [0, 15, 20, 25, 40]


def test_it_follows_shows_its_lag_moves_groups_and_drains(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 1)
    mirror.produce(topic, 0, messages(100))
    group = f"{mirror.name}-shop"
    process = mirror.start("--groups", group, "--groups-every", "0.5")
    try:
        wait_for(lambda: end_of(mirror.target, topic, 0) == 100)
        commit(mirror.source, group, {(topic, 0): 40})
        wait_for(lambda: committed(mirror.target, group) == {(topic, 0): 40})
        late = f"{mirror.name}.late"  # a topic that is made while it runs
        mirror.source.create_topic(late, 2)
        mirror.produce(late, 1, messages(50))
        mirror.produce(topic, 0, messages(100, 100))
        wait_for(lambda: end_of(mirror.target, late, 1) == 50 and end_of(mirror.target, topic, 0) == 200)
        commit(mirror.source, group, {(topic, 0): 20})  # back there, but never back here
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == ExitCode.DONE, err
    assert "mirrored 250 messages" in out
    assert "0 messages behind in 0 of" in err
    assert f"made topic {late} with 2 partitions" in err
    assert committed(mirror.target, group) == {(topic, 0): 40}
    assert committed(mirror.source, f"{mirror.name}-mirror") == {(topic, 0): 200, (late, 1): 50}


def test_partitions_that_are_added_to_the_source_are_added_to_the_target(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 1)
    mirror.produce(topic, 0, messages(100))
    process = mirror.start()
    try:
        wait_for(lambda: end_of(mirror.target, topic, 0) == 100)
        admin = AdminClient({"bootstrap.servers": mirror.source.bootstrap_servers})
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
        wait_for_leaders(admin, topic, 3)
        sent = messages(200, 1000)
        mirror.produce(topic, 2, sent)
        wait_for(lambda: end_of(mirror.target, topic, 2) == 200)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == ExitCode.DONE, err
    assert f"made partitions of {topic}: 3 now, as in the source" in err
    assert values(mirror.target, topic, 2) == sent


def test_a_group_with_members_at_the_target_is_left_alone(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 1)
    mirror.target.create_topic(topic, 1)
    mirror.produce(topic, 0, messages(20))
    group = f"{mirror.name}-shop"
    commit(mirror.source, group, {(topic, 0): 10})
    member = Consumer({"bootstrap.servers": mirror.target.bootstrap_servers, "group.id": group})
    member.subscribe([topic])
    try:
        wait_for(lambda: member.poll(0.1) is not None or bool(member.assignment()))
        finished = mirror.run("--until-end", "--groups", group)
    finally:
        member.close()
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert f"group {group}: has members at the target, so its positions there are its own now" in finished.stdout


def test_a_prefix_lets_one_cluster_hold_both(mirror: Mirror, kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = f"{mirror.name}.t"
    kafka.create_topic(topic, 2)
    mirror.produce(topic, 1, messages(50))
    both = Mirror(kafka, kafka, tmp_path)
    both.name = mirror.name
    refused = both.run("--until-end")
    assert refused.returncode == ExitCode.USAGE
    assert "are the same cluster" in refused.stderr
    assert "give --to-prefix" in refused.stderr
    refused = both.run("--until-end", "--to-prefix", "copy.", topics=rf".*{mirror.name}\.t")
    assert refused.returncode == ExitCode.USAGE
    assert f"topic copy.{topic}, the mirror of {topic}, would be mirrored again" in refused.stderr
    finished = both.run("--until-end", "--to-prefix", "copy.")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert values(kafka, f"copy.{topic}", 1) == values(kafka, topic, 1)


@pytest.mark.parametrize(
    ("partitions", "config", "said"),
    [
        (1, {}, "has 2 partitions, and {topic} in the target has 1: partitions are kept, so give it 2"),
        (2, {"message_timestamp_type": "LogAppendTime"}, "message.timestamp.type=LogAppendTime"),
    ],
)
def test_a_target_that_cannot_keep_everything_is_refused(
    mirror: Mirror, partitions: int, config: dict[str, str], said: str
) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 2)
    mirror.target.create_topic(topic, partitions, **config)
    refused = mirror.run("--until-end")
    assert refused.returncode == ExitCode.USAGE
    assert said.format(topic=topic) in refused.stderr


def test_messages_that_are_too_large_for_the_target_are_kept_as_dead_letters(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 1)
    mirror.target.create_topic(topic, 1, max_message_bytes="20000")
    small = messages(200)
    large = Stored(b"k", os.urandom(30_000), [], small[-1].timestamp_ms)
    mirror.produce(topic, 0, [*small[:100], large, *small[100:]])
    finished = mirror.run("--until-end")
    assert finished.returncode == ExitCode.FAILED
    assert "1 messages are not in the target, but among the dead letters" in finished.stderr
    assert values(mirror.target, topic, 0) == small


def test_no_topic_and_wrong_patterns_are_refused(mirror: Mirror) -> None:
    for topics, said in (
        ("nowhere", "no topic of the source is meant by --topics nowhere"),
        ("(", "is neither a name nor a regular expression"),
        ("__consumer_offsets", "Kafka's own topics are not mirrored"),
    ):
        refused = mirror.run("--until-end", topics=topics)
        assert refused.returncode == ExitCode.USAGE
        assert said in refused.stderr
    refused = mirror.run("--until-end", "--to-option", "linger.mss=5")
    assert refused.returncode == ExitCode.USAGE
    assert "did you mean 'linger.ms'" in refused.stderr


def test_so_many_messages_and_no_more(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 1)
    sent = messages(500)
    mirror.produce(topic, 0, sent)
    for end in (120, 240):
        finished = mirror.run("--max-messages", "120")
        assert finished.returncode == ExitCode.DONE, finished.stderr
        assert values(mirror.target, topic, 0) == sent[:end]


def test_order_is_kept_while_the_producer_has_no_room(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 2)
    sent = {partition: messages(10_000, 20_000 * partition) for partition in range(2)}
    for partition, each in sent.items():
        mirror.produce(topic, partition, each)
    finished = mirror.run("--until-end", "--to-option", "queue.buffering.max.kbytes=8")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    for partition, each in sent.items():
        assert values(mirror.target, topic, partition) == each


def test_a_target_that_is_away_is_waited_for(mirror: Mirror) -> None:
    topic = f"{mirror.name}.t"
    mirror.source.create_topic(topic, 1)
    sent = messages(3000)
    mirror.produce(topic, 0, sent[:1000])
    process = mirror.start()
    try:
        wait_for(lambda: end_of(mirror.target, topic, 0) == 1000)
        mirror.target.stop()
        mirror.produce(topic, 0, sent[1000:2000])
        # Rows are in hand that the target, which is away, does not take.
        wait_for(lambda: any(age_s > 0.5 for age_s in mirror.snapshot(process.pid).oldest_incomplete_s.values()))
        mirror.target.start()
        mirror.produce(topic, 0, sent[2000:])
        wait_for(lambda: end_of(mirror.target, topic, 0) == 3000)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == ExitCode.DONE, err
    assert values(mirror.target, topic, 0) == sent
