"""Servers that the broker tests run against; a server that cannot be had is a failure, never a skip."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import PARTITIONS, Start, runtimes
from tests.support.rabbitmq_run import Queue
from tests.support.rabbitmq_server import RabbitMqServer
from tests.support.redis_server import RedisServerProcess
from tests.support.tcp_proxy import TcpProxy

# No example fails because the machine was slow.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that hold an object's address: each process of a run would have another, and none would begin."""
    unsteady = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unsteady:
        raise pytest.UsageError(f"the parameters of these tests need a __repr__ or ids=: {', '.join(unsteady)}")


def pytest_collection_finish() -> None:
    """What was collected stays: a collection of garbage, in a test or in a fork of it, need not look at all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def session_proxy() -> Iterator[TcpProxy]:
    """What stands before the broker of all tests, for those who come by its port."""
    with TcpProxy() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, session_proxy: TcpProxy) -> Iterator[KafkaBroker]:
    """Apache Kafka, started once for all tests."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), advertised_port=session_proxy.port)
    session_proxy.target_port = broker.proxied_port
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def proxy(kafka: KafkaBroker, session_proxy: TcpProxy) -> Iterator[TcpProxy]:
    """The proxy before ``kafka``, for one test to play with."""
    yield session_proxy
    session_proxy.resume()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of the test's own, to be stopped and started by it."""
    broker = KafkaBroker(tmp_path / "kafka")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServerProcess]:
    """A Redis server, started once for all tests; they use keys of their own."""
    with RedisServerProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMqServer]:
    """RabbitMQ with its stream plugin, started once for all tests."""
    server = RabbitMqServer(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def queue(rabbitmq: RabbitMqServer) -> Iterator[Queue]:
    """A classic queue that no other test uses."""
    made = Queue(rabbitmq)
    yield made
    made.close()


_numbers = itertools.count()


@pytest.fixture
def new_topic(kafka: KafkaBroker, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Create a topic that no other test uses."""

    def create(partitions: int = 1, **config: str) -> str:
        return kafka.create_topic(f"topic-{next(_numbers)}", partitions, **config)

    return create


@pytest.fixture
def topics(new_topic: Callable[..., str]) -> tuple[str, str, str]:
    """(source of four partitions, sink, dead letters)."""
    return new_topic(PARTITIONS), new_topic(), new_topic()


@pytest.fixture
def start(kafka: KafkaBroker, tmp_path: Path, topics: tuple[str, str, str]) -> Iterator[Start]:
    """Start a runtime; every one is ended after the test."""
    with runtimes(tmp_path, kafka.bootstrap_servers, topics) as start_runtime:
        yield start_runtime
