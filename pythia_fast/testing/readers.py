"""For tests of a Reader: a listener that remembers, and the intake thread's loop in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pythia_fast._ext import collecting_sink
from pythia_fast._ext.collecting_sink import CollectingSink
from pythia_fast.brokers.base import Partition, Reader, ReaderContext


class RememberingListener:
    """Keeps the partition table that a reader announced."""

    def __init__(self) -> None:
        self.table: dict[int, Partition] = {}
        self.revocations: list[tuple[list[Partition], bool]] = []

    def assigned(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            if partition.index in self.table:
                raise ValueError(f"partition index {partition.index} was announced twice")
            self.table[partition.index] = partition

    def settle(self, partitions: Sequence[Partition]) -> None:
        pass  # nothing is in flight

    def revoked(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        self.revocations.append((list(partitions), lost))


def reader_context(state_dir: Path, **changes: Any) -> ReaderContext:
    values: dict[str, Any] = {
        "app": "app",
        "handler": "handler",
        "state_dir": state_dir,
        "until": "end",
        "batch_size": 4096,
        "batch_timeout": 0.005,
        "max_payload_bytes": 1 << 20,
        "listener": RememberingListener(),
        "log": lambda line: None,
    }
    return ReaderContext(**(values | changes))


def drain(reader: Reader, sink: CollectingSink, max_messages: int = 1 << 20, timeout_us: int = 0) -> int:
    """Poll until the source has no more for now; returns why it stopped: IDLE, STALLED, END or FAILED."""
    while True:
        result = collecting_sink.poll(reader.native, sink, max_messages, timeout_us)
        if result == collecting_sink.CALL:
            reader.serve()
        elif result != collecting_sink.MORE:
            return result


def collect(reader: Reader, count: int, sink: CollectingSink | None = None) -> CollectingSink:
    """Poll until ``count`` messages have come; the test's own timeout ends a source that never brings them."""
    sink = sink or CollectingSink()
    while sink.count < count:
        result = collecting_sink.poll(reader.native, sink, timeout_us=1_000_000)
        if result == collecting_sink.CALL:
            reader.serve()
        elif result not in (collecting_sink.MORE, collecting_sink.IDLE):
            raise ValueError(
                f"the source stopped with {result} after {sink.count} of {count} messages: {reader.failure()}"
            )
    return sink
