"""Standing: how one handler stands, as the thread that watches the run sees it: what is oldest, and what it waits for.

Nothing here is asked more than a few times a second, and nothing waits: the arena is scanned without the GIL, the
source is asked for what it knows, and the sentences are made by stalls.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from pythia_fast import outlet
from pythia_fast._ext import gather
from pythia_fast._ext import oldest as slots
from pythia_fast._ext.oldest import OldestRow, oldest
from pythia_fast._ext.ring import CIRCUIT_HALF_OPEN, CIRCUIT_OPEN, monotonic_ns
from pythia_fast.batch import MESSAGE
from pythia_fast.pool.waiting import ROUND_SHIFT
from pythia_fast.runtime.stalls import LATE_S, STALL_S, Row, Scene, Stage, Stalls, Unread

if TYPE_CHECKING:
    from pythia_fast._ext.gather import Waiting
    from pythia_fast._ext.intake import Intake
    from pythia_fast._ext.ring import Arena
    from pythia_fast.brokers.base import Kept, Partition, Publisher, Reader
    from pythia_fast.registration import Handler
    from pythia_fast.runtime.completion import Completion
    from pythia_fast.runtime.dead_letter import DeadLetterWriter
    from pythia_fast.runtime.flow import FlowControl


#: What waits for the rate limit asks for it ten times as often.
RATE_S = 1.0


NONE_IS_MADE = "no process is made until the handler's pause is over"


def next_attempt(waits: Waiting) -> str:
    """Which rows wait for their next attempt, and until when the first of them does."""
    rows = "1 row waits for its" if waits.rows == 1 else f"{waits.rows:,} rows wait for their"
    return f"{rows} next attempt until {_time_of_day((waits.first_due_ns - monotonic_ns()) * 1e-9)}"


def asking(handler: Handler) -> str:
    """The options of the handler by which rows wait to be handled again."""
    options = {"retry=": handler.retry.waits, "breaker=": handler.breaker is not None}
    return " or ".join(option for option, is_set in options.items() if is_set)


def _time_of_day(in_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time.time() + in_s))


class Standing:
    """Of one handler while it runs; used by the watching thread."""

    def __init__(
        self,
        handler: Handler,
        arena: Arena,
        *,
        reader: Reader,
        intake: Intake,
        completion: Completion,
        flow: FlowControl,
        sink: Publisher | None,
        dead_letters: DeadLetterWriter,
        partitions: Mapping[int, Partition],
        spool_trouble: Callable[[], str],
    ) -> None:
        self._handler = handler
        self._arena = arena
        self._reader = reader
        self._intake = intake
        self._completion = completion
        self._flow = flow
        self._sink = sink
        self._dead_letters = dead_letters
        self._partitions = partitions
        self._spool_trouble = spool_trouble
        self._stalls = Stalls(handler.name, STALL_S, LATE_S)
        self._rate_waits = 0  #: at the last look
        self._limited_s = -RATE_S  #: when they were seen to become more
        self.longest_s = 0.0  #: the highest age that was seen

    def oldest_s(self) -> float:
        """Age of the oldest row taken in and not completed, wherever it is; 0: there is none."""
        row = oldest(self._arena)
        kept = self._reader.kept()
        age_s = max([kept_back.age_s for kept_back in kept] + [row.age_s if row is not None else 0.0])
        self.longest_s = max(self.longest_s, age_s)
        return age_s

    def look(self, now_s: float) -> list[str]:
        """What is to be told now of rows and partitions that get nowhere."""
        return self._stalls.look(now_s, self._scene(now_s))

    def _scene(self, now_s: float) -> Scene:
        in_hand = oldest(self._arena)
        kept = self._reader.kept()
        first = max(kept, key=lambda one: one.age_s, default=None)
        row: Row | None = None
        if first is not None and (in_hand is None or first.age_s > in_hand.age_s):
            row = self._kept_row(first)
        elif in_hand is not None:
            row = self._row(in_hand)
        if self._intake.rate_waits != self._rate_waits:
            self._rate_waits, self._limited_s = self._intake.rate_waits, now_s
        return Scene(
            settled=self._completion.counts.rows,
            oldest=row,
            unread=[
                Unread(
                    place=self._reader.place(part.topic, part.partition, part.offset)
                    if part.offset >= 0
                    else part.topic,
                    since_s=part.since_s,
                    messages=part.messages,
                    silent_s=part.silent_s,
                )
                for part in self._reader.quiet()
            ],
            paused=self._paused(row),
            rate_limit=self._handler.rate_limit if now_s - self._limited_s < RATE_S else None,
            waiting=self._full_of_waiting(),
            held_back=[f"{part.topic}[{part.partition}]" for part in kept],
            unread_output=outlet.unread() if row is not None else "",
        )

    def _full_of_waiting(self) -> str:
        """What is to be said where rows that wait leave no slot to read into."""
        waits = gather.waiting(self._arena)
        if waits.free or not waits.slots:
            return ""
        taken = f"{waits.slots} of all {self._arena.n_slots} slots"
        return f"{next_attempt(waits)} and take {taken}, so nothing more is read before"

    def _paused(self, row: Row | None) -> list[str]:
        """Why the source is paused, but for what is told of the row."""
        told = self._flow.circuit_why if row is not None and row.stage == "circuit" else ""
        return [why for why in self._flow.trouble if not told or not why.endswith(told)]

    def _kept_row(self, kept: Kept) -> Row:
        place = self._reader.place(kept.topic, kept.partition, kept.offset)
        return Row(place=place, age_s=kept.age_s, stage="kept")

    def _row(self, found: OldestRow) -> Row:
        worker = self._arena.worker_facts(found.worker) if found.state != slots.FILLING else None
        stage, trouble = self._stage(found)
        due_in_s = (found.due_ns - monotonic_ns()) * 1e-9 if stage == "retry" else 0.0
        return Row(
            place=self._place(found),
            age_s=found.age_s,
            stage=stage,
            pid=worker.pid if worker is not None else 0,
            busy_s=self._busy_s(found.worker) if worker is not None else None,
            deaths=self._deaths(found) if worker is not None else 0,
            deadline_s=self._handler.batch_deadline,
            fill_s=self._handler.batch_timeout,
            due_in_s=due_in_s,
            due_at=_time_of_day(due_in_s) if stage == "retry" else "",
            asked_by=asking(self._handler) if stage == "retry" else "",
            trouble=trouble,
        )

    def _busy_s(self, worker: int) -> float | None:
        """How long the process of this place has been at the batch, or with batch_deadline= in the call, that it has in
        its hands."""
        slot = self._arena.slot_in_hand(worker)
        if slot is None:
            return None
        since_ns = self._arena.worker_facts(worker).began_ns or self._arena.facts(slot).taken_ns
        return max(0, monotonic_ns() - since_ns) * 1e-9

    def _deaths(self, found: OldestRow) -> int:
        """Processes that died with the batch in the hands of its process, or with its own."""
        slot = self._arena.slot_in_hand(found.worker)
        return self._arena.crashes(found.slot if slot is None else slot)

    def _stage(self, found: OldestRow) -> tuple[Stage, str]:
        """(where the row is, what is wrong there, if anybody says so)."""
        if found.state == slots.FILLING:
            return "filling", self._spool_trouble()
        if found.state == slots.WAITING:
            return "retry", ""
        if found.state == slots.OUTPUT_FULL:
            return "results", self._sink_trouble()
        if found.state in (slots.DONE, slots.PARKED):
            waits_for = self._completion.waits_for(found.slot)
            if "sink" in waits_for:
                return "results", self._sink_trouble()
            return ("dead letters", self._dead_letters.trouble() or "") if waits_for else ("done", "")
        worker = self._arena.worker_facts(found.worker)
        if not worker.booted:
            return "starting", NONE_IS_MADE if self._flow.makes_none else ""
        if found.state == slots.HELD:
            # The time of each call is noted where somebody looks at it; else a batch in hand is taken to be in a call.
            return ("held" if self._handler.batch_deadline is not None and not worker.began_ns else "called"), ""
        if self._arena.circuit in (CIRCUIT_OPEN, CIRCUIT_HALF_OPEN) and self._arena.slot_in_hand(found.worker) is None:
            return "circuit", self._flow.circuit_why
        return "queued", ""

    def _sink_trouble(self) -> str:
        return (self._sink.trouble() or "") if self._sink is not None else ""

    def _place(self, found: OldestRow) -> str:
        """Of the first row of the batch that is not done: where some of it is, the slot knows which."""
        index, offset = found.partition, found.offset
        if found.round > 1:
            rows = min(found.rows, self._arena.capacity)
            words = np.frombuffer(self._arena.view(found.slot, self._arena.offsets["retries"], 4 * rows), np.uint32)
            left = np.flatnonzero(words >> ROUND_SHIFT >= found.round)
            if len(left):
                at = self._arena.rows_at(found.slot) + int(left[0]) * MESSAGE.itemsize
                (message,) = np.frombuffer(self._arena.view(found.slot, at, MESSAGE.itemsize), MESSAGE)
                index, offset = int(message["partition"]), int(message["offset"])
        partition = self._partitions.get(index)
        if partition is None:
            return f"offset {offset:,}"
        return self._reader.place(partition.topic, partition.partition, offset)
