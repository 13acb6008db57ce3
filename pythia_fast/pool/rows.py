"""RowKeeper: sees to it that every row of a batch is handled, or given up with a reason.

The batch is given to the handler whole. What then is not done is handled in parts of it, decoded again from
the payloads that the slot keeps:

    raised              on_error="isolate": the rows that raise are searched by halves, in their order
    returned what is    no table, columns of unequal length, more or fewer rows than it got, or marked rows by what is
    no result           no mask: those rows are given up together, since with fewer of them the same code may return
                        what only looks right
    returned what       on_error="isolate": that row is left out of what is sent on, if it is known which row a record
    cannot be encoded   is of (output_rows="same"); else as if the handler had raised, before anything is sent on
    asked for retry,    those rows, when the others are done, while attempts are left: at once, or after a backoff, and
    or retry_on=        then the batch waits in its slot while others are handled (pool/waiting.py)
    behind such rows    in an ordered lane, where they were not of the same call: after those
    too wide            the rows' columns do not fit the slot all at once (defaults can make a row much larger than
                        its payload): in memory of their own, in halves where that exceeds 2 GiB
    raised what the     those rows, and all that were not handled yet, when the circuit breaker lets them pass; at their
    breaker expects     last attempt they are searched as others that raise (pool/calls.py)
    killed its holder   in parts (pool/parts.py), each noted in the slot's journal before it is begun and when it is
                        done, so that the next holder begins there and knows which rows killed this one

Everything that is given up goes to the dead letters with its reason (pool/outcome.py); nothing is tried for ever.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from pythia_fast._ext.batch_memory import BatchMemory, ColumnTooLargeError, decode_rows
from pythia_fast._ext.journal import Journal
from pythia_fast._ext.part_memory import PartMemory
from pythia_fast._ext.ring import monotonic_ns
from pythia_fast.batch import Batch
from pythia_fast.error_text import traceback_of
from pythia_fast.errors import NoSinkError, OutputValueError, PartlySentError, ResultError
from pythia_fast.pool.call_clock import CallClock
from pythia_fast.pool.calls import Calls, Doubt
from pythia_fast.pool.crash_text import quit_process
from pythia_fast.pool.exception_types import is_named
from pythia_fast.pool.forked import leave_if_forked
from pythia_fast.pool.kept_views import detach_kept
from pythia_fast.pool.limits import has_no_descriptor
from pythia_fast.pool.notes import DIED
from pythia_fast.pool.outcome import Outcome, grouped
from pythia_fast.pool.parts import Suspects, convicted, parts_to_go
from pythia_fast.pool.records import RecordWriter
from pythia_fast.pool.registry_wait import RegistryWait
from pythia_fast.pool.rounds import by_given, note
from pythia_fast.pool.search import Search
from pythia_fast.pool.waiting import LanesInHand, LanesThatWait, Remainder, WaitingRows

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.handlers import HandlerCall
    from pythia_fast.pool.calls import Found
    from pythia_fast.registration import Handler

RETRY_ON = "RetryPolicy(retry_on=)"
RowIndices = npt.NDArray[np.uint32]


@dataclass(slots=True)
class _Held:
    """The batch in hand: its slot, its memory, and what has become of its rows."""

    slot: int
    memory: BatchMemory
    lanes: LanesInHand
    outcome: Outcome = field(default_factory=Outcome)
    waiting: WaitingRows | None = None  #: the notes of rows that are handled again later; None: none are
    noted: list[tuple[RowIndices, int]] = field(default_factory=list)  #: rows for them, and times they were given
    journaled: bool = False  #: what is done is written down, row by row
    calls: Calls | None = None  #: for the circuit breaker; None: there is none
    tries_again: bool = False  #: rows that were handled in this round are handled again, as retry= says
    behind_due_ns: int = 0  #: when rows that wait for others are looked at again; 0: none do
    #: When the round would have been due, if it began before that: its failed attempts do not count. 0: it did not.
    early_due_ns: int = 0

    def rows(self, rows: RowIndices | None) -> RowIndices:
        return np.arange(self.memory.rows, dtype=np.uint32) if rows is None else rows

    def may_try_again(self, attempt: int, most: int) -> bool:
        """Whether there is another attempt for rows whose ``attempt``-th one failed."""
        return attempt < most or self.early_due_ns > 0


class RowKeeper:
    """One pool process' way with batches; holds no state between two of them."""

    def __init__(self, handler: Handler, arena: Arena, call: HandlerCall, worker: int) -> None:
        self._handler = handler
        self._arena = arena
        self._pid = os.getpid()
        self._offsets = arena.offsets
        self._decoder = handler.decoding.native(RegistryWait(handler.name))
        self._clock = CallClock(arena, worker, watched=handler.batch_deadline is not None)
        self._writer = RecordWriter(handler, arena, call, self._clock)
        self._parts: PartMemory | None = None  #: made when a batch is first handled in parts
        self._retry = handler.retry
        self._by_key = None if handler.ordering == "unordered" else handler.ordering == "key"
        waits = handler.parks and self._by_key is not None
        self._lanes_that_wait = LanesThatWait(arena, by_key=bool(self._by_key)) if waits else None

    def handle(self, slot: int) -> Outcome:
        fits = self._arena.decode(slot, self._decoder)
        rows = self._arena.rows(slot)
        if rows == 0:
            return Outcome()
        memory = self._memory(slot)
        held = _Held(slot, memory, LanesInHand(memory, self._by_key))
        if self._handler.parks:
            held.waiting = WaitingRows(self._arena, slot, rows)
            held.early_due_ns = held.waiting.early_due_ns
            if self._handler.breaker is not None and held.waiting.may_wait:
                early = held.early_due_ns > 0
                held.calls = Calls(self._handler.breaker, self._arena, self._retry.max_attempts, early=early)
        behind = self._hold_behind_earlier(held)
        if self._arena.crashes(slot) or self._arena.round(slot) > 1:
            self._go_on(held)
        else:
            whole = fits and not behind and not (held.calls is not None and held.calls.is_small_probe)
            self._handle_some(held, None if whole else held.rows(None), 0)
            if held.noted and held.waiting is not None:
                held.waiting.settle(held.rows(None), held.noted)
        outcome = held.outcome
        if not outcome.notes.stop:
            outcome.notes.kept = detach_kept(self._arena, slot, memory)
            outcome.due_ns = self._due_ns(held)
        if held.calls is not None:
            held.calls.report(outcome.notes)
        self._clock.stop()
        return outcome

    def _due_ns(self, held: _Held) -> int:
        """When the rows go on that were noted; 0: none were."""
        if held.waiting is None or not (held.noted or held.journaled):
            return 0
        given = held.waiting.left
        if not len(given):
            return 0
        if held.calls is not None and held.calls.left_rows and not held.tries_again:
            return 1
        if held.early_due_ns:
            return held.early_due_ns
        if held.calls is not None and held.calls.wait_ns:
            return monotonic_ns() + held.calls.wait_ns
        tried = given[given > 0]
        if not len(tried):
            return held.behind_due_ns or 1  # a holder that died noted them: they are due
        return monotonic_ns() + int(self._retry.wait_s(int(tried.max())) * 1e9)

    def _hold_behind_earlier(self, held: _Held) -> bool:
        """Hold the lanes in which rows of earlier batches wait to be handled again; whether there are rows in them."""
        if self._lanes_that_wait is None:
            return False
        found = self._lanes_that_wait.behind(held.slot, held.memory, self._memory)
        if found is None:
            return False
        behind, held.behind_due_ns = found
        held.lanes.hold(np.flatnonzero(behind).astype(np.uint32))
        return True

    def _memory(self, slot: int) -> BatchMemory:
        at = self._offsets
        return BatchMemory(
            self._arena.layout,
            self._arena.slot_address(slot),
            self._arena.rows(slot),
            self._arena.rows_at(slot),
            at["status"],
            at["raw"],
            self._arena.raw_bytes,
        )

    # -- after a death ---------------------------------------------------------------------------

    def _go_on(self, held: _Held) -> None:
        """Go on where the dead holder's journal ends, or begin a later round; what is done is written down."""
        held.journaled = True
        todo = held.rows(None) if held.waiting is None else held.waiting.takes_part
        journal = Journal(self._arena, held.slot)
        done = journal.read()
        held.outcome = Outcome.so_far(done, self._errors(held.slot, done.error_half))
        if held.waiting is not None:
            held.lanes.hold(held.waiting.noted(todo[: done.rows_done]))
        end = min(max(done.suspect_end, done.rows_done), len(todo))
        suspects = Suspects(done.rows_done, end, done.deaths, done.deaths_before)
        if convicted(suspects):
            guilty = todo[suspects.begin : suspects.end]
            deaths = done.deaths_before + done.deaths
            held.outcome.give_up("killed", guilty, DIED, deaths)
            self._commit(held, journal, guilty, suspects.end)
        died = self._arena.crashes(held.slot) > 0
        calls, most = held.calls, self._handler.batch_size
        if calls is not None:
            calls.most = journal.most_rows
            calls.by_parts = suspects.end > suspects.begin or (calls.most > 0 and not calls.is_small_probe)
            most = min(most, calls.most) if calls.by_parts and calls.most else most
        parts = parts_to_go(suspects, len(todo), held.outcome.killed, most, died=died)
        for part in parts:
            answers = calls.answers if calls is not None else 0
            rows = todo[part.begin : part.end]
            again = (part.begin, part.end) == suspects[:2]
            in_hand = calls.rows_of_probe(part.end - part.begin) if calls is not None else 0
            journal.begin(part.end, part.deaths_before, in_hand)
            self._handle_some(held, rows, part.deaths_before + (suspects.deaths if again else 0))
            if held.outcome.notes.stop:
                break
            self._commit(held, journal, rows, part.end)
            if calls is not None and held.waiting is not None:
                calls.part_ended(answers)
                held.lanes.hold(held.waiting.noted(rows))  # no later part may pass those that met an outage
            if part is not parts[-1] and self._writer.nearly_full(held.outcome.output):
                # Between two parts: should the next one kill, all that was sent on is of rows that are done.
                self._writer.spill(held.slot, held.outcome.output)
        held.outcome.error_half = 1 - held.outcome.error_half  # the final notes leave those that count alone, too

    def _commit(self, held: _Held, journal: Journal, rows: RowIndices, rows_done: int) -> None:
        """The rows, up to ``rows_done``, are done, or noted for the next round."""
        outcome = held.outcome
        if held.waiting is not None:
            note(held.waiting, self._arena.round(held.slot), rows, held.noted)
            held.noted.clear()
        outcome.write(journal, rows_done, self._errors(held.slot, 1 - outcome.error_half))

    def _errors(self, slot: int, half: int) -> memoryview:
        size = self._offsets["errors_bytes"]
        return self._arena.view(slot, self._offsets["errors"] + half * size, size)

    # -- rows in the handler's hands ---------------------------------------------------------------

    def _handle_some(self, held: _Held, rows: RowIndices | None, deaths: int) -> None:
        """Handle rows that take part in this round, but for those behind others that wait. None: all of the batch, in
        the slot's own columns, with no row that waits before them.

        ``deaths``: holders that died with them in hand.
        """
        if rows is None:
            self._handle_rows(held, None, deaths, 0)
            return
        groups = [(rows, 0)] if held.waiting is None else by_given(held.waiting, held.lanes, rows)
        if held.calls is not None and held.calls.is_small_probe:
            groups = self._part_to_try(held, held.calls, groups)
        for some, given in groups:
            ready, behind = held.lanes.part(some)
            if len(behind):
                held.noted.append((behind, given))
            if len(ready):
                self._handle_rows(held, ready, deaths, given)

    @staticmethod
    def _part_to_try(held: _Held, calls: Calls, groups: list[tuple[RowIndices, int]]) -> list[tuple[RowIndices, int]]:
        """The part of the rows that a small probe tries; all others are noted, at no cost of an attempt."""
        if calls.tried:
            held.noted += groups
            return []
        ready = []
        for some, given in groups:
            rows, behind = held.lanes.part(some)
            held.noted += [(behind, given)] if len(behind) else []
            ready += [(rows, given)] if len(rows) else []
        if not ready:
            return []
        number, chosen = calls.part_of([rows for rows, _ in ready], held.lanes)
        part, given = ready[number][0][chosen], ready[number][1]
        ready[number] = np.delete(ready[number][0], chosen), given
        held.noted += [(rows, times) for rows, times in ready if len(rows)]
        return [(part, given)]

    def _handle_rows(self, held: _Held, rows: RowIndices | None, deaths: int, attempt: int) -> None:
        """Handle rows until each is done, given up, or noted for the next round. None: all of them.

        ``deaths``, ``attempt``: times that they were given to the handler, by holders that died and by others.
        """
        todo = [(rows, attempt)]  # the last ones come first
        while todo:
            rows, attempt = todo.pop()
            left = self._round(held, rows, deaths, attempt + 1)
            if held.outcome.notes.stop:
                return
            rest = left.rest(attempt, early=held.early_due_ns > 0)
            waits = held.early_due_ns or (self._retry.waits and held.waiting is not None and held.waiting.may_wait)
            if rest and waits:
                held.noted += rest
                held.tries_again = True
                left.hold()
            elif rest:
                left.release()
                todo += rest

    def _round(self, held: _Held, rows: RowIndices | None, deaths: int, attempt: int) -> Remainder:
        """Handle rows once each, as far as they do not raise; what is left of them."""
        left = Remainder(held.lanes)
        given = deaths + attempt

        def call(some: RowIndices | None) -> BaseException | None:
            if held.calls is not None and held.calls.outage:
                held.noted.append((held.rows(some), held.calls.left_out(attempt)))
                return None
            error = self._call(held, some, given, attempt, left)
            if held.calls is not None and held.calls.ended(error):
                if held.calls.used_up(attempt):
                    return error
                held.noted.append((held.rows(some), held.calls.spent(attempt)))
                return None
            again = held.may_try_again(attempt, self._retry.max_attempts)
            sent = isinstance(error, PartlySentError)
            if again and not sent and is_named(error, self._retry.retry_on, RETRY_ON):
                left.retry(held.rows(some))
                return None
            if _is_no_result(error) and self._handler.on_error != "stop":
                held.outcome.fail(held.rows(some), error, given)
                return None
            return error

        def call_ready(some: RowIndices) -> BaseException | None:
            ready = left.ready(some)
            return call(ready) if len(ready) else None

        error = call(rows)
        if error is not None:
            every = held.rows(rows)
            if self._stops(error, held):
                return left
            if self._handler.on_error == "dead_letter" or len(every) == 1:
                held.outcome.fail(every, error, given)
            else:
                last_of_some = 1 < attempt == self._retry.max_attempts
                left.one_more = last_of_some and is_named(error, self._retry.retry_on, RETRY_ON)
                self._isolate(held, every, given, attempt, call_ready)
        return left

    def _isolate(self, held: _Held, rows: RowIndices, given: int, attempt: int, call: Any) -> None:
        """Find the rows that raise, and handle the others."""
        search: Search[BaseException] = Search(len(rows))
        doubt = Doubt(held.calls, attempt) if held.calls is not None else None
        while (span := search.next()) is not None:
            error = call(rows[span[0] : span[1]])
            if error is not None and self._stops(error, held):
                return
            found = search.tell(error)
            if doubt is not None:
                self._fail_each(held, rows, doubt.told(error, found), given)
            elif found is not None:
                self._fail_each(held, rows, [found], given)
        if held.calls is not None and doubt is not None:
            self._fail_each(held, rows, doubt.ended(), given)
            if doubt.waiting:
                held.noted.append((rows[doubt.waiting], held.calls.left_out(attempt)))

    @staticmethod
    def _fail_each(held: _Held, rows: RowIndices, found: Iterable[Found], given: int) -> None:
        for row, cause in found:
            held.outcome.fail(rows[row : row + 1], cause, given)

    def _call(
        self, held: _Held, rows: RowIndices | None, given: int, attempt: int, left: Remainder
    ) -> BaseException | None:
        """Give rows to the handler once: what it raised, or None, and then they are done but for those in ``left``."""
        try:
            memory = held.memory if rows is None else self._decode(held, rows, given - 1)
        except (ColumnTooLargeError, MemoryError) as error:
            return error
        batch: Batch[Any] = Batch(memory, self._handler.decoding, self._arena.partition_name)
        outcome = held.outcome
        outcome.retried += memory.rows if given > 1 else 0
        try:
            faults = self._writer.call_and_write(held.slot, batch, outcome.output)
        except BaseException as error:  # sys.exit() too is one batch's misfortune, not the end of the process
            leave_if_forked(self._pid, error)
            if isinstance(error, MemoryError):
                quit_process("memory", error)  # and the batch is handled again, in parts
            traceback.clear_frames(traceback_of(error))  # its frames hold views of the batch
            batch.close()  # whoever kept it must not read the batches that come to lie there
            if has_no_descriptor():
                quit_process("descriptors", error)  # the same: every call to come might fail of it
            return error
        if faults or batch.marked:
            self._take_marks(held, held.rows(rows), batch, faults, given, attempt, left)
        batch.close()
        return None

    def _decode(self, held: _Held, rows: RowIndices, attempts: int) -> BatchMemory:
        self._clock.stop()
        try:
            if self._parts is None:
                arena = self._arena
                self._parts = PartMemory(self._handler.decoding.plan, arena.capacity, arena.raw_bytes)
            try:
                memory = self._parts.decode(held.memory, self._decoder, rows, attempts)
            except MemoryError as error:
                quit_process("memory", error)  # no fault of these rows: any others of them take as much
            return memory if memory is not None else decode_rows(held.memory, self._decoder, rows, attempts)
        finally:
            self._clock.start()  # what it raises is compared with exceptions that the user names

    def _take_marks(
        self,
        held: _Held,
        rows: RowIndices,
        batch: Batch[Any],
        faults: list[OutputValueError],
        given: int,
        attempt: int,
        left: Remainder,
    ) -> None:
        """Give up the rows that the handler rejected, or returned something for that cannot be sent on."""
        for same in grouped(faults):
            faulty = rows[[fault.row for fault in same]]
            more = f" (and {len(same) - 1} more rows of the batch)" if len(same) > 1 else ""
            held.outcome.give_up("failed", faulty, f"{same[0]}{more}", given, type(same[0]).__name__)
        for indices, reason in batch.rejected:
            held.outcome.give_up("rejected", rows[indices], reason, given)
        wanted = rows[batch.retried]
        if not len(wanted):
            return
        most = self._retry.max_attempts
        if left.one_more or held.may_try_again(attempt, most):
            left.retry(wanted)
            return
        reason = f"the handler asked for another attempt after {attempt} of {most}"
        if attempt > most:
            reason += "; a call that raises, for whatever row, costs all of its rows an attempt"
        held.outcome.give_up("failed", wanted, reason, given)

    def _stops(self, error: BaseException, held: _Held) -> bool:
        """Whether the exception ends the run: then it is noted as its end."""
        if self._handler.on_error != "stop" and not isinstance(error, NoSinkError):
            return False
        held.outcome.stop(error)
        return True


def _is_no_result(error: BaseException | None) -> TypeGuard[ResultError]:
    return isinstance(error, ResultError) and not isinstance(error, OutputValueError)
