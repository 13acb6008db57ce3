"""Runtimes whose brokers and connections go away under load: nothing is lost, and duplicates are counted.

Everything here is at least once. Where a member stays a member, that comes to exactly once; where it is lost, rows that
it handled and could not commit any more come again, no more than it can have had in hand.
"""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import Producer

from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import PARTITIONS, Runtime, Sink, Start, committed, ends
from tests.support.tcp_proxy import TcpProxy

#: A member that is not heard of for three seconds, or does not poll for so long, is no member any more.
IMPATIENT = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 300, "max.poll.interval.ms": 3000}


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


@pytest.mark.timeout(200)
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
