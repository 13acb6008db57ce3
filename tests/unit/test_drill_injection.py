"""pythia_fast.drill.injection: which calls of the handler meet the fault."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pythia_fast.drill.faults import FAULTS
from pythia_fast.drill.injection import DrilledCall, DrillError, Injection, Recovery, calls_before, read_notes
from pythia_fast.handlers import HandlerCall


def batch_of(*offsets: int) -> Any:
    """Rows at these offsets."""
    return SimpleNamespace(
        positions={"partition": np.zeros(len(offsets), np.int64), "offset": np.array(offsets, np.int64)}
    )


def drilled(folder: Path) -> DrilledCall:
    """The handler in one process."""
    injection = Injection(FAULTS["raise"], folder, 0.0, any_rows=False, decoder="raw", calls_before=calls_before(None))
    return DrilledCall(HandlerCall(lambda batch: None, None), injection)


def recovered(folder: Path) -> list[int]:
    """Numbers of the batches that are known to have been handled again."""
    return [note.number for note in read_notes(folder) if isinstance(note, Recovery)]


def test_a_row_raises_alone_only_where_it_is_the_guilty_one(tmp_path: Path) -> None:
    call = drilled(tmp_path)
    for offset in range(5):
        call(batch_of(offset))
    assert read_notes(tmp_path) == []
    for offset in (10, 20, 30):
        with pytest.raises(DrillError):
            call(batch_of(offset, offset + 1))
        call(batch_of(offset))
        call(batch_of(offset + 1))
    with pytest.raises(DrillError):
        call(batch_of(40, 41))
    call(batch_of(40))
    with pytest.raises(DrillError):
        call(batch_of(41))


def test_batches_that_wait_for_a_backoff_while_others_raise_are_all_known_to_be_handled_again(tmp_path: Path) -> None:
    call = drilled(tmp_path)
    for offset in range(2):
        call(batch_of(offset))
    for offset in (10, 20, 30):
        with pytest.raises(DrillError):
            call(batch_of(offset, offset + 1))
    for offset in (20, 10, 30):
        call(batch_of(offset, offset + 1))
        call(batch_of(offset + 1))
    assert recovered(tmp_path) == [1, 0, 2]


def test_a_batch_is_handled_again_by_a_process_that_had_others_first(tmp_path: Path) -> None:
    first, second = drilled(tmp_path), drilled(tmp_path)
    for offset in range(2):
        first(batch_of(offset))
    with pytest.raises(DrillError):
        first(batch_of(10, 11))
    second(batch_of(2))
    assert recovered(tmp_path) == []
    second(batch_of(10, 11))
    first(batch_of(11))
    assert recovered(tmp_path) == [0]
