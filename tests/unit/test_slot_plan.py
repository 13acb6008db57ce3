"""pythia_fast.runtime.slot_plan: as many slots as the memory bears."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.runtime.slot_plan import plan_slots, slot_bytes, slot_rows

MB = 10**6


def test_with_enough_memory_nobody_waits():
    assert plan_slots(2, 4 * MB, waits=False, memory_bytes=1000 * MB)[:2] == (3, 12)
    assert plan_slots(2, 4 * MB, waits=True, memory_bytes=1000 * MB)[:2] == (3, 44)


def test_little_memory_has_fewer_slots():
    plans = [plan_slots(2, 4 * MB, waits=False, memory_bytes=limit * MB)[:2] for limit in (48, 47, 39, 31, 1)]
    assert plans == [(3, 12), (2, 10), (2, 8), (1, 6), (1, 6)]


@given(st.integers(1, 100), st.integers(1, 10**9), st.booleans(), st.integers(0, 10**12))
def test_a_plan_always_has_a_slot_to_fill_beside_those_in_hand(workers: int, one: int, waits: bool, memory: int):
    plan = plan_slots(workers, one, waits=waits, memory_bytes=memory)
    assert plan.credit >= 1
    assert plan.slots >= workers * plan.credit + workers + 2
    assert plan.bytes == plan.slots * one


def test_slots_of_small_batches_have_room_for_rows_that_wait_where_these_are_gathered():
    assert [slot_rows(1, gathers=gathers) for gathers in (False, True)] == [1, 256]
    assert slot_rows(4096, gathers=True) == 4096


def test_a_slot_has_room_for_all_that_its_payloads_turn_into():
    assert slot_bytes(1000, 256_000, 9) == 3 * 256_000 + 1000 * 200
