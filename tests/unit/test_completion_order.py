"""Outputs leave in the order in which a process came to them, whenever the completion thread looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pythia_fast.runtime.completion import Completion


class Racing:
    """An arena whose process completes batch 1, and then spills batch 2, between two looks of the completion thread."""

    def __init__(self, moment: int) -> None:
        self._looks_left = moment
        self._collected = False

    def _has_happened(self) -> bool:
        happened = self._looks_left <= 0
        self._looks_left -= 1
        return happened

    def collect(self) -> list[int]:
        if self._collected or not self._has_happened():
            return []
        self._collected = True
        return [1]

    def spilled(self) -> list[int]:
        return [2] if self._has_happened() else []


@pytest.mark.parametrize("moment", range(4))
def test_a_spilled_batch_does_not_overtake_the_one_before(moment: int) -> None:
    seen: list[int] = []
    thread: Any = object.__new__(Completion)

    def spilled(slot: int) -> None:
        seen.append(slot)
        thread._pending[slot] = True

    nothing = SimpleNamespace(turn=lambda: None, successors=tuple)
    thread.__dict__.update(_arena=Racing(moment), _pending={}, _flow=nothing, _completed=seen.append, _spilled=spilled)
    for name in ("_take_deliveries", "_bury", "_commit_in_time"):
        thread.__dict__[name] = lambda: None
    for _ in range(4):
        thread._turn()
    assert seen == [1, 2]
