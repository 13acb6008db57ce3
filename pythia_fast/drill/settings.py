"""What a drill tells the process that runs the app, and what that process tells back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from pythia_fast.private import private_opener
from pythia_fast.report import RunReport

#: Names the file of settings, for the process itself and for every interpreter that its pool is made from.
ENVIRONMENT = "PYTHIA_FAST_DRILL"

#: Consumer group under which a run on files keeps its position.
FILE_GROUP = "drill"

InputFormat = Literal["ndjson", "msgpack-frames"]


class FileEnds(msgspec.Struct, frozen=True, tag=True):
    """Rows come from a file of the drill's and go to another."""

    input: str
    format: InputFormat
    output: str


class KafkaEnds(msgspec.Struct, frozen=True, tag=True):
    """Rows come from a topic of the drill's and go to another."""

    servers: str  #: bootstrap.servers; credentials are the app's, which the process asks for them itself
    topic: str
    group: str
    results: str
    brokers: list[str]  #: host:port of each, as they call themselves


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the app under a fault."""

    target: str  #: MODULE:APP
    handler: str
    fault: str  #: one of FAULTS; empty: none
    folder: str  #: where the drill keeps its notes, shared by all runs of a drill
    state_dir: str
    dead_letters: str
    ends: FileEnds | KafkaEnds
    workers: int | Literal["auto"] = "auto"
    batch_size: int
    batch_deadline: float | None = None  #: where the handler has none
    rate_limit: float | None = None
    drain_timeout: float = 30.0
    slow_bytes_per_s: float = 64_000.0
    act_at: list[int] = []  #: rows settled, at each of which what the runtime stands on fails
    last_for_good: bool = False  #: the last of these lasts until the process ends


class Sampled(msgspec.Struct, frozen=True, tag=True):
    """The state of the run, every SAMPLE_EVERY_S."""

    t: float  #: time.monotonic(), which all processes share
    rows: int
    batches_in_flight: int
    dead_lettered: int
    crashes: int
    trouble: list[str] = []


class Told(msgspec.Struct, frozen=True, tag=True):
    """An event of the run."""

    t: float
    text: str


class Acted(msgspec.Struct, frozen=True, tag=True):
    """What the runtime stands on failed, or came back."""

    t: float
    restored: bool
    connections: int = 0  #: that were hit


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The run is over."""

    report: RunReport


Word = Sampled | Told | Acted | Finished

SAMPLE_EVERY_S = 0.02


def write_settings(settings: Settings, path: Path) -> None:
    """Keep them in a file for the process that is about to start."""
    with open(path, "wb", opener=private_opener) as file:
        file.write(msgspec.json.encode(settings))


def read_settings() -> Settings:
    """Those of this process."""
    return msgspec.json.decode(Path(os.environ[ENVIRONMENT]).read_bytes(), type=Settings)
