"""pythia_fast.drill.injection: which calls of the handler meet the fault."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pythia_fast.drill.faults import FAULTS
from pythia_fast.drill.injection import DrilledCall, DrillError, Injection, read_notes
from pythia_fast.handlers import HandlerCall


def batch_of(*offsets: int) -> Any:
    """Rows at these offsets."""
    return SimpleNamespace(
        positions={"partition": np.zeros(len(offsets), np.int64), "offset": np.array(offsets, np.int64)}
    )


def test_a_row_raises_alone_only_where_it_is_the_guilty_one(tmp_path: Path) -> None:
    call = DrilledCall(
        HandlerCall(lambda batch: None, None), Injection(FAULTS["raise"], tmp_path, 0.0, any_rows=False, decoder="raw")
    )
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
