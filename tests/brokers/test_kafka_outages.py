"""Runtimes whose brokers and connections go away under load: nothing is lost, and duplicates are counted.

Everything here is at least once. Where a member stays a member, that comes to exactly once; where it is lost, rows that
it handled and could not commit any more come again, no more than it can have had in hand.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_run import PARTITIONS, Runtime, Sink, Start, committed, ends, produce, runtimes
from tests.support.tcp_proxy import TcpProxy

#: A member that is not heard of for three seconds, or does not poll for so long, is no member any more.
IMPATIENT = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 300, "max.poll.interval.ms": 3000}
#: A member that outlasts the time for which a busy machine may take to elect leaders.
PATIENT = {"session.timeout.ms": 30_000, "heartbeat.interval.ms": 500}
#: Rows that a runtime of two processes with batches of 512 may have in hand: its slots, and one being filled a lane.
HELD_ROWS = (2 * (3 + 1) + PARTITIONS) * 512
#: Batches that take twice as long as the intake has patience: the source is paused half of the time.
PAUSED = {"seconds": 2, "rows": 20, "workers": 1, "options": IMPATIENT}


class Load:
    """Produces ids from 0 on, at a pace, until the block ends; ``sent`` are durable then."""

    def __init__(self, servers: str, topic: str, rows_per_second: int = 2000) -> None:
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, "enable.idempotence": True})
        self._topic = topic
        self._pause_s = 100 / rows_per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(60) == 0

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            for i in range(self.sent, self.sent + 100):
                self._producer.produce(self._topic, b'{"id":%d}' % i, partition=i % PARTITIONS)
            self.sent += 100
            self._producer.poll(0)


def read_more(written: Sink, rows: int, watched: list[Runtime]) -> None:
    """Read on until so many more rows have come."""
    target = len(written.messages) + rows
    written.read(lambda: len(written.messages) >= target, watched)


def assert_committed_to_the_end(servers: str, group: str, source: str) -> None:
    assert committed(servers, group, source) == ends(servers, source)


def wait_until_committed_to_the_end(servers: str, group: str, source: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and committed(servers, group, source) != ends(servers, source):
        time.sleep(0.5)


def test_connections_cut_under_load_cost_nothing(
    kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    runtime = start(servers=proxy.address)
    runtime.wait_for("assigned")
    with Sink(servers, sink) as written:
        with Load(servers, source) as load:
            for _ in range(6):
                read_more(written, 1000, [runtime])
                assert proxy.cut() > 0
            read_more(written, 1000, [runtime])
        ids = written.read_ids(load.sent, [runtime])
    runtime.stop()
    assert sorted(ids) == list(range(load.sent))
    assert "lost" not in runtime.log
    assert_committed_to_the_end(servers, f"group-of-{source}", source)


class CommittedWatch:
    """Notes a group's committed positions until the block ends, and that none of them ever goes back."""

    def __init__(self, servers: str, group: str, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
        self._partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen: list[list[int]] = []

    def __enter__(self) -> CommittedWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        for before, after in pairwise(self.seen):
            assert all(b <= a for b, a in zip(before, after, strict=True)), f"{before} was followed by {after}"

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.seen.append([p.offset for p in self._consumer.committed(self._partitions, timeout=30)])


def test_a_member_frozen_for_longer_than_its_session_is_lost_and_comes_back(
    kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    group = f"group-of-{source}"
    first = start(servers=proxy.address, sink_servers=servers, options=IMPATIENT)
    first.wait_for(f"assigned {source}[0, 1, 2, 3]")
    with Sink(servers, sink) as written, CommittedWatch(servers, group, source) as watch:
        with Load(servers, source, 1000) as load:
            read_more(written, 2000, [first])
            proxy.freeze()
            second = start(options=IMPATIENT)
            second.wait_for(f"assigned {source}[0, 1, 2, 3]")
            read_more(written, 1000, [first, second])
            proxy.resume()
            first.wait_for("lost")
            first.wait_for("assigned", times=2)
            read_more(written, 2000, [first, second])
        written.read_ids(load.sent, [first, second])
        rows = Counter((row.id, row.runtime) for row in written.rows())
        first.stop()
        second.stop()
    assert len(watch.seen) > 10
    assert set(rows.values()) == {1}  # a runtime may meet what another one handled, but no row twice
    assert len(rows) - load.sent <= HELD_ROWS
    assert_committed_to_the_end(servers, group, source)


def test_a_handler_slower_than_session_and_poll_interval_causes_no_rebalance(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    produce(servers, source, range(60))
    runtime = start(seconds=4, rows=20, workers=1, options=IMPATIENT)
    with Sink(servers, sink) as written:
        ids = written.read_ids(60, [runtime])
    runtime.stop()
    assert sorted(ids) == list(range(60))
    assert runtime.log.count("assigned") == 1
    assert "lost" not in runtime.log
    assert "gave back" not in runtime.log
    assert_committed_to_the_end(servers, f"group-of-{source}", source)


def test_a_static_member_comes_back_within_its_session_without_a_rebalance(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    static = [{"group.instance.id": name, "session.timeout.ms": 30_000} for name in ("one", "two")]
    one = start(options=static[0])
    one.wait_for(f"assigned {source}[0, 1, 2, 3]")
    two = start(options=static[1])
    two.wait_for(f"assigned {source}[")
    one.wait_for("gave back")
    with Sink(servers, sink) as written:
        produce(servers, source, range(2000))
        written.read_ids(2000, [one, two])
        before = rebalances(one)
        two.stop()
        produce(servers, source, range(2000, 4000))
        again = start(options=static[1])
        again.wait_for(f"assigned {source}[")
        ids = written.read_ids(4000, [one, again])
        late = {row.runtime for row in written.rows() if row.id >= 2000}
    assert sorted(ids) == list(range(4000))
    assert late == {one.session_id, again.session_id}
    assert [line.split("assigned")[1] for line in rebalances(again)] == [
        line.split("assigned")[1] for line in rebalances(two) if "assigned" in line
    ]
    assert rebalances(one) == before
    one.stop()
    again.stop()
    assert_committed_to_the_end(servers, f"group-of-{source}", source)


def rebalances(runtime: Runtime) -> list[str]:
    return [
        line for line in runtime.log.splitlines() if any(word in line for word in ("assigned", "gave back", "lost"))
    ]


@pytest.mark.timeout(400)
def test_a_paused_source_goes_on_when_its_broker_comes_back(
    own_kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = own_kafka.bootstrap_servers
    for topic, partitions in zip(topics, (PARTITIONS, 1, 1), strict=True):
        own_kafka.create_topic(topic, partitions)
    produce(servers, source, range(160))
    runtime = start(servers=servers, **PAUSED)
    with Sink(servers, sink) as written:
        written.read(lambda: len(written.messages) >= 20, [runtime])
        own_kafka.kill()
        runtime.wait_for("no broker answers")
        own_kafka.start()
        runtime.wait_for("answers\n")
        produce(servers, source, range(160, 200))
        assert set(written.read_ids(200, [runtime])) == set(range(200))
    runtime.stop()
    assert_committed_to_the_end(servers, f"group-of-{source}", source)


def test_a_paused_source_goes_on_after_it_was_lost(
    kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    produce(servers, source, range(160))
    runtime = start(servers=proxy.address, sink_servers=servers, **PAUSED)
    with Sink(servers, sink) as written:
        written.read(lambda: len(written.messages) >= 20, [runtime])
        proxy.refuse()
        proxy.cut()
        runtime.wait_for("lost")
        proxy.resume()
        runtime.wait_for("assigned", times=2)
        assert set(written.read_ids(160, [runtime])) == set(range(160))
        # All may have been written before it was lost; then they are read and written once more.
        wait_until_committed_to_the_end(servers, f"group-of-{source}", source)
    runtime.stop()
    assert_committed_to_the_end(servers, f"group-of-{source}", source)


def test_a_run_whose_broker_has_stopped_answering_can_be_stopped(
    kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], start: Start
) -> None:
    """Neither the records under way, nor the commit, nor leaving the group has it wait for longer than it was given."""
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    runtime = start(servers=proxy.address, seconds=0.2, rows=20, arguments=["--drain-timeout", "1"])
    runtime.wait_for("assigned")
    with Sink(servers, sink) as written, Load(servers, source):
        read_more(written, 200, [runtime])
        proxy.freeze()
        time.sleep(1)  # until it has records under way that nobody confirms, of batches that it had in hand
        runtime.process.send_signal(signal.SIGTERM)
        assert runtime.process.wait(30) == ExitCode.DEADLINE, runtime.log
    runtime.assert_gone()
    proxy.resume()
    with Sink(servers, sink) as written:
        again = start()
        expected = sum(ends(servers, source))
        assert set(written.read_ids(expected, [again])) == set(range(expected))
    again.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers for the tests of this file that kill one."""
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def lose_a_broker_under_load(
    cluster: KafkaCluster, folder: Path, role: str, lose: Callable[[KafkaBroker], None], **options: Any
) -> None:
    """Each broker has one role for the app that runs; that with ``role`` goes, and is back when all is counted."""
    source_leader, sink_leader, coordinator = cluster.brokers
    victim = {"source leader": source_leader, "sink leader": sink_leader, "coordinator": coordinator}[role]
    name = folder.name  # no two tests have one
    source = cluster.create_topic(f"source-{name}", PARTITIONS, leader=source_leader)
    sink = cluster.create_topic(f"sink-{name}", 1, leader=sink_leader)
    dead = cluster.create_topic(f"dead-{name}", 1, leader=sink_leader)
    group = cluster.group_coordinated_by(coordinator)
    servers = cluster.bootstrap_servers
    with runtimes(folder, servers, (source, sink, dead)) as start, Sink(servers, sink) as written:
        runtime = start(group=group, options=PATIENT, **options)
        with Load(servers, source, 1000) as load:
            read_more(written, 2000, [runtime])
            lose(cluster.brokers[victim])
            read_more(written, 10_000, [runtime])
        ids = written.read_ids(load.sent, [runtime])
        runtime.stop()
        assert_committed_to_the_end(servers, group, source)
    assert sorted(ids) == list(range(load.sent))
    cluster.brokers[victim].start()
    cluster.wait_until_in_sync()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("role", ["source leader", "sink leader", "coordinator"])
def test_a_broker_of_three_is_killed_under_load(cluster: KafkaCluster, tmp_path: Path, role: str) -> None:
    lose_a_broker_under_load(cluster, tmp_path, role, KafkaBroker.kill)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("role", ["sink leader", "coordinator"])
def test_a_broker_of_three_is_stopped_and_nothing_is_seen_twice(
    cluster: KafkaCluster, tmp_path: Path, role: str
) -> None:
    """As in an upgrade, in transactions.

    Not tried with a broker that is alone: while it is stopped, no partition has a leader, and Apache Kafka 4.3 leaves
    the end of a transaction out of partitions without a leader, as if they had been deleted.
    """
    lose_a_broker_under_load(cluster, tmp_path, role, KafkaBroker.stop, handler={"transactional": True})


def brokers_read_from(runtime: Runtime, topic: str) -> set[int]:
    """Of the partitions of a topic, as librdkafka told last."""
    told = [line.partition("kafka: statistics ")[2] for line in runtime.log.splitlines() if "kafka: statistics" in line]
    known = json.loads(told[-1])["topics"].get(topic, {}).get("partitions", {}) if told else {}
    return {each["broker"] for number, each in known.items() if number != "-1"}


def test_a_member_with_a_rack_reads_from_the_replica_there(cluster: KafkaCluster, tmp_path: Path) -> None:
    servers = cluster.bootstrap_servers
    leader, near, _ = cluster.brokers
    source = cluster.create_topic("source-of-racks", PARTITIONS, leader)
    sink, dead = cluster.create_topic("sink-of-racks", 1, leader), cluster.create_topic("dead-of-racks", 1, leader)
    rack = {"client.rack": f"rack-{near}", "statistics.interval.ms": 500}
    with runtimes(tmp_path, servers, (source, sink, dead)) as start, Sink(servers, sink) as written:
        runtime = start(group="racks", options=PATIENT | rack)
        with Load(servers, source, 1000) as load:
            read_more(written, 5000, [runtime])
            near_only = brokers_read_from(runtime, source) == {near}
        ids = written.read_ids(load.sent, [runtime])
        runtime.stop()
    assert near_only
    assert sorted(ids) == list(range(load.sent))


def test_a_slow_partition_does_not_stop_the_others(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    """Partition 0 handles 40 rows a second and gets 500; the other three have a process each and keep up."""
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    runtime = start(seconds=0.5, slow=0, rows=20, workers=PARTITIONS)
    runtime.wait_for("assigned")
    with Sink(servers, sink) as written:
        with Load(servers, source) as load:
            read_more(written, 8000, [runtime])
        fast = {i for i in range(load.sent) if i % PARTITIONS != 0}
        ids: set[int] = set()

        def done() -> bool:
            ids.update(row.id for row in written.rows())
            return fast <= ids

        written.read(done, [runtime], 30)
        slow = ids - fast
    assert len(slow) < load.sent / PARTITIONS / 2  # else nothing was slow
    runtime.kill()
