"""TransactionalCompletion: a batch's way when outputs, dead letters and positions are one transaction.

    DONE slot ─▶ its epoch's turn? ─▶ into the open transaction ─▶ delivered ─▶ settle ─▶ release
                    └─ not yet: it waits in its slot                              │
                                    epoch complete ─▶ positions into it ─▶ commit ─▶ next one

A transaction that cannot be committed is aborted, and everything that was read since it began is read again: the intake
thread takes every partition back to its committed position, and what is still in hand from before comes to nothing.

A transaction that was aborted because it became too old would become so again: a row that hangs takes as long to find
as it did. So the next ones are written late, once all their batches are back from the pool: until then the broker does
not know of them, and what was found out about a batch is in its journal all the time.

A process whose results are larger than the output region waits until they are written. When all that the open
transaction lacks, rows that are handled again after a backoff, has to be handled by processes that wait with batches
of later ones, the transaction takes these in as well, and nothing more is read until it is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pythia_fast._ext.journal import Journal
from pythia_fast.errors import SinkError
from pythia_fast.runtime.completion import ABORTED, IDLE_WAIT_S, Completion
from pythia_fast.runtime.epochs import Epochs
from pythia_fast.transactions import SHARE_OF_TIMEOUT

if TYPE_CHECKING:
    from pythia_fast._ext.ring import SlotFacts
    from pythia_fast.brokers.base import Partition
    from pythia_fast.brokers.kafka_transactions import KafkaTransactions

#: "starting": the transactional id is not ours yet. "aborted": the intake has to take the partitions back.
Phase = Literal["starting", "open", "committing", "aborting", "aborted"]

MAX_ABORTS_IN_A_ROW = 5  #: for a reason that is ours: the next attempt would not go better
ABORT_WAIT_S = 10.0  #: longest time that a rebalance waits for an abort

#: Of Counts: those that count rows, which count for nothing when their transaction is aborted.
_ROW_COUNTS = (
    "rows",
    "batches",
    "bytes",
    "refused",
    "tombstones_skipped",
    "rejected",
    "failed",
    "killed",
    "retried",
    "dead_lettered",
)


class TransactionalCompletion(Completion):
    """See the module's docstring.

    Parameters:
        transactions: the producer, whose parts are ``sink`` and perhaps the dead letters' sink.
        partitions: by index, as the listener keeps them.
        attend: has the intake thread call ``rewound`` soon.
    """

    def __init__(
        self,
        *arguments: Any,
        transactions: KafkaTransactions,
        partitions: Mapping[int, Partition],
        attend: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._transactions = transactions
        self._partitions = partitions
        self._attend = attend
        self._epochs = Epochs()
        self._phase: Phase = "starting"
        self._held: list[int] = []  #: slots that are done, of an epoch whose turn has not come
        self._spilled_at: dict[int, int] = {}  #: slot -> rows done when records of others of it were written
        self._to_abort = ""  #: why; asked for by the intake thread
        self._rewound = False
        self._aborts_in_a_row = 0
        self._writes_late = False
        self._too_old_at = 0.0  #: when a transaction was last aborted for its age; time.monotonic(), as the next one
        self._began = 0.0
        self._last_look = 0.0
        self._durable = self._row_counts()

    # -- other threads ---------------------------------------------------------------------------

    def idle(self) -> bool:
        """Nothing that was read is left uncommitted, or the transaction it was in is aborted."""
        with self._lock:
            if self.aborted:
                return super().idle()
            return super().idle() and self._phase == "open" and not self._epochs.positions()

    def waits_for(self, slot: int) -> set[str]:
        """As for any; a batch of a later epoch waits for the sink, which commits the one before."""
        return super().waits_for(slot) or ({"sink"} if slot in self._held else set())

    @property
    def aborted(self) -> bool:
        """Whether partitions have to go back to their committed positions: ``rewound`` is waited for."""
        return self._phase == "aborted" and not self._rewound

    def rewound(self, epoch: int) -> None:
        """All partitions went back; what is read now is of this epoch on."""
        with self._lock:
            self._arena.set_void_below(epoch)
            self._epochs.resume(epoch)  # here: batches of this epoch may be done before the other thread looks
            self.undone.rewound()
            self._rewound = True
        self._arena.wake_done()

    def assigned(self, partitions: Sequence[int]) -> None:
        with self._lock:
            self.undone.assign(partitions)
            for partition in partitions:
                self._epochs.assign(partition)

    def settled(self, partitions: Sequence[int], timeout: float) -> bool:
        """Wait at most so many seconds until all rows of these are committed."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._holds(partitions), timeout)

    def settle_and_forget(self, partitions: Sequence[int], deadline: float) -> bool:
        """Wait until all rows of these are committed, forget them. False: the deadline came first, so they are not."""
        with self._lock:
            while self._holds(partitions) and (left := deadline - time.monotonic()) > 0:
                self._lock.wait(min(left, IDLE_WAIT_S))
            settled = not self._holds(partitions)
            if not settled:
                self._ask_to_abort("partitions were taken away before their rows were done")
                self._lock.wait_for(lambda: self._phase in ("aborted", "starting"), ABORT_WAIT_S)
            self._forget(set(partitions))
        return settled

    def forget(self, partitions: Sequence[int]) -> None:
        """They were lost: what was read of them must not be written."""
        with self._lock:
            if self._holds(partitions):
                self._ask_to_abort("the group went on without this member")
            self._forget(set(partitions))

    def commit(self, *, wait: bool) -> str:
        """Nothing: positions are committed with their transaction, or not at all."""
        return ""

    def _holds(self, partitions: Sequence[int]) -> bool:
        """Whether rows of these may be written, or are, and are not committed."""
        if self._phase in ("aborting", "aborted"):
            return False
        live = {partition for partition, _ in self._arena.live()}
        return any(partition in live or self._epochs.holds(partition) for partition in partitions)

    def _ask_to_abort(self, reason: str) -> None:
        self._to_abort = reason
        self._arena.wake_done()

    def _forget(self, partitions: set[int]) -> None:
        self.undone.forget(partitions)
        for partition in partitions:
            if not self._epochs.holds(partition):
                self._epochs.forget(partition)

    # -- this thread -----------------------------------------------------------------------------

    def _turn(self) -> None:
        self._follow()
        super()._turn()

    def _follow(self) -> None:
        """See what became of the last request, and go on from there."""
        outcome = self._transactions.outcome()
        if outcome == "committed":
            with self._lock:
                self._epochs.committed()
                self.undone.committed()
                self._lock.notify_all()
            self.counts.transactions += 1
            self._aborts_in_a_row = 0
            self._write_at_once_in_time()
            self._durable = self._row_counts()
        elif outcome == "aborted":
            self._come_to_nothing()
        if outcome in ("ready", "committed") or (self._phase == "aborted" and self._rewound):
            self._begin()
        elif self._phase == "starting" and time.monotonic() - self._last_look > IDLE_WAIT_S:
            self._last_look = time.monotonic()
            self._transactions.look_around()

    def _begin(self) -> None:
        self._transactions.begin(late=self._writes_late)
        self._began = time.monotonic()
        self._go_on()

    def _write_at_once_in_time(self) -> None:
        """A transaction was committed: write late no more, if it was quick, and it is long since one was not."""
        now, limit_s = time.monotonic(), self._transactions.timeout_s
        if now - self._began < limit_s * SHARE_OF_TIMEOUT / 2 and now - self._too_old_at > limit_s:
            self._writes_late = False

    def _go_on(self) -> None:
        """The open transaction takes what was read before."""
        epoch = self._arena.epoch
        with self._lock:
            self._phase = "open"
            self._rewound = False
            self._epochs.begin(epoch, self._arena.oldest_epoch(self._epochs.first))
            self._lock.notify_all()
        self._flow.hold_back(False)
        if not self._to_abort:
            self._take_in_held()

    def _take_in(self, slot: int) -> None:
        turn = self._epochs.turn(self._arena.epoch_of(slot))
        if turn == "never":
            self._drop(slot)
        elif turn == "later":
            self._held.append(slot)
        else:
            self._spilled_at.pop(slot, None)
            super()._take_in(slot)

    def _spilled(self, slot: int) -> None:
        turn = self._epochs.turn(self._arena.epoch_of(slot))
        if turn == "never" and slot not in self._buried_slots():
            self._arena.resume(slot)
        elif turn == "now":
            done = Journal(self._arena, slot).read()
            if self._arena.facts(slot).output_records != done.output_records:
                self._spilled_at[slot] = done.rows_done
            super()._spilled(slot)

    def _settle_positions(self, partitions: Sequence[tuple[int, int, int, int]]) -> None:
        for partition, messages, _first, next_offset in partitions:
            self._epochs.settle(partition, next_offset)
            self.undone.settle(partition, messages)

    def _have_wait(self, slot: int, facts: SlotFacts) -> tuple[int, int]:
        """A batch waits whole: should the transaction of its epoch come to nothing, so do all its rows."""
        self._arena.wait_until_due(slot)
        return 0, 0

    def _drop(self, slot: int) -> None:
        """Its rows are read again."""
        self._killed_by.pop(slot, None)
        self._sent.pop(slot, None)
        self._spilled_at.pop(slot, None)
        partitions = self._arena.partitions(slot)
        self._slots.discard_all_spooled(slot, sum(messages for _, messages, *_ in partitions))
        self._flow.dropped(slot)
        with self._lock:
            if self._arena.epoch_of(slot) >= self._epochs.first:  # else its partitions have gone back since
                for partition, messages, *_ in partitions:
                    self.undone.drop(partition, messages)
            self._arena.release(slot)
            self._lock.notify_all()

    def _take_deliveries(self) -> None:
        if self._phase != "open":
            return
        if self._transactions.unwritten and not self._pending:
            self._transactions.collect(0)
        super()._take_deliveries()

    def _ticket(self, slot: int, kind: str) -> int:
        ticket = super()._ticket(slot, kind)
        state = self._pending[slot]
        if state.spilled or state.parked:
            self._transactions.goes_on(ticket)
        return ticket

    def _bury(self) -> None:
        # Its successor would begin with rows whose records are in the transaction already.
        if self._phase == "open" and any(self._would_repeat(slot) for slot in self._buried_slots()):
            self._to_abort = "a process died after a part of its batch's records was written"
        super()._bury()

    def _would_repeat(self, slot: int) -> bool:
        """Whether records of rows that its dead holder's journal does not count as done are written."""
        return slot in self._spilled_at and Journal(self._arena, slot).read().rows_done <= self._spilled_at[slot]

    def _commit_in_time(self) -> None:
        if self._phase != "open":
            return
        if lost := self._transactions.lost():
            self._abort(lost, ours=True)
            return
        if reason := self._to_abort or self._outlasted():
            self._abort(reason, ours=False)
            return
        if overdue := self._overdue():
            # What a service behind the handler holds up goes on when the service is back.
            self._writes_late, self._too_old_at = True, time.monotonic()
            self._abort(overdue, ours=self._flow.circuit in ("", "closed"))
            return
        if self._transactions.writes_late and self._waits_for_writing():
            self._transactions.write()
        if self._pending or self._transactions.unwritten:
            return
        if (later := self._later_in_the_way()) is not None:
            self._extend(later)
            return
        epoch = self._arena.epoch
        if not self._epochs.complete(epoch, self._arena.oldest_epoch(self._epochs.first)):
            return
        with self._lock:
            positions = self._epochs.positions()
        if not positions:
            self._go_on()  # all its rows were of partitions that are gone
            return
        # The membership first: should partitions be lost from here on, it is an old one, and the broker refuses it.
        group = self._reader.group_metadata()
        if (closed := self._close()) is None:
            return
        named = [(self._partitions[index], position) for index, position in closed.items()]
        self._transactions.commit([(part.topic, part.partition, position) for part, position in named], group)

    def _close(self) -> dict[int, int] | None:
        """Nothing more comes into the open transaction: its positions. None: it was asked to abort it meanwhile."""
        with self._lock:
            if self._to_abort:
                return None
            self._phase = "committing"
            self._epochs.close()
            return self._epochs.positions()

    def _waits_for_writing(self) -> bool:
        """Whether nothing more comes into the open transaction before something of what waits is written."""
        last = self._epochs.last
        if last is None or last >= self._arena.epoch:
            return False
        if self._arena.batches(self._epochs.first, last) == len(self._pending):
            return True
        spilled = any(state.spilled for state in self._pending.values())
        return spilled and not self._moves(last)

    def _moves(self, last: int) -> bool:
        """Whether a batch up to this epoch gets on though processes wait for the output region."""
        blocked = {self._arena.facts(slot).worker for slot in self._arena.spilled()}
        bound = self._handler.ordering != "unordered"
        return self._arena.moving(self._epochs.first, last, self._pending, blocked, bound)

    def _later_in_the_way(self) -> int | None:
        """The last epoch of which a batch keeps its process from batches of the open transaction that nothing else can
        go on with; None: there is none."""
        last = self._epochs.last
        later = [self._arena.epoch_of(slot) for slot in self._arena.spilled()]
        later = [epoch for epoch in later if self._epochs.turn(epoch) == "later"]
        if last is None or not later or not self._arena.batches(self._epochs.first, last) or self._moves(last):
            return None
        return max(later)

    def _extend(self, epoch: int) -> None:
        """Let the open transaction take everything up to this epoch."""
        self._flow.hold_back(True)
        with self._lock:
            self._epochs.extend(epoch)
        self._take_in_held()

    def _take_in_held(self) -> None:
        held, self._held = self._held, []
        for slot in held:
            self._take_in(slot)

    def _outlasted(self) -> str:
        """Why the open transaction is not worth keeping: an open circuit lasts longer than that may be open."""
        last = self._epochs.last
        if not self._transactions.open_s or self._flow.circuit != "open" or last is None:
            return ""
        left_s = self._transactions.timeout_s * SHARE_OF_TIMEOUT - self._transactions.open_s
        if self._flow.circuit_pause_left_s < left_s or not self._arena.batches(self._epochs.first, last, untaken=True):
            return ""
        return (
            f"the circuit stays open for {self._flow.circuit_pause_left_s:.1f} s, and rows that wait for it would keep "
            f"the transaction open for longer than the {self._transactions.timeout_s:g} s of transaction.timeout.ms"
        )

    def _overdue(self) -> str:
        seconds, limit = self._transactions.open_s, self._transactions.timeout_s
        if seconds < limit * SHARE_OF_TIMEOUT:
            return ""
        return (
            f"it has been open for {seconds:.1f} s of the {limit:g} s of transaction.timeout.ms, because rows are not "
            "done: raise transaction_timeout_ms of the KafkaProducer, or lower batch_size"
        )

    def _abort(self, reason: str, *, ours: bool) -> None:
        """Undo the open transaction. ``ours``: for a reason that may come again, so not for ever."""
        self._aborts_in_a_row += ours
        if self._aborts_in_a_row > MAX_ABORTS_IN_A_ROW:
            raise SinkError(
                f"handler {self._handler.name!r}: {MAX_ABORTS_IN_A_ROW} transactions in a row were aborted, and "
                f"nothing is gained by another one; the last one: {reason}"
            )
        self._log(
            f"{self._handler.name}: transaction of {self._transactions.transactional_id} is aborted: {reason}; "
            "its rows are read again"
        )
        self._stop_taking_in()
        self._transactions.abort()

    def _stop_taking_in(self) -> None:
        with self._lock:
            self._phase = "aborting"
            self._epochs.abort()
            self.undone.abort()
            self._arena.set_void_below(None)
            self._lock.notify_all()
        held, self._held = self._held, []
        for slot in held:
            self._drop(slot)

    def _come_to_nothing(self) -> None:
        """The transaction is aborted: librdkafka looks at no record any more, so the slots can be given up."""
        self._stop_taking_in()  # where it was the commit that failed
        self.counts.transactions_aborted += 1
        for ticket in self._ticket_slot:
            self._ticket_slot[ticket] = ABORTED
        pending, self._pending = self._pending, {}
        for slot, state in pending.items():
            if not state.spilled:
                self._drop(slot)
            elif slot not in self._buried_slots():
                self._arena.resume(slot)
        self._spilled_at.clear()
        for name, value in self._durable.items():
            setattr(self.counts, name, value)
        self._to_abort = ""
        with self._lock:
            self._phase = "aborted"
            self._lock.notify_all()
        self._attend()

    def _row_counts(self) -> dict[str, int]:
        return {name: getattr(self.counts, name) for name in _ROW_COUNTS}
