"""For tests of what a FileProducer writes: its publisher, without a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pythia_fast.brokers.base import Delivery, Publisher, PublisherContext
from pythia_fast.brokers.file import FileProducer
from pythia_fast.brokers.framing import frame_record


def open_sink(path: Path, log: Callable[[str], None] = lambda line: None, **options: Any) -> Publisher:
    return FileProducer(path, **options).open(PublisherContext("app", "handler", path.parent, log))


def framed(*payloads: bytes | None) -> memoryview:
    return memoryview(b"".join(frame_record(payload) for payload in payloads))


def wait_delivered(sink: Publisher, count: int) -> list[Delivery]:
    done: list[Delivery] = []
    while len(done) < count:
        done += sink.deliveries(30)
    return done
