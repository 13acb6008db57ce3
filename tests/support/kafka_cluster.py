"""Three Kafka brokers that replicate (KRaft, each a controller too), for tests that kill one of them."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import TracebackType

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.kafka_broker import BrokerError, KafkaBroker, wait_for_leaders

SIZE = 3
HEAP = "256m"
OFFSETS = "__consumer_offsets"
#: A broker that is dead is noticed after three seconds instead of nine.
SETTINGS = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1500",
    # One that is back leads again what it is the first replica of.
    "leader.imbalance.check.interval.seconds": "1",
    "leader.imbalance.per.broker.percentage": "0",
    "offsets.topic.replication.factor": "3",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # A member with a rack reads from the replica there; the others from leaders.
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
}


class KafkaCluster:
    """Brokers 1, 2 and 3. Topics have three replicas, of which two must have a record before it counts as written."""

    def __init__(self, folder: Path) -> None:
        self.brokers: dict[int, KafkaBroker] = {}
        self._numbers = itertools.count()  #: of groups
        for node in range(1, SIZE + 1):
            self.brokers[node] = KafkaBroker(folder / f"broker-{node}", heap=HEAP, settings=dict(SETTINGS))
        voters = ",".join(f"{node}@127.0.0.1:{broker.controller_port}" for node, broker in self.brokers.items())
        for node, broker in self.brokers.items():
            own = {"node.id": str(node), "controller.quorum.voters": voters, "broker.rack": f"rack-{node}"}
            broker.settings.update(own)
        self.bootstrap_servers = ",".join(broker.bootstrap_servers for broker in self.brokers.values())

    def __enter__(self) -> KafkaCluster:
        try:
            for broker in self.brokers.values():
                broker.launch()
            for broker in self.brokers.values():
                broker.wait_ready()
        except BaseException:
            self.close()
            raise
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for broker in self.brokers.values():
            broker.close()

    def create_topic(self, name: str, partitions: int, leader: int) -> str:
        """A topic all of whose partitions are led by broker ``leader`` while that one lives."""
        replicas = [leader, *(node for node in self.brokers if node != leader)]
        topic = NewTopic(name, partitions, replica_assignment=[replicas] * partitions)
        self._admin.create_topics([topic])[name].result(30)
        wait_for_leaders(self._admin, name, partitions)
        return name

    def leader(self, topic: str) -> int:
        """The broker that leads partition 0."""
        return int(self._admin.list_topics(topic, timeout=10).topics[topic].partitions[0].leader)

    def group_coordinated_by(self, node: int) -> str:
        """The name of a new group that broker ``node`` coordinates: it leads the partition that keeps its positions."""
        self._have_positions_kept()
        leaders = [
            p.leader for _, p in sorted(self._admin.list_topics(OFFSETS, timeout=10).topics[OFFSETS].partitions.items())
        ]
        if node not in leaders:
            raise BrokerError(f"broker {node} keeps no positions; the leaders are {leaders}")
        names = (f"group-{node}-{number}" for number in self._numbers)
        return next(name for name in names if leaders[_java_hash(name) % len(leaders)] == node)

    def _have_positions_kept(self) -> None:
        """The topic of positions is made when a group is first asked for; until it is, asking may fail."""
        asking = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "none"})
        deadline = time.monotonic() + 60
        while True:
            try:
                asking.committed([TopicPartition(OFFSETS, 0)], timeout=30)
                break
            except KafkaException:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
        asking.close()

    def wait_until_in_sync(self, seconds: float = 60) -> None:
        """Return once every partition has all its replicas and its first leader, so that any one broker may go."""
        deadline = time.monotonic() + seconds
        while not self._all_in_sync():
            if time.monotonic() >= deadline:
                raise BrokerError(f"some partitions lack replicas, or their first leader, after {seconds:.0f} s")
            time.sleep(0.05)

    def _all_in_sync(self) -> bool:
        topics = self._admin.list_topics(timeout=10).topics.values()
        return all(
            len(partition.isrs) == SIZE and partition.leader == partition.replicas[0]
            for topic in topics
            for partition in topic.partitions.values()
        )


def _java_hash(text: str) -> int:
    """``String.hashCode`` without its sign, by which Kafka spreads groups."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF
