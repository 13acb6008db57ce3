"""What a source or sink finds out about its own broker, without reading, making or changing anything.

A checkup is a generator: what it has yielded is kept when the server falls silent in the middle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Grade = Literal["ok", "note", "warning", "problem"]

#: Of the time that a checkup has, what may be waited for answers: the rest is for saying that none came.
ANSWER_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact, judged."""

    grade: Grade
    what: str  #: one sentence
    change: str = ""  #: what to change; empty where nothing needs to be


def ok(what: str) -> Finding:
    """As it should be."""
    return Finding("ok", what)


def note(what: str, change: str = "") -> Finding:
    """Worth knowing; nothing is lost by it."""
    return Finding("note", what, change)


def warning(what: str, change: str) -> Finding:
    """It runs, and something that may be counted on does not hold."""
    return Finding("warning", what, change)


def problem(what: str, change: str) -> Finding:
    """A run cannot do its work like this."""
    return Finding("problem", what, change)


Findings = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class CheckupContext:
    """What a checkup knows of the handler that the source or sink belongs to."""

    app: str
    handler: str
    role: Literal["source", "sink", "dead_letter"]
    state_dir: Path
    timeout_s: float  #: for all of the checkup
    deadline: float  #: ``time.monotonic()`` when it is over
    workers: int
    ordering: Literal["unordered", "partition", "key"]
    batch_size: int
    max_batch_bytes: int
    batch_deadline_s: float | None
    rows_in_hand: int
    transactional: bool

    def left_s(self) -> float:
        """Seconds that are left for answers, never quite none."""
        return max(0.05, self.deadline - time.monotonic() - self.timeout_s * (1 - ANSWER_SHARE))
