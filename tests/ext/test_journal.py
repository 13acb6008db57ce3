"""ext/journal: what a dead holder leaves behind, however far it came with writing it down."""

from __future__ import annotations

import threading

import pytest

from pythia_fast._ext.journal import Journal, Progress

NOTHING = Progress(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def held(feed):
    """(feed, slot): a batch of three rows, in the hands of process 0 and decoded."""
    one = feed([b"a", b"b", b"c"], capacity=3)
    one.run()
    return one, one.take()


def test_a_batch_begins_without_a_journal(held):
    one, slot = held
    assert Journal(one.arena, slot).read() == NOTHING


def test_the_first_death_suspects_all_rows(held):
    one, slot = held
    one.arena.return_taken(0)
    assert Journal(one.arena, slot).read() == NOTHING._replace(suspect_end=3, deaths=1)


def test_a_death_before_the_batch_was_decoded_suspects_none(feed):
    one = feed([b"a"] * 40, capacity=40)  # more than the intake decodes when there is credit
    one.run()
    slot = one.arena.take(0, 0.0)
    one.arena.return_taken(0)
    assert Journal(one.arena, slot).read() == NOTHING


def test_deaths_are_counted_for_the_same_rows_only(held):
    one, slot = held
    journal = Journal(one.arena, slot)
    for deaths, (end, before) in enumerate([(2, 1), (2, 1)], start=1):
        one.arena.return_taken(0)
        assert one.take() == slot
        journal.begin(end, before)
        progress = journal.read()
        assert (progress.suspect_end, progress.deaths, progress.deaths_before) == (2, deaths - 1, 1)
    journal.begin(1, 3)
    assert journal.read()[1:4] == (1, 0, 3)


def test_what_is_committed_stays_when_the_next_part_kills(held):
    one, slot = held
    journal = Journal(one.arena, slot)
    one.arena.return_taken(0)
    one.take()
    journal.begin(2, 1)
    journal.commit(2, 700, 2, 1, 90, 1, 2, 3, 1)
    done = Progress(2, 0, 0, 0, 700, 2, 1, 90, 1, 2, 3, 1)
    assert journal.read() == done
    journal.begin(3, 1)
    one.arena.return_taken(0)
    assert journal.read() == done._replace(suspect_end=3, deaths=1, deaths_before=1)


def test_the_next_batch_in_the_slot_begins_anew(feed):
    one = feed([b"%d" % i for i in range(3)], capacity=1, credit=1, slots=1)
    journal = Journal(one.arena, 0)
    runner = threading.Thread(target=one.run)
    runner.start()
    try:
        for _ in range(3):
            assert one.take(timeout=30.0) == 0
            assert journal.read() == NOTHING
            journal.commit(1, 10, 1, 1, 10, 0, 0, 0, 0)
            one.arena.complete(0, 0, 0, 0, 0, 0, 0, 0, 0)
            assert one.arena.collect() == [0]
            one.arena.release(0)
    finally:
        one.intake.stop()
        runner.join()


def test_a_slot_that_is_not_there_is_refused(held):
    one, _ = held
    with pytest.raises(IndexError, match="slot 99 of"):
        Journal(one.arena, 99)
