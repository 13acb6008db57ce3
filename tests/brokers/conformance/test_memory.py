"""The suite over messages in memory, which are gone with the process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.conformance.rig import LANES, Message, Rig
from tests.brokers.conformance.suite import Handles


class MemoryRig(Rig):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "messages"
        self._path.touch()

    def produce(self, messages: Sequence[Message]) -> None:
        with self._path.open("a") as file:
            for number, message in enumerate(messages):
                line = {
                    "payload": message.payload.decode(),
                    "key": message.key,
                    "headers": message.headers,
                    "partition": number % LANES,
                }
                file.write(json.dumps(line) + "\n")

    def source(self) -> dict[str, Any]:
        return {"messages": str(self._path)}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = MemoryRig(tmp_path)
    yield made
    made.close()


class TestMemory(Handles):
    pass
