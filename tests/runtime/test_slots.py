"""What a dead letter says of a message that fits no batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from pythia_fast import App
from pythia_fast.batch import MESSAGE
from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage, MemoryProducer
from pythia_fast.pool.notes import Notes, RowErrors
from pythia_fast.pool.obituary import Obituary
from pythia_fast.runtime.slots import SlotReader


class Label(msgspec.Struct):
    text: str = "D" * 3000


class Order(msgspec.Struct):
    number: int
    labels: list[Label] = []


def refusals(messages: list[Any], state_dir: Path, **options: Any) -> list[tuple[bytes | None, str]]:
    """Payloads and reasons of the dead letters of a run."""
    app, dead = App("slots"), MemoryProducer()

    @app.batch_handler(source=MemoryConsumer(messages), dead_letter=dead, workers=1, **options)
    def handle(batch):
        pass

    app.run(until="end", state_dir=state_dir)
    return [(record.payload, dict(record.headers)["pf-reason"].decode()) for record in dead.records]


def test_what_of_a_message_is_too_large_is_said(tmp_path: Path) -> None:
    messages = [
        MemoryMessage(b"x" * 1001, key=b"k"),
        MemoryMessage(b"xyz", key=b"k" * 2000),
        MemoryMessage(None, headers=[("h", b"v" * 2000)]),
        MemoryMessage(b"fits", key=b"k"),
    ]
    letters = refusals(messages, tmp_path, decoder="raw", max_batch_bytes=1000)
    raise_it = "; raise max_batch_bytes, which is 1,000"
    assert letters[:2] == [
        (messages[0].payload, f"the payload is larger than a batch may be (1,001 bytes){raise_it}"),
        (b"xyz", f"key and headers are larger than a batch may be (2,000 bytes, with 3 of payload){raise_it}"),
    ]
    payload, reason = letters[2]
    assert payload is None
    assert reason.startswith("key and headers are larger than a batch may be (2,0")
    assert reason.endswith(f" bytes, with 0 of payload){raise_it}")
    assert len(letters) == 3


def test_a_row_that_only_its_defaults_make_too_large_is_not_refused_for_its_payload(tmp_path: Path) -> None:
    small, large = (b'{"number":1,"labels":[%s]}' % b",".join([b"{}"] * n) for n in (10, 50))
    ((payload, reason),) = refusals([small, large], tmp_path, schema=Order, max_batch_bytes=100_000)
    assert payload == large
    assert reason == (
        "the decoded row is larger than a batch may be: a column of it has more than 100,000 bytes of text, or values "
        "in its list; raise max_batch_bytes, which is that number"
    )


def test_a_row_that_killed_becomes_a_dead_letter_although_nobody_told_how(tmp_path: Path) -> None:
    messages = np.zeros(2, MESSAGE)
    messages["key_size"] = -1
    arena: Any = SimpleNamespace(
        offsets={"raw": 0, "messages": 0},
        capacity=2,
        rows_at=lambda slot: 0,
        view=lambda slot, at, size: memoryview(messages.tobytes())[at : at + size],
    )
    killed = [RowErrors("killed", np.uint32([row]).tobytes(), "a process died with it", 3) for row in (0, 1)]
    facts, handler = SimpleNamespace(refused=0), None
    reader = SlotReader(arena, handler, {}, tmp_path)
    first, second = reader.dead_letters(0, facts, Notes(killed), [Obituary("by SIGSEGV", "stack")])
    assert (first.reason, first.traceback) == ("a process died with it (by SIGSEGV)", "stack")
    assert (second.reason, second.traceback) == ("a process died with it", "")
