"""Rows that wait to be handled again, and rows that wait for them because they come behind them in their lane.

    round 1    all rows of a batch; those that are to be handled again after a backoff are noted in the slot
    park       the slot leaves the queue of its process, which goes on with other batches
    round 2    when it is due it comes back to the queue, and the rows that were noted are handled

Before the end of a run, and before partitions go to another member, that comes early, once (ext/intake.h). The service
that rows wait for is not back sooner for that: what succeeds then is done, and what fails waits as it did before.

A note is a word a row (ext/arena_layout.h): the round that the row takes part in next, and how often it was given to
the handler. Rows of an ordered lane that come while others of it wait, in a batch of the same process, are noted as
well without being given to the handler, so they keep their place. That is looked up in the slots themselves,
so it outlives the process. So are rows of the same batch that a later call would be given, where a batch is handled
in several.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from pythia_fast._ext import gather
from pythia_fast._ext.lanes import lanes_of
from pythia_fast._ext.ring import monotonic_ns

if TYPE_CHECKING:
    from pythia_fast._ext.batch_memory import BatchMemory
    from pythia_fast._ext.ring import Arena

    MemoryOf: TypeAlias = Callable[[int], BatchMemory]

RowIndices = npt.NDArray[np.uint32]
ROUND_SHIFT = 16
GIVEN_MASK = 0xFFFF
#: What a word can count to. Only a batch that waits whole comes near it: a slot that keeps nothing but rows that wait
#: counts its rounds anew (PF_GATHERED_ROUND in ext/gather.h).
LAST_ROUND = 0xFFFF
#: Until rows that wait for others are looked at again once those have come back.
BEHIND_NS = 1_000_000
#: Until slots that were being changed are looked at again; a change takes some ten microseconds.
LOOK_AGAIN_S = 0.00005


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

    def settle(self, rows: RowIndices, waiting: list[tuple[RowIndices, int]]) -> None:
        """The rows are done, but for those in ``waiting``, which take part in the next round: (rows, times given)."""
        self._words[rows] = self._round << ROUND_SHIFT
        for some, given in waiting:
            self._words[some] = (self._round + 1) << ROUND_SHIFT | min(given, GIVEN_MASK)

    @property
    def left(self) -> npt.NDArray[np.uint32]:
        """How often each row noted for the next round was given to the handler, once all of this one are settled."""
        return self._counts(self._words[self._words >> ROUND_SHIFT > self._round])

    def noted(self, rows: RowIndices) -> RowIndices:
        """Those of the rows, which are settled, that are noted for the next round."""
        return rows[self._words[rows] >> ROUND_SHIFT > self._round]

    @property
    def origins(self) -> npt.NDArray[np.uint64] | None:
        """uint64[rows]: the batch that each row came in; None: all in this one."""
        if not self._arena.facts(self._slot).gathered:
            return None
        return np.frombuffer(
            self._arena.view(self._slot, self._arena.offsets["refusals"], 8 * len(self._words)), np.uint64
        )

    @property
    def may_wait(self) -> bool:
        """Whether there can be another round."""
        return self._round < LAST_ROUND

    @property
    def early_due_ns(self) -> int:
        """When this round would have been due, if it began before that: what fails in it goes on waiting as it did.
        Else 0."""
        return self._arena.early_due_ns(self._slot) if self.may_wait else 0


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
        self._parent = os.getppid()
        #: What was looked at last, and the lanes found there, ascending: most batches find the same rows waiting.
        self._looked_at: tuple[int, list[tuple[int, int, int]]] | None = None
        self._found = np.zeros(0, np.uint64)

    def behind(self, slot: int, memory: BatchMemory, memory_of: MemoryOf) -> tuple[npt.NDArray[np.bool_], int] | None:
        """(bool[rows]: which rows of the batch come behind rows that wait, when to look again); None: none do.

        ``memory_of``: the memory of another slot. The completion thread may move rows that wait from slot to slot
        meanwhile: then what was found counts for nothing, and is looked for again.
        """
        if self._arena.round(slot) > 1:
            self._looked_at = None  # which of its rows wait is about to be written anew
        while True:
            before = gather.changes(self._arena)
            try:
                found = self._behind(slot, memory, memory_of, before)
            except (IndexError, ValueError):
                if not self._changed(before):
                    raise
            else:
                if not self._changed(before):
                    return found
            time.sleep(LOOK_AGAIN_S)

    def _changed(self, before: int) -> bool:
        """Whether slots that wait have been changed since; not, if nobody is there any more who would."""
        return (before % 2 == 1 or gather.changes(self._arena) != before) and os.getppid() == self._parent

    def _behind(
        self, slot: int, memory: BatchMemory, memory_of: MemoryOf, changes: int
    ) -> tuple[npt.NDArray[np.bool_], int] | None:
        parked = self._arena.parked_before(slot)
        if not parked:
            return None
        if self._looked_at != (changes, parked):
            self._found = np.unique(np.concatenate([self._lanes_in(*other, memory_of) for other in parked]))
            self._looked_at = changes, parked
        mine = lanes(memory, self._by_key)
        at = np.searchsorted(self._found, mine)
        behind = at < len(self._found)
        behind[behind] = self._found[at[behind]] == mine[behind]
        if not behind.any():
            return None
        return behind, max(monotonic_ns(), *(due_ns for _, _, due_ns in parked)) + BEHIND_NS

    def _lanes_in(self, slot: int, waits_from: int, _due_ns: int, memory_of: MemoryOf) -> npt.NDArray[np.uint64]:
        """Of the rows that wait in a slot."""
        their = memory_of(slot)
        words = np.frombuffer(self._arena.view(slot, self._arena.offsets["retries"], 4 * their.rows), np.uint32)
        return lanes(their, self._by_key)[words >> ROUND_SHIFT >= waits_from]


def parts_that_share_no_lane(
    rows: RowIndices, origins: npt.NDArray[np.uint64], lane_of: npt.NDArray[np.uint64]
) -> list[RowIndices]:
    """The rows in as few parts as have no two rows of one lane that came in different batches, in their order.

    Rows that wait together would else be handled together, and one that has to wait once more be passed by the next one
    of its lane, which it never would have been where each waited with its own batch.

    Parameters:
        rows: ascending.
        origins: uint64[rows of the slot], the batch that each came in; ascending as well.
        lane_of: uint64[rows of the slot].
    """
    bounds = np.flatnonzero(np.diff(origins[rows])) + 1
    if not len(bounds):
        return [rows]
    parts: list[list[RowIndices]] = []
    seen: set[int] = set()
    for some in np.split(rows, bounds):
        lanes_here = set(lane_of[some].tolist())
        if parts and seen.isdisjoint(lanes_here):
            parts[-1].append(some)
            seen |= lanes_here
        else:
            parts.append([some])
            seen = lanes_here
    return [np.concatenate(part) for part in parts]


_NO_LANES: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)


class LanesInHand:
    """The lanes of the batch in hand, and in which of them rows wait to be handled again.

    ``by_key``: None: rows have no order to keep, and nothing is ever behind.
    """

    def __init__(self, memory: BatchMemory, by_key: bool | None) -> None:
        self._memory = memory
        self._by_key = by_key
        self._lane_of: npt.NDArray[np.intp] | None = None  #: each row's; found out when rows wait, as few batches' do
        self._waits = _NO_LANES  #: bool[lanes]

    def hold(self, rows: RowIndices) -> None:
        """The rows wait: those that come behind them in their lanes do so, too."""
        if len(rows) and (lane_of := self.of(rows)) is not None:
            self._waits[lane_of] = True

    def of(self, rows: RowIndices) -> npt.NDArray[np.intp] | None:
        """The number of each row's lane; None: rows have no order to keep."""
        if self._by_key is None:
            return None
        if self._lane_of is None:
            different, self._lane_of = np.unique(lanes(self._memory, self._by_key), return_inverse=True)
            self._waits = np.zeros(len(different), np.bool_)
        return self._lane_of[rows]

    def none_of(self, rows: RowIndices, others: list[RowIndices]) -> npt.NDArray[np.intp]:
        """Which of the rows are in lanes that none of the others are in."""
        lane_of, taken = self.of(rows), [lane for some in others if (lane := self.of(some)) is not None]
        if lane_of is None or not taken:
            return np.arange(len(rows))
        return np.flatnonzero(~np.isin(lane_of, np.concatenate(taken)))

    def release(self, rows: RowIndices) -> None:
        """The rows wait no more."""
        if self._lane_of is not None:
            self._waits[self._lane_of[rows]] = False

    def apart(self, rows: RowIndices, origins: npt.NDArray[np.uint64]) -> list[RowIndices]:
        """See ``parts_that_share_no_lane``; rows without an order may all be handled together."""
        if self._by_key is None:
            return [rows]
        return parts_that_share_no_lane(rows, origins, lanes(self._memory, self._by_key))

    def part(self, rows: RowIndices) -> tuple[RowIndices, RowIndices]:
        """(The rows that may be handled, those that are in lanes in which rows wait.)"""
        if self._lane_of is None:
            return rows, rows[:0]
        behind = self._waits[self._lane_of[rows]]
        return rows[~behind], rows[behind]


@dataclass(slots=True)
class Remainder:
    """What is left of rows that were to be given to the handler once each."""

    lanes: LanesInHand
    #: Rows that ask for another attempt at their last one are given it: what used theirs up raised for some other row.
    one_more: bool = False
    _again: list[RowIndices] = field(default_factory=list)
    _behind: list[RowIndices] = field(default_factory=list)
    _holding: int = 0  #: of _again, those that hold their lanes

    def retry(self, rows: RowIndices) -> None:
        """The rows are to be handled again."""
        self._again.append(rows)

    def ready(self, rows: RowIndices) -> RowIndices:
        """The rows without those that come behind others that are to be handled again, which are left as well."""
        for some in self._again[self._holding :]:
            self.lanes.hold(some)
        self._holding = len(self._again)
        rows, behind = self.lanes.part(rows)
        if len(behind):
            self._behind.append(behind)
        return rows

    def rest(self, given: int, *, early: bool) -> list[tuple[RowIndices, int]]:
        """What is left, the earlier of a lane last: (rows, times given to the handler), which were ``given`` before.

        ``early``: what was given to the handler now does not count.

        Mostly nothing, and this is asked for each batch: numpy is not asked then (np.unique imports numpy.ma first,
        which takes a new process longer than a death costs otherwise).
        """
        found = []
        if self._behind:  # some of them were kept more than once while others beside them were searched
            found.append((np.unique(np.concatenate(self._behind)), given))
        if self._again:
            found.append((np.concatenate(self._again), given + (not early)))
        return found

    def hold(self) -> None:
        """What is left is handled in another round."""
        for some in self._again:
            self.lanes.hold(some)

    def release(self) -> None:
        """What is left is handled next, and in its order: the rows to be handled again hold their lanes no more."""
        for some in self._again[: self._holding]:
            self.lanes.release(some)
