"""ext/admission.h through an intake: what a closed gate, a probe and a rate limit keep back."""

from __future__ import annotations

import threading
import time

from pythia_fast._ext.intake import BLOCKED, END, GATE_OPEN, ROOM, STOPPED


def settle_all(arena) -> list[int]:
    """Take, complete and release what is queued; the batches' lengths."""
    rows = []
    while (slot := arena.take(0, 0.05)) is not None:
        rows.append(len(arena.partitions(slot)) and arena.partitions(slot)[0][1])
        arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
        for done in arena.collect():
            arena.release(done)
    return rows


def test_a_closed_gate_blocks_the_source_and_an_open_one_gives_room(feed):
    one = feed([b"m"] * 8, patience_ns=1)
    one.intake.admit(0)
    assert one.run() == BLOCKED
    assert one.intake.messages == 0
    one.intake.admit(GATE_OPEN)
    assert one.run() == ROOM
    assert one.run() == END
    assert settle_all(one.arena) == [4, 4]


def test_a_probe_is_one_batch_of_so_many_messages(feed):
    one = feed([b"m"] * 8, patience_ns=1)
    one.intake.admit(3)
    assert one.run() == BLOCKED
    assert settle_all(one.arena) == [3]
    one.intake.admit(1)
    assert one.run() == ROOM
    assert one.run() == BLOCKED
    assert settle_all(one.arena) == [1]
    one.intake.admit(GATE_OPEN)
    assert one.run() == ROOM
    assert one.run() == END
    assert settle_all(one.arena) == [4]


def test_a_batch_that_is_open_when_the_gate_closes_belongs_to_what_is_in_hand(feed):
    one = feed([b"m"] * 2, linger_ns=10**12, keep_open=True)
    thread = threading.Thread(target=one.run)
    thread.start()
    deadline = time.monotonic() + 10
    while one.intake.messages < 2:
        assert time.monotonic() < deadline
    one.intake.admit(0)
    one.consumer.send(b"m")
    while one.intake.messages < 3:
        assert time.monotonic() < deadline
    one.intake.stop()
    thread.join(10)
    assert one.intake.flush(1.0)
    assert settle_all(one.arena) == [3]


def test_a_closed_gate_does_not_keep_a_stop_waiting(feed):
    one = feed([b"m"] * 8)
    one.intake.admit(0)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(one.run()))
    thread.start()
    one.intake.stop()
    thread.join(10)
    assert outcomes == [STOPPED]


def test_a_rate_limit_makes_batches_smaller_and_holds_the_source_back(feed):
    one = feed([b"m"] * 40, rows_per_s=100, slots=64, credit=60)
    started = time.monotonic()
    assert one.run() == END
    took = time.monotonic() - started
    assert one.intake.flush(1.0)
    assert took >= 0.25  # 10 rows at once, then one in 10 ms
    assert one.intake.rate_waits > 0
    assert max(settle_all(one.arena)) == 2


def test_a_source_that_gets_on_slowly_is_not_blocked(feed):
    one = feed([b"m"] * 40, rows_per_s=100, slots=64, credit=60, patience_ns=150_000_000)
    assert one.run() == END
