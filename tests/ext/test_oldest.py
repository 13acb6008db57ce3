"""ext/oldest: the row that has been in hand for longest, wherever its batch stands."""

from __future__ import annotations

import time

from pythia_fast._ext.intake import BLOCKED, END
from pythia_fast._ext.oldest import DONE, FILLING, HELD, OUTPUT_FULL, PARKED, READY, WAITING, oldest
from pythia_fast._ext.ring import monotonic_ns

LONG_NS = 10**12


def complete(arena, slot, worker=0, due_ns=0):
    arena.complete(worker, slot, 0, 0, 0, 0, 0, 0, 0, due_ns)
    assert arena.collect() == [slot]


def test_an_empty_arena_has_none(feed):
    assert oldest(feed([]).arena) is None


def test_a_row_in_an_open_batch_counts_from_its_arrival(feed):
    one = feed([b"x"] * 3, linger_ns=LONG_NS)
    before = time.monotonic()
    assert one.run() == END
    row = oldest(one.arena)
    assert (row.state, row.partition, row.offset) == (FILLING, 0, 0)
    time.sleep(0.05)
    later = oldest(one.arena)
    assert later.age_s >= row.age_s + 0.05
    assert later.age_s <= time.monotonic() - before


def test_the_age_goes_on_through_every_state_of_the_batch(feed):
    one = feed([b"x"])
    assert one.run() == END
    began = time.monotonic() - oldest(one.arena).age_s
    assert one.intake.flush(1.0)
    arena = one.arena
    seen = [oldest(arena)]
    slot = one.take()
    seen.append(oldest(arena))
    complete(arena, slot, due_ns=monotonic_ns() + 1)
    seen.append(oldest(arena))
    arena.wait_until_due(slot)
    seen.append(oldest(arena))
    time.sleep(0.02)
    assert one.intake.flush(1.0)  # it is due: the batch is handled again
    assert one.take() == slot
    again = oldest(arena)
    complete(arena, slot)
    seen.append(oldest(arena))
    assert [row.state for row in seen] == [READY, HELD, PARKED, WAITING, DONE]
    assert again.state == HELD
    assert {(row.slot, row.worker, row.partition, row.offset) for row in seen} == {(slot, 0, 0, 0)}
    now = time.monotonic()
    assert abs(now - oldest(arena).age_s - began) < 0.01  # of one arrival, through both rounds
    arena.release(slot)
    assert oldest(arena) is None


def test_when_a_parked_batch_goes_on_is_told(feed):
    one = feed([b"x"])
    one.run()
    one.intake.flush(1.0)
    due_ns = monotonic_ns() + LONG_NS
    slot = one.take()
    complete(one.arena, slot, due_ns=due_ns)
    one.arena.wait_until_due(slot)
    assert oldest(one.arena).due_ns == due_ns


def test_a_batch_whose_results_wait_for_the_sink_is_the_oldest(feed):
    one = feed([b"x"] * 8)
    one.run()
    one.intake.flush(1.0)
    slot = one.take()
    one.arena.view(slot, 0, 4)[:] = OUTPUT_FULL.to_bytes(4, "little")  # as spill() does, which waits for the sink
    assert oldest(one.arena).state == OUTPUT_FULL


def test_the_oldest_is_found_whatever_completes_first(feed):
    one = feed([b"m"] * 12, workers=2, partitions=2, ordering="partition", credit=3, slots=8)
    one.run()
    one.intake.flush(1.0)
    stuck = one.take(worker=0)
    first = one.arena.partitions(stuck)[0]
    while (slot := one.arena.take(1, 0.0)) is not None:
        complete(one.arena, slot, worker=1)
        one.arena.release(slot)
    row = oldest(one.arena)
    assert (row.slot, row.worker, row.partition, row.offset) == (stuck, 0, first[0], first[2])
    complete(one.arena, stuck)
    one.arena.release(stuck)
    assert oldest(one.arena).slot != stuck


def test_a_slot_that_is_used_again_has_the_age_of_its_new_batch(feed):
    one = feed([b"a"] * 8, slots=1, credit=1, patience_ns=1)
    assert one.run() == BLOCKED
    slot = one.take()
    time.sleep(0.05)
    assert oldest(one.arena).age_s >= 0.05
    complete(one.arena, slot)
    one.arena.release(slot)
    assert oldest(one.arena) is None
    before = time.monotonic()
    while one.run() != END:
        pass
    row = oldest(one.arena)
    assert (row.slot, row.offset) == (slot, 4)
    assert row.age_s <= time.monotonic() - before
