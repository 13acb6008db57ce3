"""ext/gather.h: rows that wait, apart from those of their batch that are done, and together with those of others."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from pythia_fast._ext.gather import changes, merge, thin
from pythia_fast._ext.ring import monotonic_ns
from pythia_fast.batch import MESSAGE
from pythia_fast.brokers.memory import MemoryMessage

FREE, READY, PARKED, WAITING = 0, 2, 6, 7
SECOND = 10**9


def table(arena, slot, rows):
    return np.frombuffer(arena.view(slot, arena.offsets["messages"], rows * MESSAGE.itemsize), MESSAGE)


def words(arena, slot, rows):
    return np.frombuffer(arena.view(slot, arena.offsets["retries"], 4 * rows), np.uint32)


def contents(arena, slot, rows):
    """[(offset, partition, payload, key, headers, times given)] of the rows that wait there."""
    raw = bytes(arena.view(slot, arena.offsets["raw"], arena.raw_bytes))
    found = []
    for m, word in zip(table(arena, slot, rows), words(arena, slot, rows), strict=True):
        key = None if m["key_size"] < 0 else raw[m["key_at"] : m["key_at"] + m["key_size"]]
        null = m["payload_size"] == 0xFFFFFFFF
        payload = None if null else raw[m["payload_at"] : m["payload_at"] + m["payload_size"]]
        headers = raw[m["headers_at"] : m["headers_at"] + m["headers_size"]]
        found.append((int(m["offset"]), int(m["partition"]), payload, key, headers, int(word & 0xFFFF)))
    return found


def header(name: str, value: bytes) -> bytes:
    return struct.pack("<H", len(name)) + name.encode() + struct.pack("<i", len(value)) + value


def message(row: int) -> MemoryMessage:
    """Of any kind: with and without key and headers, empty, null (which is no row)."""
    rng = random.Random(row)
    payload = None if row % 7 == 3 else bytes(rng.choices(b"abc", k=rng.randrange(12)))
    headers = [("n", b"%d" % row)] if rng.random() < 0.5 else []
    return MemoryMessage(payload, key=b"k%d" % row if rng.random() < 0.7 else None, headers=headers, partition=row % 3)


def expected(row: int, given: int):
    m = message(row)
    headers = header("n", b"%d" % row) if m.headers else b""
    return row // 3, row % 3, m.payload, m.key, headers, given


def park(one, wanted, *, due_ns):
    """Take the batch that is next and park it with the rows ``wanted`` says, a number of attempts each; its slot."""
    arena, slot = one.arena, one.take()
    facts = arena.facts(slot)
    kept = np.frombuffer(arena.view(slot, arena.rows_at(slot), facts.rows * MESSAGE.itemsize), MESSAGE)
    rows = [int(m["offset"]) * 3 + int(m["partition"]) for m in kept]
    notes = words(arena, slot, facts.rows)
    for at, row in enumerate(rows):
        notes[at] = (facts.round + 1) << 16 | wanted[row] if row in wanted else facts.round << 16
    arena.complete(0, slot, 0, 0, 0, 0, 0, len(rows), 0, due_ns)
    assert arena.collect() == [slot]
    return slot


def first_row(batch):
    """Of batches of 12."""
    return next(row for row in range(12 * batch, 12 * batch + 12) if message(row).payload is not None)


def fed(feed, rows, **sizes):
    one = feed(
        [message(row) for row in range(rows)], partitions=3, **{"capacity": 12, "credit": 8, "slots": 9, **sizes}
    )
    one.run()
    assert one.intake.flush(1.0)
    return one


@pytest.mark.parametrize("seed", range(20))
def test_a_thinned_batch_holds_its_rows_that_wait_and_lists_the_others(feed, seed):
    one = fed(feed, 12)
    rows = [row for row in range(12) if message(row).payload is not None]
    chosen = sorted(random.Random(seed).sample(rows, random.Random(seed).randrange(1, len(rows) + 1)))
    wanted = {row: row % 5 for row in chosen}
    slot = park(one, wanted, due_ns=monotonic_ns() + 3600 * SECOND)
    first, done = thin(one.arena, slot)
    assert (first, done) == (len(chosen), 12 - len(chosen))
    assert contents(one.arena, slot, len(chosen)) == [expected(row, row % 5) for row in chosen]
    assert set((words(one.arena, slot, len(chosen)) >> 16).tolist()) == {2}
    others = table(one.arena, slot, 12)[first:]
    assert sorted(int(m["offset"]) * 3 + int(m["partition"]) for m in others) == sorted(set(range(12)) - set(chosen))
    facts = one.arena.facts(slot)
    assert (facts.rows, facts.refused, facts.gathered) == (len(chosen), 0, 1)
    assert facts.payload_bytes == sum(len(message(row).payload) for row in chosen)
    lowest = {p: min(row // 3 for row in chosen if row % 3 == p) for p in {row % 3 for row in chosen}}
    assert {p: (n, low) for p, n, low, _ in one.arena.partitions(slot)} == {
        p: (sum(row % 3 == p for row in chosen), low) for p, low in lowest.items()
    }
    assert {p: after for p, _, _, after in one.arena.partitions(slot)} == dict.fromkeys(lowest, 4)
    assert changes(one.arena) % 2 == 0
    assert thin(one.arena, slot) == (len(chosen), 0)  # once more changes nothing
    assert contents(one.arena, slot, len(chosen)) == [expected(row, row % 5) for row in chosen]
    one.arena.wait_until_due(slot)
    one.intake.hurry(True)
    assert one.intake.flush(1.0)
    assert one.take() == slot
    assert (one.arena.facts(slot).rows, one.arena.round(slot)) == (len(chosen), 2)


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_of_several_batches_wait_in_one_slot(feed, ordered):
    one = fed(feed, 60, capacity=12)
    due_ns = monotonic_ns() + 3600 * SECOND
    slots, chosen = [], [1, 2, 13, 25, 27, 37, 49]
    for batch in range(5):
        wanted = {row: 1 + batch for row in chosen if row // 12 == batch}
        slot = park(one, wanted, due_ns=due_ns + batch * SECOND)
        assert thin(one.arena, slot)[0] == len(wanted)
        together = merge(one.arena, slot, ordered, [])
        assert together == (slots[0] if batch else None)
        slots.append(slot)
        assert one.arena.states()[slots[0]] == PARKED
        one.arena.wait_until_due(slots[0])
        if batch:
            assert one.arena.states()[slot] == FREE
    assert contents(one.arena, slots[0], len(chosen)) == [expected(row, 1 + row // 12) for row in chosen]
    assert one.arena.live() == [(1, 0), (2, 0), (0, 9)]
    assert [n for _, n, _, _ in one.arena.partitions(slots[0])] == [5, 1, 1]
    one.intake.hurry(True)
    assert one.intake.flush(1.0)
    assert one.take() == slots[0]


@pytest.mark.parametrize(("slots", "apart"), [(32, {8}), (9, range(1, 8))])
def test_rows_whose_times_are_far_apart_wait_apart_while_there_are_slots(feed, slots, apart):
    one = fed(feed, 96, slots=slots)
    now = monotonic_ns()
    for batch in range(8):
        slot = park(one, {first_row(batch): 1}, due_ns=now + int(1000 * 1.5**batch) * SECOND)
        thin(one.arena, slot)
        together = merge(one.arena, slot, False, [])
        one.arena.wait_until_due(slot if together is None else together)
        if batch == 0:
            assert one.arena.states().count(FREE) == slots - 8
    assert one.arena.states().count(WAITING) in apart


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_that_keep_coming_put_off_none_that_came_before(feed, ordered):
    """Each is due a tenth of the wait after the one before it: two may wait together, a third would be too late."""
    one = fed(feed, 96, slots=32)
    now = monotonic_ns()
    for batch in range(8):
        slot = park(one, {first_row(batch): 1}, due_ns=now + (1000 + 100 * batch) * SECOND)
        thin(one.arena, slot)
        together = merge(one.arena, slot, ordered, [])
        one.arena.wait_until_due(slot if together is None else together)
    assert one.arena.states().count(WAITING) == 4


def test_rows_in_order_wait_only_behind_the_batch_before_theirs(feed):
    one = fed(feed, 36)
    due_ns = monotonic_ns() + 3600 * SECOND
    first = park(one, {1: 1}, due_ns=due_ns)
    second = park(one, {13: 1}, due_ns=due_ns)
    third = park(one, {25: 1}, due_ns=due_ns)
    thin(one.arena, first)
    one.arena.wait_until_due(first)
    thin(one.arena, third)  # the second one's deliveries are not confirmed yet
    assert merge(one.arena, third, True, []) is None
    assert merge(one.arena, third, True, [second]) == first  # it came back, and is done


def test_a_batch_that_had_its_early_round_waits_alone(feed):
    one = fed(feed, 24)
    due_ns = monotonic_ns() + 3600 * SECOND
    first = park(one, {1: 1}, due_ns=due_ns)
    thin(one.arena, first)
    one.arena.wait_until_due(first)
    second = one.take()
    one.intake.hurry(True)
    assert one.intake.flush(1.0)
    assert one.take() == first
    notes = words(one.arena, second, 12)
    notes[:] = 1 << 16
    notes[4] = 2 << 16 | 1
    one.arena.complete(0, second, 0, 0, 0, 0, 0, 1, 0, due_ns)
    words(one.arena, first, 1)[:] = 3 << 16 | 2
    one.arena.complete(0, first, 0, 0, 0, 0, 0, 1, 0, due_ns)
    assert one.arena.collect() == [second, first]
    for slot in (first, second):
        assert thin(one.arena, slot) is not None
    one.arena.wait_until_due(first)
    assert merge(one.arena, second, False, []) is None


@pytest.mark.parametrize("field", ["payload_at", "payload_size", "key_at", "key_size", "headers_at", "headers_size"])
def test_places_that_a_handler_has_written_over_are_never_followed(feed, field):
    """The row is refused when it is decoded again, its neighbours keep what they have."""
    one = fed(feed, 12)
    due_ns = monotonic_ns() + 3600 * SECOND
    rows = [row for row in range(12) if message(row).payload is not None]
    slot = park(one, dict.fromkeys(rows, 1), due_ns=due_ns)
    spoilt = 4
    index = next(i for i, m in enumerate(table(one.arena, slot, 12)) if m["offset"] * 3 + m["partition"] == spoilt)
    m = table(one.arena, slot, 12)
    m["key_size"][index] = m["headers_size"][index] = m["payload_size"][index] = 1  # so that each place is looked at
    m[field][index] = 0x7FFFFFFF
    thin(one.arena, slot)
    one.arena.wait_until_due(slot)
    one.intake.hurry(True)
    assert one.intake.flush(1.0)
    assert one.take() == slot
    facts = one.arena.facts(slot)
    assert (facts.rows, facts.refused) == (len(rows) - 1, 1)
    (refusal,) = one.arena.refusals(slot)
    assert refusal[0] == rows.index(spoilt)


@pytest.mark.parametrize("counts", [(3, 0), (12, 12), (0, 0), (2**32 - 1, 1)])
def test_a_slot_whose_counts_do_not_agree_is_left_whole(feed, counts):
    one = fed(feed, 12, capacity=12)
    slot = park(one, {1: 1}, due_ns=monotonic_ns() + 3600 * SECOND)
    before = bytes(one.arena.view(slot, 0, one.arena.offsets["slot_bytes"]))
    facts = one.arena.facts(slot)
    at = before.index(struct.pack("<II", facts.rows, facts.refused), 64)
    header_words = np.frombuffer(one.arena.view(slot, at, 8), np.uint32)
    assert header_words.tolist() == [facts.rows, facts.refused]
    header_words[:] = counts
    assert thin(one.arena, slot) is None
    assert merge(one.arena, slot, False, []) is None
    header_words[:] = facts.rows, facts.refused
    assert bytes(one.arena.view(slot, 0, one.arena.offsets["slot_bytes"])) == before
