"""Letters of a topic that were dealt with out of order: kept here, for a topic cannot lose a record in its middle.

``<state dir>/dlq/<group>@<topic>.json`` is replaced as a whole; ``.lock`` beside it is held while letters are dealt
with, so that no two commands send the same ones.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import quote

import msgspec

from pythia_fast.dlq.claims import FOLDER, one_command
from pythia_fast.dlq.ranges import Ranges
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.private import PRIVATE_MODE
from pythia_fast.unreadable import UNREADABLE


class _Stored(msgspec.Struct):
    version: int
    topic: str
    topic_id: str  #: of the broker; offsets of a topic made anew under the name are others
    group: str
    partitions: dict[str, list[tuple[int, int]]]


class Handled:
    """Offsets per partition, of one topic and group."""

    def __init__(self, state_dir: Path, group: str, topic: str) -> None:
        self._state_dir = state_dir
        self._name = f"{group}@{topic}"
        self.path = state_dir / FOLDER / f"{quote(group, safe='')}@{quote(topic, safe='')}.json"
        self._group = group
        self._topic = topic

    def load(self, topic_id: str) -> dict[int, Ranges]:
        """What is recorded for this very topic. Raises SourceError."""
        try:
            stored = msgspec.json.decode(self.path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return {}
        except (OSError, *UNREADABLE) as error:
            raise SourceError(
                f"the record of letters dealt with, {self.path}, cannot be read ({error}); remove it to see them again"
            ) from None
        if stored.version != 1:
            raise SourceError(f"{self.path} has version {stored.version}, this program knows version 1")
        if stored.topic_id != topic_id:
            return {}
        return {int(partition): Ranges(pairs) for partition, pairs in stored.partitions.items()}

    def save(self, topic_id: str, handled: dict[int, Ranges]) -> None:
        """Replace what is recorded; durable on return. Raises SinkError."""
        partitions = {str(partition): ranges.pairs() for partition, ranges in sorted(handled.items()) if ranges}
        text = msgspec.json.format(
            msgspec.json.encode(_Stored(1, self._topic, topic_id, self._group, partitions)), indent=1
        )
        beside = self.path.with_suffix(".json.new")
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_MODE)
            with open(fd, "wb") as file:
                file.write(text + b"\n")
                file.flush()
                os.fsync(fd)
            os.replace(beside, self.path)
        except OSError as error:
            raise SinkError(f"cannot record the letters dealt with in {self.path}: {error.strerror}") from None

    def locked(self) -> AbstractContextManager[None]:
        """Keep other commands out. Raises SinkError when one is at it."""
        return one_command(self._state_dir, self._name, f"Kafka topic {self._topic} as group {self._group}")
