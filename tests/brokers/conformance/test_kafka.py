"""The suite over a topic of Kafka with a partition for each lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.brokers.conformance.rig import LANES, Message, ServerRig
from tests.brokers.conformance.suite import Handles, KeepsPositions, Networked, SharesWork
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import committed, ends
from tests.support.tcp_proxy import TcpProxy


class KafkaRig(ServerRig):
    def __init__(self, folder: Path, broker: KafkaBroker, topic: str, proxy: TcpProxy) -> None:
        super().__init__(folder, proxy)
        self._broker = broker
        self._topic = topic
        self._group = f"conformance-{topic}"

    def produce(self, messages: Sequence[Message]) -> None:
        producer = Producer({"bootstrap.servers": self._broker.bootstrap_servers, "linger.ms": 5})
        for number, message in enumerate(messages):
            producer.produce(
                self._topic, message.payload, message.key, partition=number % LANES, headers=message.headers
            )
            if number % 1000 == 999:
                producer.flush(60)
        assert producer.flush(60) == 0

    def source(self) -> dict[str, Any]:
        options = {
            "bootstrap_servers": self.proxy.address,
            "consumer_group": self._group,
            "options": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
        }
        return {"source": ["KafkaConsumer", [self._topic], options]}

    def remaining(self) -> int:
        servers = self._broker.bootstrap_servers
        return sum(ends(servers, self._topic, LANES)) - sum(committed(servers, self._group, self._topic, LANES))


@pytest.fixture
def rig(tmp_path: Path, kafka: KafkaBroker, proxy: TcpProxy, new_topic: Callable[..., str]) -> Iterator[ServerRig]:
    made = KafkaRig(tmp_path, kafka, new_topic(LANES), proxy)
    yield made
    made.close()


class TestKafka(Handles, KeepsPositions, SharesWork, Networked):
    READS = "assigned"
