"""No position is committed beyond a row that is not done, whatever happens to batches: the real arena, intake, gather.h
tracker and completion thread's code, turn by turn; the test plays the pool and the broker.

What is done is not asked of any of these: a row is done once a sink has what became of it.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pythia_fast import App, MemoryConsumer, MemoryProducer
from pythia_fast._ext.intake import ATTENTION, Intake
from pythia_fast._ext.raw_decoder import RawDecoder
from pythia_fast._ext.ring import monotonic_ns
from pythia_fast.batch import MESSAGE
from pythia_fast.brokers.base import Partition, PublisherContext
from pythia_fast.brokers.framing import frame_record
from pythia_fast.pool.notes import Notes, RowErrors, write_notes
from pythia_fast.pool.obituary import Obituary
from pythia_fast.runtime.completion import Completion
from pythia_fast.runtime.dead_letter import DeadLetterWriter
from pythia_fast.runtime.flow import FlowControl
from pythia_fast.runtime.slots import SlotReader
from tests.support.ring_feed import make_arena

WORKERS, CAPACITY, PARTITIONS = 2, 4, 8
WAIT_NS = 20_000_000
FREE, READY, HELD, DONE, OUTPUT_FULL, PARKED, WAITING = 0, 2, 3, 4, 5, 6, 7
FATES = ("done", "done", "given up", "waits")


#: All alike, so that a batch may be done while one before it waits for the other sink, or of every kind.
fates_of_a_batch = st.one_of(
    st.sampled_from([["done"] * CAPACITY, ["given up"] * CAPACITY]),
    st.lists(st.sampled_from(FATES), min_size=CAPACITY, max_size=CAPACITY),
)


class Broker:
    """The reader as the completion thread knows it: takes commits, and looks at each."""

    acknowledges_rows = False
    commit_interval_s = 0.0
    commit_failed = False

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def commit(self, positions, *, wait):
        for partition, position in positions.items():
            assert partition in self.stream.assigned, "a position of a partition that is another's"
            missing = set(range(position)) - self.stream.done(partition)
            assert not missing, f"partition {partition}: {position} committed over {sorted(missing)}"
            self.stream.committed[partition] = position
        return ""


class Stream(RuleBasedStateMachine):
    """Two partitions at a time; each that is assigned is a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.source, self.sink, self.dead = (
            MemoryConsumer(partitions=PARTITIONS, keep_open=True),
            MemoryProducer(),
            MemoryProducer(),
        )
        app = App("shop")

        @app.batch_handler(
            source=self.source, sink=self.sink, dead_letter=self.dead, decoder="raw", ordering="unordered"
        )
        def score(batch): ...

        handler = app.handlers["score"]
        plan = handler.decoding.plan
        self.decoder = RawDecoder(plan)
        self.arena = make_arena(plan, capacity=CAPACITY, workers=WORKERS, credit=2, slots=10, output_bytes=1024)
        self.source.log.open()
        self.source.log.announced()
        self.intake = Intake(
            self.arena,
            RawDecoder(plan),
            self.source.log,
            ordering="unordered",
            linger_ns=0,
            spool_dir=self.folder,
            max_payload_bytes=4096,
            patience_ns=10**18,
        )
        context = PublisherContext("shop", "score", self.folder, lambda _: None)
        partitions = {index: Partition(index, "rows", index) for index in range(PARTITIONS)}
        self.completion = Completion(
            handler,
            self.arena,
            Broker(self),
            self.sink.open(context),
            DeadLetterWriter(self.dead, context),
            slots=SlotReader(self.arena, handler, partitions, self.folder),
            flow=FlowControl(handler, self.arena, bounded=False, admit=lambda _: None, log=lambda _: None),
            launch=self.launch,
            wake_intake=lambda: None,
            fail=lambda _: None,
            log=lambda _: None,
        )
        self.sent = dict.fromkeys(range(PARTITIONS), 0)
        self.committed = {}
        self.assigned = [0, 1]
        self.next_partition = 2
        self.completion.assigned(self.assigned)
        self.held = {}  # worker -> slot
        self.spilling = {}  # worker -> thread that waits for the output region
        self.gone = set()  # workers that are dead
        self.due_ns = 0

    def done(self, partition):
        records = itertools.chain(self.sink.records, self.dead.records)
        rows = (tuple(map(int, record.payload.split(b":"))) for record in records)
        return {offset for of, offset in rows if of == partition}

    def launch(self, worker):
        self._has_resumed(worker)
        self.gone.discard(worker)

    def _has_resumed(self, worker):
        if (thread := self.spilling.pop(worker, None)) is not None:
            thread.join(10)
            assert not thread.is_alive()

    # -- the intake thread ------------------------------------------------------------------------

    @rule(which=st.lists(st.integers(0, 1), min_size=1, max_size=CAPACITY))
    def publish(self, which):
        for partition in (self.assigned[at] for at in which):
            self.source.send(b"%d:%d" % (partition, self.sent[partition]), partition=partition)
            self.sent[partition] += 1
        self.read()

    def read(self):
        """Take in all that was sent, or as much as there is room for."""
        outcomes, stalls = [], self.intake.stalls
        thread = threading.Thread(target=lambda: outcomes.append(self.intake.run()))
        thread.start()
        deadline = time.monotonic() + 20
        while self.intake.messages < sum(self.sent.values()) and self.intake.stalls == stalls:
            assert time.monotonic() < deadline
            time.sleep(0)
        self.intake.attend()
        thread.join(20)
        assert outcomes == [ATTENTION]

    @rule(hurry=st.booleans())
    def queue_what_is_due(self, hurry):
        self.intake.hurry(hurry)
        self.intake.flush(0)
        self.intake.hurry(False)

    @precondition(lambda self: self.next_partition < PARTITIONS)
    @rule(at=st.integers(0, 1), in_order=st.booleans())
    def rebalance(self, at, in_order):
        partition = self.assigned[at]
        if in_order:
            self.completion.settle_and_forget([partition], 0.0)
        else:
            self.completion.forget([partition])
        self.assigned[at] = self.next_partition
        self.completion.assigned([self.next_partition])
        self.next_partition += 1

    # -- pool processes ---------------------------------------------------------------------------

    @rule(worker=st.integers(0, WORKERS - 1))
    def take(self, worker):
        if worker in self.held or worker in self.gone:
            return
        slot = self.arena.take(worker, 0.0)
        if slot is not None:
            assert self.arena.decode(slot, self.decoder)
            self.held[worker] = slot

    def _rows(self, slot):
        size = self.arena.facts(slot).rows * MESSAGE.itemsize
        table = np.frombuffer(self.arena.view(slot, self.arena.rows_at(slot), size), MESSAGE)
        return [b"%d:%d" % (m["partition"], m["offset"]) for m in table]

    def _write(self, slot, rows):
        output = b"".join(frame_record(row) for row in rows)
        self.arena.view(slot, self.arena.offsets["output"], len(output))[:] = output
        return len(output), len(rows)

    @rule(worker=st.integers(0, WORKERS - 1), fates=fates_of_a_batch)
    def complete(self, worker, fates):
        if worker not in self.held or self._waits_for_region(worker):
            return
        slot = self.held.pop(worker)
        facts, rows, offsets = self.arena.facts(slot), self._rows(slot), self.arena.offsets
        words = np.frombuffer(self.arena.view(slot, offsets["retries"], 4 * len(rows)), np.uint32)
        fates = fates[: len(rows)]
        for at, fate in enumerate(fates):
            words[at] = (facts.round + 1) << 16 | 1 if fate == "waits" else facts.round << 16
        given_up = np.array([at for at, fate in enumerate(fates) if fate == "given up"], np.uint32)
        noted = 0
        if len(given_up):
            error = RowErrors("failed", given_up.tobytes(), "ValueError: no")
            noted = write_notes(
                Notes(errors=[error]), self.arena.view(slot, offsets["errors"], offsets["errors_bytes"])
            )
        written = self._write(slot, [row for row, fate in zip(rows, fates, strict=True) if fate == "done"])
        waiting = fates.count("waits")
        if self.due_ns < monotonic_ns():
            self.due_ns = monotonic_ns() + WAIT_NS
        self.arena.complete(worker, slot, *written, 0, noted, 0, waiting, len(given_up), self.due_ns if waiting else 0)

    @rule(worker=st.integers(0, WORKERS - 1), fates=fates_of_a_batch)
    def handle(self, worker, fates):
        """Quicker than the other one, whose batch came before."""
        self.take(worker)
        self.complete(worker, fates)
        self.turn()

    def _waits_for_region(self, worker):
        """Whether its records have not been taken away yet."""
        if worker not in self.spilling:
            return False
        if self.held[worker] in self.arena.spilled():
            return True
        self._has_resumed(worker)
        return False

    @rule(worker=st.integers(0, WORKERS - 1))
    def spill(self, worker):
        """The records of the first row are more than the region has room for; the batch goes on behind it."""
        if worker not in self.held or worker in self.spilling:
            return
        slot = self.held[worker]
        written = self._write(slot, self._rows(slot)[:1])
        self.spilling[worker] = threading.Thread(target=self.arena.spill, args=(slot, *written))
        self.spilling[worker].start()
        deadline = time.monotonic() + 20
        while slot not in self.arena.spilled():
            assert time.monotonic() < deadline
            time.sleep(0)

    @rule(worker=st.integers(0, WORKERS - 1))
    def die(self, worker):
        if worker not in self.gone:
            self.gone.add(worker)
            self.held.pop(worker, None)
            self.completion.post_death(worker, Obituary("was killed by SIGKILL"))

    # -- the completion thread and its sinks ------------------------------------------------------

    @rule()
    def turn(self):
        self.completion._turn()  # what came back goes to the sinks
        self.completion._turn()  # what they have is settled

    @rule(sink=st.sampled_from(["sink", "dead"]), away=st.sampled_from([False, False, True]))
    def sink_goes_or_comes_back(self, sink, away):
        getattr(self, sink).fail_with("away" if away else None)

    @invariant()
    def what_could_be_committed_is_done(self):
        assert self.completion.commit(wait=True) == ""

    def teardown(self):
        """All is done in the end, and then all of it is committed."""
        try:
            for sink in (self.sink, self.dead):
                sink.fail_with(None)
            deadline = time.monotonic() + 20
            while self.arena.live() or self.gone or self.intake.messages < sum(self.sent.values()):
                assert time.monotonic() < deadline, self.arena.states()
                self.completion._turn()
                self.read()
                for worker in range(WORKERS):
                    self.take(worker)
                    self.complete(worker, ["done"] * CAPACITY)
            assert self.completion.commit(wait=True) == ""
            for partition in self.assigned:
                assert self.committed.get(partition, 0) == self.sent[partition]
        finally:
            for worker in list(self.spilling):
                if self.held.get(worker) is not None:
                    self.arena.resume(self.held[worker])
                self._has_resumed(worker)
            self.source.log.close()
            self.arena.close()
            shutil.rmtree(self.folder)


def leaves_queued(stream):
    return READY


def takes(stream):
    stream.take(0)
    return HELD


def spills(stream):
    stream.sink_goes_or_comes_back("sink", True)
    stream.take(0)
    stream.spill(0)
    return OUTPUT_FULL


def completes_all(stream):
    stream.sink_goes_or_comes_back("sink", True)
    stream.handle(0, ["done"] * CAPACITY)
    return DONE


def completes_some(stream):
    stream.sink_goes_or_comes_back("sink", True)
    stream.handle(0, ["done", "waits", "done", "done"])
    return PARKED


def completes_some_for_good(stream):
    stream.handle(0, ["done", "waits", "done", "done"])
    return WAITING


@pytest.mark.parametrize(
    "first", [leaves_queued, takes, spills, completes_all, completes_some, completes_some_for_good]
)
def test_a_batch_holds_the_position_whatever_becomes_of_it_while_the_next_one_is_done(first):
    stream = Stream()
    try:
        stream.publish([0] * CAPACITY)
        stream.publish([0] * CAPACITY)
        state = first(stream)
        stream.handle(1, ["given up"] * CAPACITY)
        stream.what_could_be_committed_is_done()
        assert [left for left in stream.arena.states() if left != FREE] == [state]
        assert stream.committed.get(0, 0) == (1 if state == WAITING else 0)
    finally:
        stream.teardown()


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
