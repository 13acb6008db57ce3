"""The suite over a super stream of RabbitMQ, which one runtime at a time reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pythia_fast.brokers.rabbitmq_stream_connection import StreamConnection
from tests.brokers.conformance.rig import LANES, Message, ServerRig
from tests.brokers.conformance.suite import Handles, KeepsPositions, Networked
from tests.support.rabbitmq_server import RabbitMqServer
from tests.support.rabbitmq_stream import SuperStream, login, message, text, url_of
from tests.support.tcp_proxy import TcpProxy

GROUP = "conformance"


class StreamRig(ServerRig):
    """The key is an application property."""

    def __init__(self, folder: Path, server: RabbitMqServer, proxy: TcpProxy) -> None:
        super().__init__(folder, proxy)
        self._server = server
        self._super_stream = SuperStream(server, LANES)

    def produce(self, messages: Sequence[Message]) -> None:
        for lane in range(LANES):
            writer = self._super_stream.writer(lane)
            writer.publish(
                message(each.payload, {"key": text(each.key), "trace": text(each.trace)})
                for each in messages[lane::LANES]
            )
            writer.close()

    def source(self) -> dict[str, Any]:
        options = {
            "super_stream": self._super_stream.name,
            "consumer_group": GROUP,
            "url": url_of(self._server, self.proxy.port),
            "key_property": "key",
            "heartbeat": 2,
        }
        return {"source": ["RabbitMQStreamConsumer", [], options]}

    def remaining(self) -> int:
        """Messages above the stored offsets; those that the server's own records take are none, and come last."""
        connection = StreamConnection(login(self._server).address, "asking")
        try:
            chunks = connection.last_chunks(self._super_stream.partitions)
        finally:
            connection.close()
        left = 0
        for stored, chunk in zip(self._super_stream.stored(GROUP), chunks, strict=True):
            left += 0 if chunk is None else chunk.last - (-1 if stored is None else stored)
        return left

    def close(self) -> None:
        super().close()
        self._super_stream.close()


@pytest.fixture
def rig(tmp_path: Path, rabbitmq: RabbitMqServer) -> Iterator[ServerRig]:
    with TcpProxy(rabbitmq.stream_port) as proxy:
        made = StreamRig(tmp_path, rabbitmq, proxy)
        yield made
        made.close()


class TestRabbitMqStream(Handles, KeepsPositions, Networked):
    pass
