"""The suite over Redis Streams."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.conformance.rig import LANES, Message, ServerRig
from tests.brokers.conformance.suite import Handles, KeepsPositions, Networked, SharesWork
from tests.support.redis_server import RedisServerProcess
from tests.support.tcp_proxy import TcpProxy

_numbers = itertools.count()
GROUP = "conformance"


class RedisRig(ServerRig):
    def __init__(self, folder: Path, server: RedisServerProcess, proxy: TcpProxy) -> None:
        super().__init__(folder, proxy)
        prefix = f"conformance-{next(_numbers)}"
        self._streams = [f"{prefix}-{lane}" for lane in range(LANES)]
        self._client = server.client()
        for stream in self._streams:
            self._client.xgroup_create(stream, GROUP, "0", mkstream=True)

    def produce(self, messages: Sequence[Message]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for number, message in enumerate(messages):
            fields = {"data": message.payload, "key": message.key, "trace": message.trace}
            pipeline.xadd(self._streams[number % LANES], fields)
            if number % 200 == 199:
                pipeline.execute()
        pipeline.execute()

    def source(self) -> dict[str, Any]:
        options = {
            "streams": self._streams,
            "consumer_group": GROUP,
            "url": f"redis://{self.proxy.address}/0",
            "key_field": "key",
            "min_idle": 2,
        }
        return {"source": ["RedisStreamsConsumer", [], options]}

    def remaining(self) -> int:
        left = 0
        for stream in self._streams:
            (group,) = self._client.xinfo_groups(stream)
            left += group["pending"] + group["lag"]
        return left

    def close(self) -> None:
        super().close()
        self._client.delete(*self._streams)
        self._client.close()


@pytest.fixture
def rig(tmp_path: Path, redis: RedisServerProcess) -> Iterator[ServerRig]:
    with TcpProxy(redis.port) as proxy:
        made = RedisRig(tmp_path, redis, proxy)
        yield made
        made.close()


class TestRedis(Handles, KeepsPositions, SharesWork, Networked):
    READS = "reading"
