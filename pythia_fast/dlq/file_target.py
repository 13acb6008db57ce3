"""Messages into a file: their payloads, by the sink that runs write files with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pythia_fast.brokers.file_sink import FileProducer, FilePublisher
from pythia_fast.brokers.framing import frame_record
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.sink_target import SinkTarget
from pythia_fast.private import PRIVATE_MODE


class FileTarget(SinkTarget):
    """Appends to a file; keys and headers have no place there."""

    def __init__(self, path: Path, form: Literal["ndjson", "msgpack-frames"]) -> None:
        producer = FileProducer(path, format=form)
        # A disk that takes nothing is told at once: it does not get well by itself.
        super().__init__(
            producer.describe(), lambda: FilePublisher(producer, lambda line: None, PRIVATE_MODE), patience_s=0.0
        )

    def _record(self, message: Message) -> bytes:
        return frame_record(message.payload)
