"""The completion thread: what happens to a batch after its handler.

    DONE slot ─▶ dead letters and outputs to their publishers ─▶ delivered ─▶ settle ─▶ release ─▶ commit

A slot is released, and its positions become committable, only when every record it gave rise to is durable.
One thread a handler; it owns the words that arena_layout.h marks D.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pythia_fast._ext import gather
from pythia_fast._ext.journal import Journal
from pythia_fast._ext.ring import Arena
from pythia_fast.brokers.base import Delivery, Publisher, Reader
from pythia_fast.errors import HandlerError
from pythia_fast.pool.obituary import Obituary
from pythia_fast.pool.parts import Suspects, convicts_next
from pythia_fast.runtime.slots import SlotReader
from pythia_fast.runtime.tracker import Tracker
from pythia_fast.runtime.undone_rows import UndoneRows

if TYPE_CHECKING:
    from pythia_fast._ext.ring import SlotFacts
    from pythia_fast.registration import Handler
    from pythia_fast.runtime.dead_letter import DeadLetterWriter
    from pythia_fast.runtime.dead_letter_form import DeadLetter
    from pythia_fast.runtime.flow import FlowControl

IDLE_WAIT_S = 0.1
ABORTED = -1  #: instead of a slot: the ticket was of a transaction that came to nothing
READ_AGAIN = "whoever reads on gets the messages since the last commit again"
DELIVERY_WAIT_S = 0.001  #: how soon a delivery is noticed that no completion announces


@dataclass(slots=True)
class Counts:
    """Totals of one handler. Written by the completion thread, read by anyone."""

    rows: int = 0
    batches: int = 0
    bytes: int = 0
    refused: int = 0
    tombstones_skipped: int = 0
    rejected: int = 0
    failed: int = 0
    killed: int = 0  #: rows given up because they kill, which are among the failed
    retried: int = 0
    dead_lettered: int = 0
    crashes: int = 0
    recycled: int = 0
    transactions: int = 0  #: committed
    transactions_aborted: int = 0
    last_settled: float = 0.0  #: time.monotonic()


@dataclass(slots=True)
class Pending:
    """A slot that waits for deliveries."""

    tickets: set[tuple[str, int]] = field(default_factory=set)  #: ("sink" | "dead", ticket)
    spilled: bool = False  #: its holder waits for the output region, the batch is not done
    dead: int = 0  #: dead letters under way
    killed: int = 0  #: rows that killed
    parked: bool = False  #: some of its rows are handled again later


class Completion:
    """See the module's docstring. Everything but ``start``, ``finish`` and the posting methods runs on its thread."""

    def __init__(
        self,
        handler: Handler,
        arena: Arena,
        reader: Reader,
        sink: Publisher | None,
        dead_letters: DeadLetterWriter,
        *,
        slots: SlotReader,
        flow: FlowControl,
        launch: Callable[[int], None],
        wake_intake: Callable[[], None],
        fail: Callable[[BaseException], None],
        log: Callable[[str], None],
    ) -> None:
        self.counts = Counts()
        self.undone = UndoneRows()  #: since partitions last went back; none, without transactions
        self._handler = handler
        self._arena = arena
        self._reader = reader
        self._sink = sink
        self._dead_letters = dead_letters
        self._slots = slots
        self._flow = flow
        self._launch = launch
        self._wake_intake = wake_intake
        self._fail = fail
        self._log = log
        self._tracker = Tracker()
        self._lock = threading.Condition()  # tracker and commits: this thread, and the intake thread at a rebalance
        self._pending: dict[int, Pending] = {}
        self._ticket_slot: dict[tuple[str, int], int] = {}
        self._sent: dict[int, tuple[int, int]] = {}  #: slot -> (records given to the sink in all, those it refused)
        self._next_ticket = 1
        self._deaths: deque[tuple[int, Obituary]] = deque()
        self._killed_by: dict[
            int, list[Obituary]
        ] = {}  #: slot -> how the last holder of each row died that is given up
        self._kept: set[str] = set()
        self._stop = threading.Event()
        self._next_commit = 0.0
        self._thread = threading.Thread(target=self._run, name=f"completion {handler.name}", daemon=True)

    # -- other threads -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Stop the thread; nothing is committed here."""
        self._stop.set()
        self._arena.wake_done()
        if self._thread.ident is not None:
            self._thread.join()

    def post_death(self, worker: int, obituary: Obituary) -> None:
        """The process of this place is dead (it was reaped): hand on what it had, then launch a successor."""
        self._deaths.append((worker, obituary))
        self._arena.wake_done()

    def idle(self) -> bool:
        """Nothing that was read is left unsettled."""
        return not self._arena.live() and not self._pending

    @property
    def aborted(self) -> bool:
        """Whether partitions have to go back to their committed positions: never, without transactions."""
        return False

    def rewound(self, epoch: int) -> None:
        """All partitions went back; what is read now is of this epoch on."""

    def waits_for(self, slot: int) -> set[str]:
        """What a batch that came back from the pool waits for: "sink" and "dead", until they confirm its records."""
        pending = self._pending.get(slot)
        return {kind for kind, _ in tuple(pending.tickets)} if pending is not None else set()

    def assigned(self, partitions: Sequence[int]) -> None:
        with self._lock:
            for partition in partitions:
                self._tracker.assign(partition)

    def settled(self, partitions: Sequence[int], timeout: float) -> bool:
        """Wait at most so many seconds until no batch holds rows of these."""
        wanted = set(partitions)
        with self._lock:
            return self._lock.wait_for(lambda: not any(part in wanted for part, _ in self._arena.live()), timeout)

    def settle_and_forget(self, partitions: Sequence[int], deadline: float) -> bool:
        """Wait until no batch holds rows of these, commit, forget them. False: the deadline came first."""
        wanted = set(partitions)
        with self._lock:
            while any(partition in wanted for partition, _ in self._arena.live()):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._lock.wait(min(left, IDLE_WAIT_S))
            settled = not any(partition in wanted for partition, _ in self._arena.live())
            if trouble := self._commit(wait=True):
                self._log(f"{trouble}; {READ_AGAIN}")
            self._forget(wanted)
        return settled

    def forget(self, partitions: Sequence[int]) -> None:
        """They were lost: nothing of them is committed."""
        with self._lock:
            self._forget(set(partitions))

    def commit(self, *, wait: bool) -> str:
        """Commit what is done; "", or why it is not committed, where asking again can help."""
        with self._lock:
            return self._commit(wait=wait)

    def held_back(self) -> dict[int, int]:
        """Partition -> the position that is committed of it, where messages behind that are done."""
        with self._lock:
            return self._tracker.held_back(self._arena.live())

    def _forget(self, partitions: set[int]) -> None:
        for partition in partitions:
            self._tracker.forget(partition)

    # -- this thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            seen = 0
            while not self._stop.is_set():
                seen = self._arena.wait_done(seen, DELIVERY_WAIT_S if self._pending else IDLE_WAIT_S)
                self._turn()
        except BaseException as error:
            self._fail(error)

    def _turn(self) -> None:
        # Looked for first: what its process completed before it is then among those collected, and goes before.
        spilled = self._arena.spilled()
        for slot in self._arena.collect():
            self._completed(slot)
        for slot in spilled:
            if slot not in self._pending:
                self._spilled(slot)
        self._take_deliveries()
        self._bury()
        self._flow.turn()
        for worker in self._flow.successors():
            self._launch(worker)
        self._commit_in_time()

    def _commit_in_time(self) -> None:
        now = time.monotonic()
        if now >= self._next_commit:
            self._next_commit = now + self._reader.commit_interval_s
            if trouble := self.commit(wait=False):
                self._log(f"{trouble}; trying again")

    def _spilled(self, slot: int) -> None:
        self._pending[slot] = Pending(spilled=True)
        self._publish_output(slot)
        self._settle_if_delivered(slot)

    def _completed(self, slot: int) -> None:
        """A batch came back from the pool."""
        self._hear(slot)
        self._take_in(slot)

    def _hear(self, slot: int) -> None:
        """What the batch's calls tell of the service behind the handler."""
        if self._handler.breaker is None:
            return
        facts = self._arena.facts(slot)
        if facts.error_bytes:
            notes = self._slots.notes(slot, facts)
            self._flow.reported(notes.circuit, notes.outage)
        else:
            self._flow.reported("", "")

    def _take_in(self, slot: int) -> None:
        """Send on what the batch gave rise to."""
        facts = self._arena.facts(slot)
        deaths = self._killed_by.pop(slot, [])
        self._pending[slot] = Pending(parked=self._arena.parked(slot))
        if facts.error_bytes or facts.refused:
            notes = self._slots.notes(slot, facts)
            if notes.stop:
                # The batch stays live, so nothing of it is committed: the next run begins with it.
                raise HandlerError(f"handler {self._handler.name!r} ends the run:\n{notes.stop}")
            if notes.kept:
                self._warn_kept(notes.kept)
            self._pending[slot].killed = sum(len(error.indices()) for error in notes.errors if error.kind == "killed")
            letters = self._slots.dead_letters(slot, facts, notes, deaths)
            if letters:
                self._publish_dead(slot, letters)
        self._publish_output(slot)
        self._settle_if_delivered(slot)

    def _warn_kept(self, columns: Sequence[str]) -> None:
        for column in columns:
            if column not in self._kept:
                self._kept.add(column)
                self._log(
                    f"{self._handler.name}: a view of {column!r} was kept after the handler returned; it was given "
                    "a copy of its own, which costs memory: keep batch[...].copy() instead"
                )

    def _publish_output(self, slot: int) -> None:
        facts = self._arena.facts(slot)
        if facts.output_records and self._sink is not None:
            ticket = self._ticket(slot, "sink")
            self._count_sent(slot, facts.output_records, 0)
            self._sink.publish(self._slots.output(slot, facts.output_bytes), facts.output_records, ticket)

    def _publish_dead(self, slot: int, letters: Sequence[DeadLetter]) -> None:
        self._pending[slot].dead += len(letters)
        self._flow.gave_up(letters[-1].reason)
        self._dead_letters.publish(letters, self._ticket(slot, "dead"))

    def _ticket(self, slot: int, kind: str) -> int:
        ticket = self._next_ticket
        self._next_ticket += 1
        self._ticket_slot[kind, ticket] = slot
        self._pending[slot].tickets.add((kind, ticket))
        return ticket

    def _take_deliveries(self) -> None:
        if not self._pending:
            return
        if self._sink is not None:
            for delivery in self._sink.deliveries():
                self._delivered("sink", delivery)
        for delivery in self._dead_letters.deliveries():
            self._delivered("dead", delivery)

    def _delivered(self, kind: str, delivery: Delivery) -> None:
        slot = self._ticket_slot.pop((kind, delivery.ticket))
        if slot == ABORTED:
            return
        if delivery.failed and kind == "sink":
            self._count_sent(slot, 0, len(delivery.failed))
            size = self._arena.facts(slot).output_bytes
            self._publish_dead(slot, self._slots.failed_records(slot, size, delivery.failed))
        self._pending[slot].tickets.discard((kind, delivery.ticket))
        self._settle_if_delivered(slot)

    def _count_sent(self, slot: int, records: int, refused: int) -> None:
        before = self._sent.get(slot, (0, 0))
        self._sent[slot] = before[0] + records, before[1] + refused

    def _rows_unsent(self, slot: int, facts: SlotFacts, done: int) -> int:
        """Rows of a round for whose results the sink had no use: its share of refused records, for a record may be of
        many rows."""
        records, refused = self._sent.pop(slot, (0, 0))
        if not refused:
            return 0
        rows = (done - facts.refused if done else facts.rows) - facts.failed - facts.rejected
        return -(-max(rows, 0) * refused // records)

    def _settle_if_delivered(self, slot: int) -> None:
        pending = self._pending[slot]
        if pending.tickets:
            return
        del self._pending[slot]
        self.counts.dead_lettered += pending.dead
        if pending.spilled:
            if slot in self._buried_slots():
                self._arena.forget_output(slot)
            else:
                self._arena.resume(slot)
            return
        facts = self._arena.facts(slot)
        skipped = self._slots.tombstones_skipped(slot, facts)
        counts = self.counts
        counts.batches += 1
        counts.rejected += facts.rejected
        counts.failed += facts.failed
        counts.killed += pending.killed
        counts.retried += facts.retried
        if pending.parked:
            done, size = self._have_wait(slot, facts)
            self._wake_intake()
        else:
            done, size = self._release(slot, facts)
        unsent = self._rows_unsent(slot, facts, done)
        self._flow.settled(
            slot, facts, done=done, parked=pending.parked, killed=pending.killed, unsent=unsent, skipped=skipped
        )
        if done:
            counts.rows += done
            counts.bytes += size
            counts.refused += facts.refused - skipped
            counts.tombstones_skipped += skipped
            counts.last_settled = time.monotonic()

    def _release(self, slot: int, facts: SlotFacts) -> tuple[int, int]:
        """The batch is done: (messages, bytes of their payloads)."""
        self._slots.discard_spooled(slot, facts)
        with self._lock:
            self._settle_positions(self._arena.partitions(slot))
            self._acknowledge(slot, 0, facts.rows + facts.refused)
            self._arena.release(slot)
            self._lock.notify_all()
        return facts.rows + facts.refused, facts.payload_bytes

    def _have_wait(self, slot: int, facts: SlotFacts) -> tuple[int, int]:
        """Settle what is done of a parked batch, and have the rest of it wait, with that of others where it may.

        Returns (messages that are done, bytes of their payloads).
        """
        self._slots.discard_spooled(slot, facts)
        done = size = 0
        with self._lock:
            waits = slot
            partitions = self._arena.partitions(slot)
            apart = gather.thin(self._arena, slot)
            if apart is not None:
                first, done = apart
                self._settle_positions(partitions)
                self._acknowledge(slot, first, done)
                size = facts.payload_bytes - self._arena.facts(slot).payload_bytes
                if not self._flow.keeps_apart(facts):
                    waits = self._gather(slot)
            self._arena.wait_until_due(waits)
            self._lock.notify_all()
        return done, size

    def _gather(self, slot: int) -> int:
        """The slot in which its rows wait, with those of others where they may."""
        came_back = [other for other, pending in self._pending.items() if not (pending.parked or pending.spilled)]
        together = gather.merge(self._arena, slot, self._handler.ordering != "unordered", came_back)
        return slot if together is None else together

    def _settle_positions(self, partitions: Sequence[tuple[int, int, int, int]]) -> None:
        for partition, _messages, _first, next_offset in partitions:
            self._tracker.settle(partition, next_offset)

    def _acknowledge(self, slot: int, first: int, messages: int) -> None:
        """So many messages of a batch, which stand in its table from ``first`` on, are done."""
        if self._reader.acknowledges_rows:
            self._reader.settled(self._arena, slot, first, messages)

    def _buried_slots(self) -> set[int]:
        return {slot for worker, _ in self._deaths if (slot := self._arena.slot_in_hand(worker)) is not None}

    def _bury(self) -> None:
        """Return what dead processes held; one whose spilled records are still on their way must wait for them."""
        for _ in range(len(self._deaths)):
            worker, obituary = self._deaths.popleft()
            slot = self._arena.slot_in_hand(worker)
            if slot in self._pending:
                self._deaths.append((worker, obituary))
                continue
            if slot is not None:
                done = Journal(self._arena, slot).read()
                if convicts_next(Suspects(done.rows_done, done.suspect_end, done.deaths, done.deaths_before)):
                    self._killed_by.setdefault(slot, []).append(obituary)
            self._arena.return_taken(worker)
            if obituary.recycled:
                self.counts.recycled += 1
            else:
                self.counts.crashes += 1
            self._flow.died(worker, obituary.in_vain)

    def _commit(self, *, wait: bool) -> str:
        again = wait or self._reader.commit_failed
        positions = self._tracker.committable(self._arena.live(), again=again)
        if not positions and not wait:
            return ""
        self._reader.commit_failed = False
        trouble = self._reader.commit(positions, wait=wait)
        if trouble == "":
            self._tracker.committed(positions)
        return trouble or ""
