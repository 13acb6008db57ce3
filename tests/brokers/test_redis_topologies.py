"""RedisStreamsConsumer and RedisStreamsProducer by Sentinel, and in a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pythia_fast._ext.collecting_sink import FAILED
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.framing import frame_record
from pythia_fast.brokers.redis import RedisStreamsConsumer, RedisStreamsProducer
from tests.support.kafka_broker import free_ports
from tests.support.redis_reading import Reading
from tests.support.redis_server import RedisServerProcess


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServerProcess]:
    """A cluster of one node that has all slots."""
    (bus_port,) = free_ports(1)  # Redis's own choice, 10,000 above the port, may be the near end of a connection
    settings = {"cluster-enabled": "yes", "cluster-port": str(bus_port)}
    with RedisServerProcess(tmp_path_factory.mktemp("cluster"), settings) as server, server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 60
        while client.cluster("INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server


def publish(producer: RedisStreamsProducer, folder: Path, count: int) -> None:
    publisher = producer.open(PublisherContext("app", "handler", folder, print))
    publisher.publish(memoryview(b"".join(frame_record(b"%d" % i) for i in range(count))), count, 1)
    deadline = time.monotonic() + 60
    while not publisher.deliveries(0.1):
        assert time.monotonic() < deadline, publisher.trouble()
    publisher.close(5)


def read(tmp_path: Path, count: int, **options: Any) -> None:
    reading = Reading(RedisStreamsConsumer(**options), tmp_path)
    try:
        reading.poll_until(lambda: len(reading.messages) == count)
        reading.commit()
    finally:
        reading.reader.close()


def test_streams_of_one_slot_in_a_cluster(cluster: RedisServerProcess, tmp_path: Path) -> None:
    where: dict[str, Any] = {"host": "127.0.0.1", "port": cluster.port, "cluster": True}
    for stream in ("{a}one", "{a}two"):
        publish(RedisStreamsProducer(stream, **where), tmp_path, 100)
    read(tmp_path, 200, streams=["{a}one", "{a}two"], **where)
    with cluster.client() as client:
        assert client.xpending("{a}one", "app-handler")["pending"] == 0


def test_streams_of_several_slots_are_refused(cluster: RedisServerProcess, tmp_path: Path) -> None:
    consumer = RedisStreamsConsumer(streams=["one", "two"], host="127.0.0.1", port=cluster.port, cluster=True)
    reading = Reading(consumer, tmp_path)
    try:
        reading.poll_to(FAILED)
        assert "the streams one, two are in 2 slots of the Redis cluster" in reading.reader.failure()
    finally:
        reading.reader.close()


def test_a_failover_by_sentinel_is_followed(tmp_path: Path) -> None:
    """The master dies; Sentinel makes its replica the master; reading goes on there."""
    with RedisServerProcess(tmp_path / "one") as first, RedisServerProcess(tmp_path / "two") as second:
        with second.client() as client:
            client.replicaof("127.0.0.1", str(first.port))
            deadline = time.monotonic() + 60
            while client.info("replication").get("master_link_status") != "up":
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with RedisServerProcess(tmp_path / "sentinel", is_sentinel=True) as sentinel, sentinel.client() as watcher:
            watcher.execute_command("SENTINEL", "MONITOR", "main", "127.0.0.1", first.port, 1)
            for name, value in {"down-after-milliseconds": 500, "failover-timeout": 3000}.items():
                watcher.execute_command("SENTINEL", "SET", "main", name, value)
            by_sentinel: dict[str, Any] = {"sentinels": [("127.0.0.1", sentinel.port)], "service_name": "main"}
            publish(RedisStreamsProducer("s", **by_sentinel), tmp_path, 100)
            reading = Reading(RedisStreamsConsumer("s", timeout=1, **by_sentinel), tmp_path)
            try:
                reading.poll_until(lambda: len(reading.messages) == 100)
                reading.commit()
                deadline = time.monotonic() + 60
                while not watcher.execute_command("SENTINEL", "REPLICAS", "main"):  # found by INFO, every 10 s
                    assert time.monotonic() < deadline
                    reading.poll()
                first.kill()
                publish(RedisStreamsProducer("s", timeout=1, **by_sentinel), tmp_path, 50)
                reading.poll_until(lambda: len(reading.messages) >= 150)
                assert reading.payloads[-50:] == [b"%d" % i for i in range(50)]
                reading.commit()
                with second.client() as client:
                    assert client.xpending("s", "app-handler")["pending"] == 0
            finally:
                reading.reader.close()
