"""The suite over files: positions, no sharing, no keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.conformance.rig import LANES, KeptRig, Message
from tests.brokers.conformance.suite import Handles, KeepsPositions


class FileRig(KeptRig):
    has_keys = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._paths = [folder / f"lane-{lane}.ndjson" for lane in range(LANES)]
        for path in self._paths:
            path.touch()

    def produce(self, messages: Sequence[Message]) -> None:
        for lane, path in enumerate(self._paths):
            with path.open("ab") as file:
                for message in messages[lane::LANES]:
                    file.write(message.payload + b"\n")

    def source(self) -> dict[str, Any]:
        return {"source": ["FileConsumer", [[str(path) for path in self._paths]], {"consumer_group": "conformance"}]}

    def remaining(self) -> int:
        stored = self.folder / "state" / "checkpoints" / "conformance.json"
        entries = json.loads(stored.read_text())["files"] if stored.exists() else []
        position = {entry["path"]: entry["position"] for entry in entries}
        return sum(path.read_bytes()[position.get(str(path), 0) :].count(b"\n") for path in self._paths)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[KeptRig]:
    made = FileRig(tmp_path)
    yield made
    made.close()


class TestFile(Handles, KeepsPositions):
    pass
