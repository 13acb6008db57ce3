"""HandlerRun: one handler while it runs: its arena, its source, its sinks, and its two threads, which have modules of
their own: reading.py and completion.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pythia_fast._ext import gather
from pythia_fast._ext.intake import Intake
from pythia_fast._ext.journal import Journal
from pythia_fast._ext.ring import Arena
from pythia_fast.brokers.base import Partition, Publisher, PublisherContext, Reader, ReaderContext
from pythia_fast.errors import ConfigError
from pythia_fast.observer import FlowState
from pythia_fast.pool.identity import HandlerIdentity
from pythia_fast.pool.messages import ArenaShape
from pythia_fast.pool.obituary import Obituary
from pythia_fast.pool.parts import Suspects, convicts_next
from pythia_fast.pool.restart_budget import Found
from pythia_fast.report import Flow, HandlerReport
from pythia_fast.runtime.completion import READ_AGAIN, Counts
from pythia_fast.runtime.dead_letter import DeadLetterWriter, default_files
from pythia_fast.runtime.flow import FlowControl
from pythia_fast.runtime.reading import Reading
from pythia_fast.runtime.slot_plan import plan_slots, slot_bytes, slot_rows
from pythia_fast.runtime.slots import SlotReader
from pythia_fast.runtime.spool import Spool
from pythia_fast.runtime.standing import Standing
from pythia_fast.runtime.transaction_parts import completion_maker, open_transactions

if TYPE_CHECKING:
    from pythia_fast.registration import Handler
    from pythia_fast.runtime.completion import Completion

#: Seats of spares in the arena, for each that is kept: one may be taken by a process that is just being seated.
SEATS_A_SPARE = 3
CLOSE_TIMEOUT_S = 10.0
PLACED_RECORD_BYTES = 8192  #: more than a record takes beside key, headers and payload: a topic's name, sizes, numbers
GIVE_UP_S = 0.5  #: the same after a run that gave up on what it had read: its last records come again anyhow


class HandlerRun:
    """Made with its arena before the pool exists; ``open`` connects, ``start`` runs, ``close`` undoes both."""

    def __init__(
        self,
        handler: Handler,
        *,
        pool: int,
        workers: int,
        app: str,
        until: Literal["end", "forever"],
        state_dir: Path,
        connect_timeout: float | None,
        log: Callable[[str], None],
        hurried: Callable[[], bool],
        drain_timeout: float,
        memory_bytes: int,
    ) -> None:
        self.handler = handler
        self.pool = pool
        self.workers = workers
        self.failure: BaseException | None = None
        self._app = app
        self._until = until
        self._state_dir = state_dir
        self._connect_timeout = connect_timeout
        self._log = log
        self._hurried = hurried
        self._reader: Reader | None = None
        self._partitions: dict[int, Partition] = {}
        #: slot -> (batch, rows of it handled, rows in hand) at the last death there
        self._handled: dict[int, tuple[int, int, int]] = {}
        holds = handler.transactions is not None
        capacity = slot_rows(handler.batch_size, gathers=handler.parks and not holds)
        one_slot = slot_bytes(capacity, handler.max_batch_bytes, len(handler.decoding.schema.columns))
        plan = plan_slots(workers, one_slot, waits=handler.parks, memory_bytes=memory_bytes, holds=holds)
        if plan.bytes > memory_bytes:  # only what is written takes memory, so it may go well all the same
            log(
                f"{handler.name}: its {plan.slots} batches take up to {plan.bytes // 10**6:,} MB of shared memory when "
                f"they are full, and {memory_bytes // 10**6:,} MB are meant for it, half of what this machine or "
                "container has; lower batch_size, max_batch_bytes or workers"
            )
        self._shape = {
            "capacity": capacity,
            "raw_bytes": handler.max_batch_bytes,
            "n_workers": workers,
            "credit": plan.credit,
            "n_slots": plan.slots,
            "output_bytes": output_bytes(handler),
            "n_spares": handler.spares * SEATS_A_SPARE,
        }
        self.arena = Arena(handler.decoding.plan, **self._shape)
        self._flow = FlowControl(handler, self.arena, bounded=until == "end", admit=self._admit, log=log)
        self._rate_waits = 0  #: as last looked at
        self._completion: Completion | None = None
        self._intake: Intake | None = None
        self._sink: Publisher | None = None
        self._dead_letters: DeadLetterWriter | None = None
        self._standing: Standing | None = None
        self._opened = ExitStack()
        self._closed = False
        self._reading = Reading(
            handler, self.arena, self._partitions, drain_timeout=drain_timeout, fail=self._fail, log=log
        )

    @property
    def finished(self) -> bool:
        """Whether the source ended or was stopped, and everything is settled and committed."""
        return self._reading.finished

    @property
    def at_rest(self) -> bool:
        """Finished, or nothing of what is left would be done by the drain deadline."""
        return self.finished or self._reading.left_over

    @property
    def counts(self) -> Counts:
        return self._completion.counts if self._completion is not None else Counts()

    def arena_shape(self, columns_bytes: int) -> ArenaShape:
        """What a new interpreter maps the arena by; ``columns_bytes``: how much may be told of the columns."""
        identity = HandlerIdentity.of(self.handler, columns_bytes)
        return ArenaShape(handler=identity, fd=self.arena.fd, **self._shape)

    def booted(self) -> bool:
        return all(self.arena.worker_facts(worker).booted for worker in range(self.workers))

    # -- life ----------------------------------------------------------------------------------

    def open(self, launch: Callable[[int, int], None]) -> None:
        """Open sinks, dead letters and the source, in this order: what is read can go somewhere."""
        handler = self.handler
        refuse_own_output(handler)
        context = PublisherContext(self._app, handler.name, self._state_dir, self._log, self._connect_timeout)
        opened = self._opened
        spool = Spool(self._state_dir, handler.name, self._log)
        opened.callback(spool.close)
        self._spool_dir = spool.folder
        transactions = open_transactions(handler, context, opened, self.arena.wake_done)
        letters = transactions.dead_letters if transactions is not None else None
        self._dead_letters = DeadLetterWriter(handler.dead_letter, context, letters)
        opened.callback(self._close_publisher, self._dead_letters)
        if transactions is not None:
            self._sink = transactions.sink
        elif handler.sink is not None:
            self._sink = handler.sink.open(context)
            opened.callback(self._close_publisher, self._sink)
        self._reader = handler.source.open(
            ReaderContext(
                app=self._app,
                handler=handler.name,
                state_dir=self._state_dir,
                until=self._until,
                batch_size=handler.batch_size,
                batch_timeout=handler.batch_timeout,
                max_payload_bytes=handler.max_batch_bytes,
                listener=self._reading,
                log=self._log,
                connect_timeout=self._connect_timeout,
                rows_in_hand=handler.batch_size * (self._shape["credit"] * self.workers + 1),
                written=self._dead_letters.files() | (self._sink.files() if self._sink is not None else frozenset()),
                letters=tuple(default_files(self._state_dir, handler.name)),
                hurried=self._hurried,
            )
        )
        opened.callback(self._reader.close)
        self._completion = completion_maker(transactions, self._partitions, self._attend)(
            handler,
            self.arena,
            self._reader,
            self._sink,
            self._dead_letters,
            slots=SlotReader(self.arena, handler, self._partitions, self._spool_dir),
            flow=self._flow,
            launch=lambda worker: launch(self.pool, worker),
            wake_intake=self._wake_intake,
            fail=self._fail,
            log=self._log,
        )
        self._intake = Intake(
            self.arena,
            handler.decoding.native(),
            self._reader.limit or self._reader.native,
            ordering=handler.ordering,
            batch_rows=handler.batch_size,
            linger_ns=int(handler.batch_timeout * 1e9),
            spool_dir=self._spool_dir,
            max_payload_bytes=handler.max_batch_bytes,
            rows_per_s=handler.rate_limit or 0.0,
            epoch_ns=int(handler.transactions.interval_s * 1e9) if handler.transactions is not None else 0,
        )
        self._standing = Standing(
            handler,
            self.arena,
            reader=self._reader,
            intake=self._intake,
            completion=self._completion,
            flow=self._flow,
            sink=self._sink,
            dead_letters=self._dead_letters,
            partitions=self._partitions,
            spool_trouble=self._reading.spool_trouble,
        )

    def start(self) -> None:
        assert self._reader is not None
        assert self._completion is not None
        assert self._intake is not None
        self._completion.start()
        self._reading.start(self._reader, self._completion, self._intake, self._spool_dir)

    @property
    def started(self) -> bool:
        return self._reading.started

    def stop(self) -> None:
        """Read no more; what was read is finished, and what waits to be handled again is due now."""
        self._reading.stop()

    def _attend(self) -> None:
        if self._intake is not None:
            self._intake.attend()

    def _wake_intake(self) -> None:
        if self._intake is not None:
            self._intake.wake()

    def _admit(self, gate: int) -> None:
        assert self._intake is not None
        self._intake.admit(gate)

    def died(self, worker: int, obituary: Obituary) -> None:
        """A pool process of this handler, which has been started, is dead."""
        assert self._completion is not None
        self._completion.post_death(worker, obituary)

    def found_by_death(self, worker: int) -> tuple[Found, bool]:
        """(what the death of this place's process tells about its rows, whether it had handled any since the last one).

        To be asked before ``died``: then the slot is the dead process's own still, and nobody writes it.
        """
        slot = self.arena.slot_in_hand(worker)
        if slot is None:
            return "nothing", False
        progress = Journal(self.arena, slot).read()
        batch = self.arena.facts(slot).batch
        handled = progress.rows_done - progress.killed
        before = self._handled.get(slot, (0, 0, 0))
        known = before[0] == batch
        in_hand = progress.suspect_end - progress.rows_done
        self._handled[slot] = batch, handled, in_hand
        more = handled > (before[1] if known else 0)
        if not progress.suspect_end:
            return "part" if self.arena.crashes(slot) == 0 else "nothing", more
        suspects = Suspects(progress.rows_done, progress.suspect_end, progress.deaths, progress.deaths_before)
        if convicts_next(suspects):
            return "row", more
        # A round that ends before the row is found begins the search anew, with all rows: that may go on for ever.
        return "nothing" if known and in_hand >= before[2] > 0 else "part", more

    def close(self, *, at_once: bool = False) -> None:
        """Stop both threads, whatever is left; commit what is settled; close everything. May be called again.

        ``at_once``: wait for no broker to confirm the commit.
        """
        if self.started and self._completion is not None:
            self._reading.give_up()
            self._completion.finish()
            if not self.at_rest and not self._closed:  # else it has been tried
                self._commit_what_is_settled(wait=not at_once)
        self._closed = True
        self._opened.close()

    def _close_publisher(self, publisher: Publisher | DeadLetterWriter) -> None:
        publisher.close(CLOSE_TIMEOUT_S if self.at_rest else GIVE_UP_S)

    def _commit_what_is_settled(self, *, wait: bool) -> None:
        assert self._completion is not None
        try:
            if trouble := self._completion.commit(wait=wait):
                self._log(f"{trouble}; {READ_AGAIN}")
        except Exception as error:
            self._log(f"{self.handler.name}: the last commit failed, so some rows will be read again: {error}")

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error

    def pause_by_hand(self, paused: bool) -> bool:
        """Read nothing more, or go on; whether that is news. Any thread."""
        changed = self._flow.pause_by_hand(paused)
        self.arena.wake_done()
        return changed

    # -- what an observer sees -----------------------------------------------------------------

    def progress(self) -> tuple[int, int] | None:
        if self._reader is None:
            return None
        limit = self._reader.limit
        return (limit.taken, limit.most) if limit is not None else self._reader.progress()

    def trouble(self) -> list[str]:
        waiting = (self._sink, self._dead_letters)
        sentences = [part.trouble() for part in waiting if part is not None]
        return [f"{self.handler.name}: {sentence}" for sentence in (*sentences, *self._flow.trouble) if sentence]

    def oldest_incomplete_s(self) -> float:
        """Age of the oldest row taken in and not completed; 0: there is none."""
        return self._standing.oldest_s() if self._standing is not None else 0.0

    def tell_stalls(self, now_s: float) -> None:
        """Log what gets nowhere, when that is due. About once a second."""
        if self._standing is not None and not self.at_rest:
            for line in self._standing.look(now_s):
                self._log(line)

    def rows_waiting(self) -> int:
        """Rows that wait for their next attempt."""
        return gather.waiting(self.arena).rows if self.handler.parks else 0

    def flow(self) -> FlowState:
        """Whether the source is read; "rate limited": some batch had to wait for that since this was last asked."""
        waits = self._intake.rate_waits if self._intake is not None else 0
        limited = waits > self._rate_waits
        self._rate_waits = waits
        state = self._flow.state
        shown: Flow = "rate limited" if limited and state == "open" else state
        return FlowState(self.handler.name, shown, self._flow.circuit)

    def unfinished(self) -> int:
        if self._intake is None:
            return 0
        others = self._completion.undone.of_others if self._completion is not None else 0
        return max(0, self._intake.messages - self._reading.aborted_messages - others - self.counts.rows)

    def report(self) -> HandlerReport:
        counts = self.counts
        sink = self.handler.sink
        unread = self._reader.unread() if self._reader is not None else ()
        return HandlerReport(
            name=self.handler.name,
            source=self.handler.source.describe(),
            sink=sink.describe() if sink is not None else "",
            dead_letters=self._dead_letters.places if self._dead_letters is not None else (),
            workers=self.workers,
            rows=counts.rows,
            batches=counts.batches,
            bytes=counts.bytes,
            rejected=counts.rejected,
            dead_lettered=counts.dead_lettered,
            retried=counts.retried,
            refused=counts.refused,
            tombstones_skipped=counts.tombstones_skipped,
            unread_bytes=sum(part.bytes for part in unread),
            unread=tuple(part.line for part in unread),
            left_to_others=tuple(self._reader.left_to_others()) if self._reader is not None else (),
            crashes=counts.crashes,
            recycled=counts.recycled,
            oldest_incomplete_s=self.oldest_incomplete_s(),
            longest_incomplete_s=self._standing.longest_s if self._standing is not None else 0.0,
            pauses=self._flow.pauses,
            paused_seconds=self._flow.paused_s,
            transactions=counts.transactions,
            transactions_aborted=counts.transactions_aborted,
            flow=self._flow.state,
            circuit=self._flow.circuit,
        )


def output_bytes(handler: Handler) -> int:
    """Room for the records of a batch. One message that is handed on as it came fits, with where it came from."""
    if handler.sink is None:
        return 4096
    return handler.max_batch_bytes + (PLACED_RECORD_BYTES if handler.decoding.name == "verbatim" else 0)


def refuse_own_output(handler: Handler) -> None:
    """Refuse a sink that would write to a file of the handler's own source, before it opens that file.

    Raises ConfigError.
    """
    sinks = {"sink": handler.sink, "dead_letter": handler.dead_letter}
    written = {name: path for name, sink in sinks.items() if sink is not None and (path := sink.file()) is not None}
    for name, path in written.items():
        for read in handler.source.files() if os.path.exists(path) else []:
            if os.path.exists(read) and os.path.samefile(read, path):
                raise ConfigError(
                    f"handler {handler.name!r}: its {name} is {path}, which its source reads, so that it would feed "
                    "itself: write to a file that the source does not match"
                )
