"""The suite over a queue of RabbitMQ: one lane, shared message by message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.brokers.conformance.rig import Message, ServerRig
from tests.brokers.conformance.suite import Handles, KeepsPositions, Networked, SharesWork
from tests.support.rabbitmq_run import Queue
from tests.support.rabbitmq_server import RabbitMqServer
from tests.support.tcp_proxy import TcpProxy


class RabbitMqRig(ServerRig):
    """The routing key is the key: messages come through an exchange that gives all of them to the queue."""

    def __init__(self, folder: Path, server: RabbitMqServer, proxy: TcpProxy) -> None:
        super().__init__(folder, proxy)
        self._server = server
        self._queue = Queue(server)
        self._exchange = f"to-{self._queue.name}"
        self._queue.channel.exchange_declare(self._exchange, "fanout")
        self._queue.channel.queue_bind(self._queue.name, self._exchange)

    def produce(self, messages: Sequence[Message]) -> None:
        for message in messages:
            properties = pika.BasicProperties(headers=message.headers, delivery_mode=2)
            self._queue.channel.basic_publish(self._exchange, message.key, message.payload, properties)

    def source(self) -> dict[str, Any]:
        options = {"url": self._server.url_for("pythia", port=self.proxy.port), "heartbeat": 2}
        return {"source": ["RabbitMQConsumer", [self._queue.name], options]}

    def remaining(self) -> int:
        return self._server.messages(self._queue.name)

    def close(self) -> None:
        super().close()
        self._queue.channel.queue_delete(self._queue.name)
        self._queue.channel.exchange_delete(self._exchange)
        self._queue.close()


@pytest.fixture
def rig(tmp_path: Path, rabbitmq: RabbitMqServer) -> Iterator[ServerRig]:
    with TcpProxy(rabbitmq.port) as proxy:
        made = RabbitMqRig(tmp_path, rabbitmq, proxy)
        yield made
        made.close()


class TestRabbitMq(Handles, KeepsPositions, SharesWork, Networked):
    READS = "reading"
