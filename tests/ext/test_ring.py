"""The arena: every transition of a slot, by the names of arena_layout.h, and what a death leaves behind."""

from __future__ import annotations

import os
import resource
import threading
import time

import numpy as np
import pytest

from pythia_fast._ext import gather
from pythia_fast._ext.intake import END, STOPPED, Intake
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.raw_decoder import RawDecoder
from pythia_fast._ext.ring import CIRCUIT_CLOSED, CIRCUIT_FAILING, CIRCUIT_HALF_OPEN, CIRCUIT_OPEN, Arena, monotonic_ns
from pythia_fast.brokers.framing import decode_headers, frame_record, iterate_records
from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage
from tests.support.ring_feed import make_arena

FREE, FILLING, READY, HELD, DONE, OUTPUT_FULL = range(6)


def take_and_complete(arena: Arena, worker: int = 0) -> int:
    slot = arena.take(worker, 1.0)
    assert slot is not None
    arena.complete(worker, slot, 0, 0, 0, 0, 0, 0, 0)
    return slot


def test_a_slot_goes_round(feed):
    one = feed([b"a", b"bb", b"ccc", b"dddd", b"e"])
    assert one.run() == END
    assert one.intake.flush(1.0)
    arena = one.arena
    assert arena.states()[:2] == [READY, READY]
    slot = one.take()
    assert arena.states()[slot] == HELD
    facts = arena.facts(slot)
    assert (facts.rows, facts.payload_bytes, facts.batch, facts.refused) == (4, 10, 1, 0)
    arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
    assert arena.states()[slot] == DONE
    assert arena.collect() == [slot]
    assert arena.partitions(slot) == [(0, 4, 0, 4)]
    arena.release(slot)
    assert arena.states()[slot] == FREE
    assert arena.collect() == []
    second = take_and_complete(arena)
    assert arena.collect() == [second]
    assert arena.live() == [(0, 4)]
    assert arena.take(0, 0.0) is None


def sleeps_of_a_take(arena: Arena, busy_poll: float) -> int:
    """How often this thread went to sleep while it waited 50 ms for a batch that did not come."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    assert arena.take(0, 0.05, busy_poll) is None
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before


def test_a_process_that_polls_does_not_sleep_until_its_time_is_over(feed):
    arena = feed([b"x"]).arena
    assert sleeps_of_a_take(arena, 0.0) > 0
    assert sleeps_of_a_take(arena, 0.01) > 0
    assert min(sleeps_of_a_take(arena, 1.0) for _ in range(5)) == 0


def test_a_process_that_polls_takes_what_comes_and_hears_that_it_is_to_stop(feed):
    one = feed([b"x"])
    publisher = threading.Timer(0.05, lambda: (one.run(), one.intake.flush(10.0)))
    publisher.start()
    assert one.arena.take(0, 60.0, 60.0) is not None
    publisher.join()
    one.arena.stop_worker(0)
    assert one.arena.take(0, 60.0, 60.0) is None


def test_batches_of_an_epoch_are_counted_until_their_release_and_as_untaken_until_a_process_has_them(feed):
    one = feed([b"x"] * 5)
    assert one.run() == END
    assert one.intake.flush(1.0)
    arena = one.arena
    assert (arena.batches(0, 0), arena.batches(0, 0, untaken=True), arena.batches(1, 9)) == (2, 2, 0)
    slot = one.take()
    assert (arena.batches(0, 9), arena.batches(0, 9, untaken=True)) == (2, 1)
    arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
    assert (arena.batches(0, 0), arena.batches(0, 0, untaken=True)) == (2, 1)
    assert arena.collect() == [slot]
    arena.release(slot)
    assert (arena.batches(0, 0), arena.batches(0, 0, untaken=True)) == (1, 1)


def test_a_batch_moves_unless_it_has_come_or_is_queued_behind_one_that_waits(feed):
    one = feed([b"x"] * 8)
    assert one.run() == END
    assert one.intake.flush(1.0)
    arena = one.arena
    first, second = one.take(), 1
    assert arena.states()[:2] == [HELD, READY]
    assert arena.moving(0, 0, {}, set(), True)
    assert arena.moving(0, 0, {first: None}, set(), True)
    assert not arena.moving(0, 0, {first: None}, {0}, True)
    assert arena.moving(0, 0, {}, {0}, True)
    assert not arena.moving(0, 0, {first: None, second: None}, set(), True)
    assert not arena.moving(1, 9, {}, set(), True)


@pytest.mark.parametrize(("bound", "stuck_behind"), [(True, [{0}, {0, 1}]), (False, [{0, 1}])])
def test_a_batch_that_is_to_be_handled_again_moves_unless_whoever_may_take_it_waits(feed, bound, stuck_behind):
    one = feed([b"x"] * 4, workers=2)
    assert one.run() == END
    assert one.intake.flush(1.0)
    arena, slot = one.arena, one.take()
    for due_ns, stuck in ((monotonic_ns() + 10**12, []), (1, stuck_behind)):
        arena.complete(0, slot, 0, 0, 0, 0, 0, 1, 0, due_ns)
        assert arena.collect() == [slot]
        arena.wait_until_due(slot)
        for waiting in (set(), {0}, {1}, {0, 1}):
            assert arena.moving(0, 0, {}, waiting, bound) == (waiting not in stuck), (due_ns, waiting)
        one.intake.hurry(True)
        assert one.intake.flush(1.0)  # queued again
        assert one.take() == slot


def test_a_batch_that_waits_has_one_early_round_while_the_intake_hurries(feed):
    one = feed([b"x"] * 4)
    assert one.run() == END
    assert one.intake.flush(1.0)
    arena, slot = one.arena, one.take()
    due_ns = monotonic_ns() + 3600 * 10**9

    def park() -> None:
        arena.complete(0, slot, 0, 0, 0, 0, 0, 1, 0, due_ns)
        assert arena.collect() == [slot]
        arena.wait_until_due(slot)

    assert not gather.all_wait_past(arena, 60)
    park()
    assert gather.waiting(arena) == (4, 1, arena.n_slots - 1, due_ns)
    assert arena.early_due_ns(slot) == 0
    assert not arena.waits_past([0], 60)  # it is due at once when the intake hurries
    one.intake.hurry(True)
    assert one.intake.flush(1.0)
    assert one.take() == slot
    assert arena.early_due_ns(slot) == due_ns
    assert not gather.all_wait_past(arena, 60)
    park()
    assert one.intake.flush(1.0)
    assert arena.take(0, 0.0) is None
    assert arena.waits_past([0], 60)
    assert gather.all_wait_past(arena, 60)
    assert not gather.all_wait_past(arena, 2 * 3600)
    assert not arena.waits_past([0], 2 * 3600)
    assert not arena.waits_past([1], 60)


def test_a_round_that_is_due_after_an_early_one_counts(feed):
    one = feed([b"x"] * 4)
    assert one.run() == END
    assert one.intake.flush(1.0)
    arena, slot = one.arena, one.take()
    one.intake.hurry(True)
    for due_ns, early in ((monotonic_ns() + 3600 * 10**9, True), (1, False)):
        arena.complete(0, slot, 0, 0, 0, 0, 0, 1, 0, due_ns)
        assert arena.collect() == [slot]
        arena.wait_until_due(slot)
        assert one.intake.flush(1.0)
        assert one.take() == slot
        assert arena.early_due_ns(slot) == due_ns * early
    arena.complete(0, slot, 0, 0, 0, 0, 0, 1, 0, monotonic_ns() + 3600 * 10**9)
    assert arena.collect() == [slot]
    arena.wait_until_due(slot)
    assert one.intake.flush(1.0)
    assert arena.take(0, 0.0) is None  # it has had its early round


def test_batches_of_epochs_that_come_to_nothing_are_void_until_reading_goes_on(feed):
    one = feed([b"x"] * 4)
    assert one.run() == END
    assert one.intake.flush(1.0)
    arena, slot = one.arena, one.take()
    assert arena.epoch_of(slot) == 0
    assert not arena.is_void(slot)
    arena.set_void_below(None)
    assert arena.is_void(slot)
    arena.set_void_below(1)
    assert arena.is_void(slot)
    arena.set_void_below(0)
    assert not arena.is_void(slot)


def test_positions_are_live_from_the_first_message_to_the_release(feed):
    one = feed([b"x"] * 3, linger_ns=10**12)
    assert one.run() == END
    assert one.arena.states()[0] == FILLING
    assert one.arena.live() == [(0, 0)]
    assert one.intake.flush(1.0)
    slot = take_and_complete(one.arena)
    assert one.arena.live() == [(0, 0)]
    one.arena.release(slot)
    assert one.arena.live() == []


def test_a_full_arena_stalls_the_source_until_a_release(feed):
    one = feed([b"m"] * 40, slots=2, credit=2)
    thread = threading.Thread(target=one.run)
    thread.start()
    deadline = time.monotonic() + 60
    while one.intake.stalls == 0:  # nobody takes anything yet
        assert time.monotonic() < deadline
        time.sleep(0.001)
    handled = 0
    while handled < 40:
        slot = one.take(timeout=5.0)
        handled += one.arena.facts(slot).rows
        one.arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
        for done in one.arena.collect():
            one.arena.release(done)
    thread.join(10)
    assert not thread.is_alive()
    assert one.intake.messages == 40


def test_no_process_is_given_more_than_its_credit(feed):
    one = feed([b"m"] * 4 * 6, workers=2, credit=2, slots=8)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        while one.intake.stalls == 0:
            thread.join(0.01)
        assert [one.arena.worker_facts(w).in_hand for w in range(2)] == [2, 2]
    finally:
        one.intake.stop()
        one.arena.release(take_and_complete(one.arena))
        one.arena.collect()
        thread.join(10)
    assert not thread.is_alive()


def test_no_cell_of_a_queue_is_used_again_before_it_was_collected(feed):
    """A process that is quicker than the completion thread: its queue has 64 cells, the arena has more slots."""
    one = feed([b"m"] * 200, capacity=1, credit=63, slots=100)

    def run():
        while one.run() not in (END, STOPPED):
            continue  # BLOCKED, and ROOM after it

    thread = threading.Thread(target=run)
    thread.start()
    batches = []
    try:
        for _ in range(64):
            one.arena.complete(0, one.take(timeout=5.0), 0, 0, 0, 0, 0, 0, 0)
        assert one.arena.take(0, 0.25) is None
        while len(batches) < 200:
            done = one.arena.collect()
            batches += [one.arena.facts(slot).batch for slot in done]
            for slot in done:
                one.arena.release(slot)
            while (slot := one.arena.take(0, 0.001)) is not None:
                one.arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
    finally:
        one.intake.stop()
        thread.join(10)
    assert batches == list(range(1, 201))


def test_the_process_that_had_the_last_batch_gets_the_next_while_all_are_idle(feed):
    one = feed([b"m"] * 9, capacity=1, workers=3, credit=1, slots=1)  # one slot: the next row waits for its release
    thread = threading.Thread(target=one.run)
    thread.start()
    workers = []
    while len(workers) < 9:
        for worker in range(3):
            slot = one.arena.take(worker, 0.001)
            if slot is not None:
                workers.append(worker)
                one.arena.complete(worker, slot, 0, 0, 0, 0, 0, 0, 0)
        for slot in one.arena.collect():
            one.arena.release(slot)
    thread.join(10)
    assert workers == [0] * 9


@pytest.mark.parametrize("moment", ["queued", "held", "spilled", "done but not counted"])
def test_what_a_dead_process_held_is_ready_again_in_order(feed, moment):
    one = feed([b"m"] * 8)
    assert one.run() == END
    arena = one.arena
    if moment != "queued":
        slot = arena.take(0, 0.0)
        if moment == "spilled":
            spiller = threading.Thread(target=arena.spill, args=(slot, 10, 1))
            spiller.start()
            while not arena.spilled():
                spiller.join(0.001)
            assert arena.states()[slot] == OUTPUT_FULL
            assert arena.slot_in_hand(0) == slot
    arena.return_taken(0)
    if moment == "spilled":
        spiller.join(10)
    assert arena.slot_in_hand(0) is None
    assert arena.states()[:2] == [READY, READY]
    again = arena.take(0, 0.0)
    assert arena.facts(again).batch == 1
    assert arena.crashes(again) == (0 if moment == "queued" else 1)
    arena.complete(0, again, 0, 0, 0, 0, 0, 0, 0)
    assert arena.facts(arena.take(0, 0.0)).batch == 2


@pytest.mark.parametrize(
    ("ordering", "messages", "lanes"),
    [
        ("partition", [MemoryMessage(b"%d" % i, partition=i % 3) for i in range(30)], lambda i: i % 3 % 2),
        ("key", [MemoryMessage(b"%d" % i, key=b"k%d" % (i % 7), partition=0) for i in range(30)], None),
    ],
)
def test_a_lane_stays_with_one_process_and_in_order(feed, ordering, messages, lanes):
    one = feed(messages, ordering=ordering, workers=2, credit=8, slots=20, partitions=3)
    assert one.run() == END
    assert one.intake.flush(1.0)
    came = {}
    for worker in range(2):
        while (slot := one.arena.take(worker, 0.0)) is not None:
            assert one.arena.decode(slot, one.decoder)
            for row in payloads_of(one.arena, slot):
                came.setdefault(worker, []).append(int(row))
            one.arena.complete(worker, slot, 0, 0, 0, 0, 0, 0, 0)
    assert sorted(came[0] + came[1]) == list(range(30))
    for rows in came.values():
        assert rows == sorted(rows)
    if lanes is None:
        assert not {i % 7 for i in came[0]} & {i % 7 for i in came[1]}
    else:
        assert all(lanes(i) == worker for worker, rows in came.items() for i in rows)


def payloads_of(arena: Arena, slot: int) -> list[bytes]:
    at = arena.offsets
    facts = arena.facts(slot)
    table = memoryview(arena.view(slot, arena.rows_at(slot), facts.rows * 48)).cast("I")
    raw = arena.view(slot, at["raw"], arena.raw_bytes)
    return [bytes(raw[table[12 * i + 5] : table[12 * i + 5] + table[12 * i + 6]]) for i in range(facts.rows)]


def test_a_payload_larger_than_a_slot_is_refused_and_kept_in_the_spool(feed, tmp_path):
    big = b"x" * 5000
    one = feed([b"before", big, b"after"])
    assert one.run() == END
    assert one.intake.flush(1.0)
    slot = one.take()
    facts = one.arena.facts(slot)
    assert (facts.rows, facts.refused) == (2, 1)
    assert one.arena.refusals(slot)[0][:2] == (1, 19)  # PF_REASON_TOO_LARGE
    assert (tmp_path / f"oversize-{slot}-1").read_bytes() == frame_record(big)
    assert one.arena.partitions(slot) == [(0, 3, 0, 3)]


def test_key_and_headers_larger_than_a_slot_are_kept_with_their_message(feed, tmp_path):
    messages = [
        MemoryMessage(None, key=b"k" * 5000, headers=[("a", b"b")]),
        MemoryMessage(b"x", headers=[("h", b"v" * 5000)]),
    ]
    one = feed(messages)
    assert one.run() == END
    assert one.intake.flush(1.0)
    slot = one.take()
    assert one.arena.facts(slot)[2:4] == (0, 2)
    for index, message in enumerate(messages):
        (kept,) = iterate_records((tmp_path / f"oversize-{slot}-{index}").read_bytes())
        assert (kept.payload, kept.key) == (message.payload, message.key)
        assert decode_headers(kept.headers) == list(message.headers)


def test_null_values_are_refused_rows_and_count_as_positions(feed):
    one = feed([b"a", None, b"b"])
    assert one.run() == END
    assert one.intake.flush(1.0)
    slot = one.take()
    assert one.arena.facts(slot)[2:4] == (2, 1)
    assert one.arena.refusals(slot)[0][:2] == (1, 2)  # PF_REASON_NULL
    assert payloads_of(one.arena, slot) == [b"a", b"b"]


def test_a_spool_folder_that_is_gone_is_told_and_tried_again(feed, tmp_path):
    one = feed([b"y" * 5000], max_payload=100)
    tmp_path.rmdir()
    from pythia_fast._ext.intake import SPOOL

    assert one.run() == SPOOL
    assert os.strerror(one.intake.spool_error()) == "No such file or directory"
    tmp_path.mkdir()
    assert one.run() == END
    assert one.intake.flush(1.0)
    assert one.arena.facts(one.take())[2:4] == (0, 1)


def test_stop_ends_a_waiting_run(tmp_path):
    plan = Plan(None)
    consumer = MemoryConsumer([], keep_open=True)
    consumer.log.open()
    consumer.log.announced()
    intake = Intake(
        make_arena(plan),
        RawDecoder(plan),
        consumer.log,
        ordering="unordered",
        linger_ns=0,
        spool_dir=tmp_path,
        max_payload_bytes=10,
    )
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(intake.run()))
    thread.start()
    intake.stop()
    thread.join(10)
    consumer.log.close()
    assert outcome == [STOPPED]


def test_an_inherited_descriptor_gives_the_same_memory():
    plan = Plan(None)
    arena = make_arena(plan)
    arena.view(1, 0, 8)
    twin = Arena(
        plan, capacity=4, raw_bytes=4096, n_workers=1, credit=2, n_slots=4, output_bytes=256, fd=os.dup(arena.fd)
    )
    at = arena.offsets["output"]
    arena.view(2, at, 5)[:] = b"hello"
    assert bytes(twin.view(2, at, 5)) == b"hello"
    with pytest.raises(ValueError, match="another layout"):
        Arena(plan, capacity=8, raw_bytes=4096, n_workers=1, credit=2, n_slots=4, output_bytes=256, fd=os.dup(arena.fd))


def test_as_many_names_as_come_and_none_too_long():
    """Files that rotate bring new names for ever: each index has a place of its own, and indices come round."""
    arena = make_arena(Plan(None))
    for index in range(6000):
        arena.name_partition(index, f"/var/log/{'x' * 100}/{index}.ndjson", index % 7)
    for index in (5999, 5000, 4096):
        assert arena.partition_name(index) == (f"/var/log/{'x' * 100}/{index}.ndjson", index % 7)
    arena.name_partition(1, "p" * 4096, 0)
    assert arena.partition_name(1) == ("p" * 4096, 0)
    with pytest.raises(ValueError, match="4097 bytes, more than 4096"):
        arena.name_partition(1, "p" * 4097, 0)


def test_a_detached_slot_leaves_its_bytes_to_whoever_looks_at_them():
    arena = make_arena(Plan(None))
    at = arena.offsets["raw"]
    old = arena.view(0, at, 4)
    old[:] = b"kept"
    before = arena.slot_address(0)
    copy = arena.detach_slot(0)
    assert arena.slot_address(0) != before
    second = arena.view(0, at, 4)
    second[:] = b"next"
    assert bytes(old) == b"kept"
    again = arena.detach_slot(0)
    arena.view(0, at, 4)[:] = b"last"
    assert (bytes(old), bytes(second), bytes(arena.view(0, at, 4))) == (b"kept", b"next", b"last")
    del copy, again  # and with them the copies
    assert bytes(arena.view(0, at, 4)) == b"last"


def test_a_thread_that_reads_a_slot_while_it_is_detached_sees_its_bytes_at_any_time():
    arena = make_arena(Plan(None), raw_bytes=8 << 20)
    size = 8 << 20
    seen: set[int] = set()
    for value in range(1, 21):
        view = np.frombuffer(arena.view(0, arena.offsets["raw"], size), np.uint8)
        view[:] = value
        begun, over = threading.Event(), threading.Event()

        def read(view=view, begun=begun, over=over):
            while not over.is_set():
                begun.set()
                seen.update((int(view.min()), int(view.max())))  # without the GIL

        reader = threading.Thread(target=read)
        reader.start()
        begun.wait()
        copy = arena.detach_slot(0)
        over.set()
        reader.join()
        assert seen == {value}
        seen.clear()
        del view, copy


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda arena: arena.take(1, 0.0), IndexError),
        (lambda arena: arena.facts(4), IndexError),
        (lambda arena: arena.view(0, arena.offsets["slot_bytes"], 1), ValueError),
        (lambda arena: make_arena(Plan(None), credit=64), ValueError),
        (lambda arena: make_arena(Plan(None), workers=0), ValueError),
    ],
)
def test_places_outside_are_refused(call, error):
    with pytest.raises(error):
        call(make_arena(Plan(None)))


def test_an_open_circuit_lets_no_batch_be_taken_and_a_half_open_one_a_single_one(feed):
    one = feed([b"m"] * 12, credit=3)
    one.run()
    arena = one.arena
    assert arena.circuit == CIRCUIT_CLOSED
    arena.set_circuit(CIRCUIT_OPEN)
    assert arena.take(0, 0.0) is None
    arena.set_circuit(CIRCUIT_HALF_OPEN)
    assert arena.take(0, 0.0) is not None
    assert (arena.circuit, arena.take(0, 0.0)) == (CIRCUIT_OPEN, None)
    arena.set_circuit(CIRCUIT_FAILING)
    assert arena.take(0, 0.0) is not None


def test_an_idle_process_does_not_use_up_the_probe(feed):
    one = feed([])
    one.arena.set_circuit(CIRCUIT_HALF_OPEN)
    assert one.arena.take(0, 0.0) is None
    assert one.arena.circuit == CIRCUIT_HALF_OPEN


def test_a_process_that_waits_for_the_circuit_is_woken(feed):
    one = feed([b"m"] * 4)
    one.run()
    one.arena.set_circuit(CIRCUIT_OPEN)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(one.arena.take(0, 60.0)))
    thread.start()
    one.arena.set_circuit(CIRCUIT_CLOSED)
    thread.join(10)
    assert not thread.is_alive()
    assert taken != [None]


def test_a_batch_that_waits_comes_back_when_it_is_due_while_the_source_is_stalled(feed):
    """The intake sleeps for want of a free slot; what is due then must not wait for the end of that sleep (100 ms)."""
    one = feed([b"a", b"b"], slots=1, capacity=1, credit=1)
    running = threading.Thread(target=one.run)
    running.start()
    slot = one.arena.take(0, 5.0)
    lateness = []
    for _ in range(6):
        due_ns = monotonic_ns() + 5_000_000
        one.arena.complete(0, slot, 0, 0, 0, 0, 0, 1, 0, due_ns)
        assert one.arena.collect() == [slot]
        one.arena.wait_until_due(slot)
        assert one.arena.take(0, 5.0) == slot
        lateness.append(monotonic_ns() - due_ns)
    one.arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
    assert one.arena.collect() == [slot]
    one.arena.release(slot)
    running.join()
    assert min(lateness) < 50_000_000
