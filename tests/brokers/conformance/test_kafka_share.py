"""The suite over a share group of Kafka: one lane, shared row by row, in no order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.brokers.conformance.rig import LANES, KeptRig, Message, Rig, ServerRig
from tests.brokers.conformance.suite import Handles, KeepsPositions, Networked, SharesWork
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import ends
from tests.support.kafka_share_run import configure, new_group
from tests.support.runtime_process import RuntimeProcess
from tests.support.share_offsets import share_lag
from tests.support.tcp_proxy import TcpProxy

LOCK_MS = 6000  #: shorter than a proxy is frozen for


class KafkaShareRig(ServerRig):
    def __init__(self, folder: Path, broker: KafkaBroker, topic: str, partitions: int, proxy: TcpProxy) -> None:
        super().__init__(folder, proxy)
        self._partitions = partitions
        self._broker = broker
        self._topic = topic
        self._group = f"{new_group()}-{topic}"
        configure(broker.bootstrap_servers, self._group, record_lock_duration_ms=str(LOCK_MS))

    def produce(self, messages: Sequence[Message]) -> None:
        """A producer's batch is given to one member whole, so they are small."""
        options = {"bootstrap.servers": self._broker.bootstrap_servers, "linger.ms": 5, "batch.num.messages": 50}
        producer = Producer(options)
        for number, message in enumerate(messages):
            producer.produce(
                self._topic, message.payload, message.key, partition=number % self._partitions, headers=message.headers
            )
            if number % 1000 == 999:
                producer.flush(60)
        assert producer.flush(60) == 0

    def source(self) -> dict[str, Any]:
        options = {
            "bootstrap_servers": self.proxy.address,
            "consumer_group": self._group,
            "max_poll_records": 100,
        }
        return {"source": ["KafkaShareConsumer", [self._topic], options]}

    def start(self, *arguments: str, state: str = "state", **settings: Any) -> RuntimeProcess:
        handler = {"ordering": "unordered", **settings.pop("handler", {})}
        return super().start(*arguments, state=state, handler=handler, **settings)

    def remaining(self) -> int:
        lag = share_lag(self._broker.port, self._group)
        there = ends(self._broker.bootstrap_servers, self._topic, self._partitions)
        return sum(lag.get((self._topic, partition), end) for partition, end in enumerate(there))


@pytest.fixture
def rig(tmp_path: Path, kafka: KafkaBroker, proxy: TcpProxy, new_topic: Callable[..., str]) -> Iterator[ServerRig]:
    made = KafkaShareRig(tmp_path, kafka, new_topic(LANES), LANES, proxy)
    yield made
    made.close()


@pytest.fixture
def narrow(tmp_path: Path, kafka: KafkaBroker, proxy: TcpProxy, new_topic: Callable[..., str]) -> Iterator[ServerRig]:
    """Over a topic of one partition."""
    made = KafkaShareRig(tmp_path, kafka, new_topic(1), 1, proxy)
    yield made
    made.close()


class TestKafkaShare(Handles, KeepsPositions, SharesWork, Networked):
    READS = "has given this runtime partitions"

    @pytest.mark.parametrize("ordering", ["partition", "key"])
    def test_order_is_kept_as_asked_for(self, rig: Rig, ordering: str) -> None:
        """It cannot be, and that is said before anything is read."""
        runtime = rig.start("--until-end", handler={"ordering": ordering})
        assert runtime.process.wait(60) != 0
        assert f'ordering="{ordering}" cannot be kept: a share group gives the rows of a partition' in runtime.log

    def test_two_runtimes_share_one_partition(self, narrow: KeptRig) -> None:
        self.test_two_runtimes_share_the_rows(narrow)

    def test_the_rows_of_one_partition_outlive_the_runtime_that_had_them(self, narrow: KeptRig) -> None:
        self.test_the_rows_of_a_runtime_that_was_killed_are_handled_by_the_others(narrow)
