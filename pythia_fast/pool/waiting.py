"""Rows that wait to be handled again, and rows that wait for them because they come behind them in their lane.

    round 1    all rows of a batch; those that are to be handled again after a backoff are noted in the slot
    park       the slot leaves the queue of its process, which goes on with other batches
    round 2    when it is due it comes back to the queue, and the rows that were noted are handled

A note is a word a row (ext/arena_layout.h): the round that the row takes part in next, and how often it was given to
the handler. Rows of an ordered lane that come while others of it wait, in a batch of the same process, are noted as
well without being given to the handler, so they keep their place. That is looked up in the slots themselves,
so it outlives the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from pythia_fast._ext.lanes import lanes_of
from pythia_fast._ext.ring import monotonic_ns

if TYPE_CHECKING:
    from pythia_fast._ext.batch_memory import BatchMemory
    from pythia_fast._ext.ring import Arena

    MemoryOf: TypeAlias = Callable[[int], BatchMemory]

RowIndices = npt.NDArray[np.uint32]
ROUND_SHIFT = 16
GIVEN_MASK = 0xFFFF
#: Rounds and attempts that a word can count; a row that waits longer is given up by its policy long before.
LAST_ROUND = 0xFFFF
#: Until rows that wait for others are looked at again once those have come back.
BEHIND_NS = 1_000_000


class WaitingRows:
    """The notes of one batch. Made by the process that holds its slot."""

    def __init__(self, arena: Arena, slot: int, rows: int) -> None:
        self._arena = arena
        self._slot = slot
        self._round = arena.round(slot)
        self._words = np.frombuffer(arena.view(slot, arena.offsets["retries"], 4 * rows), np.uint32)

    @property
    def takes_part(self) -> RowIndices:
        """The rows of this round. The first one has all rows, whatever the words say."""
        if self._round == 1:
            return np.arange(len(self._words), dtype=np.uint32)
        return np.flatnonzero(self._words >> ROUND_SHIFT >= self._round).astype(np.uint32)

    def given(self, rows: RowIndices) -> npt.NDArray[np.uint32]:
        """How often each of the rows, which take part, was given to the handler before this round."""
        return np.zeros(len(rows), np.uint32) if self._round == 1 else self._counts(self._words[rows])

    @staticmethod
    def _counts(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        return np.bitwise_and(words, np.uint32(GIVEN_MASK))

    @property
    def first_round(self) -> bool:
        return self._round == 1

    def settle(self, rows: RowIndices, waiting: list[tuple[RowIndices, int]]) -> None:
        """The rows are done, but for those in ``waiting``, which take part in the next round: (rows, times given)."""
        self._words[rows] = self._round << ROUND_SHIFT
        for some, given in waiting:
            self._words[some] = (self._round + 1) << ROUND_SHIFT | min(given, GIVEN_MASK)

    @property
    def left(self) -> npt.NDArray[np.uint32]:
        """How often each row noted for the next round was given to the handler, once all of this one are settled."""
        return self._counts(self._words[self._words >> ROUND_SHIFT > self._round])

    @property
    def may_wait(self) -> bool:
        """Whether there can be another round."""
        return self._round < LAST_ROUND


def lanes(memory: BatchMemory, by_key: bool) -> npt.NDArray[np.uint64]:
    """The lane of each row."""
    found = np.empty(memory.rows, np.uint64)
    lanes_of(memory, by_key, found)
    return found


class LanesThatWait:
    """Rows that wait in earlier batches of the same process, by lane."""

    def __init__(self, arena: Arena, by_key: bool) -> None:
        self._arena = arena
        self._by_key = by_key

    def behind(self, slot: int, memory: BatchMemory, memory_of: MemoryOf) -> tuple[npt.NDArray[np.bool_], int] | None:
        """(bool[rows]: which rows of the batch come behind rows that wait, when to look again); None: none do.

        ``memory_of``: the memory of another slot.
        """
        parked = self._arena.parked_before(slot)
        if not parked:
            return None
        waiting = []
        for other, waits_from, _due_ns in parked:
            their = memory_of(other)
            words = np.frombuffer(self._arena.view(other, self._arena.offsets["retries"], 4 * their.rows), np.uint32)
            waiting.append(lanes(their, self._by_key)[words >> ROUND_SHIFT >= waits_from])
        behind = np.isin(lanes(memory, self._by_key), np.concatenate(waiting))
        if not behind.any():
            return None
        return behind, max(monotonic_ns(), *(due_ns for _, _, due_ns in parked)) + BEHIND_NS
