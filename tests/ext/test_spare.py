"""ext/spare: a place is given to whoever waits for it, once."""

from __future__ import annotations

import threading

import pytest

from pythia_fast._ext import spare
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.ring import Arena


@pytest.fixture
def arena():
    return Arena(Plan(None), capacity=1, raw_bytes=64, n_workers=4, credit=1, n_slots=1, output_bytes=64, n_spares=2)


def test_nobody_is_up_before_it_waits(arena):
    assert not spare.is_up(arena, 0)
    assert spare.wait_for_place(arena, 0, 0.0) is None
    assert spare.is_up(arena, 0)
    assert not spare.is_up(arena, 1)


def test_one_that_waits_is_woken_for_its_place(arena):
    found = []
    waiter = threading.Thread(target=lambda: found.append(spare.wait_for_place(arena, 1, 60.0)))
    waiter.start()
    while not spare.is_up(arena, 1):
        pass
    spare.seat(arena, 1, 3)
    waiter.join(30)
    assert found == [3]
    assert not spare.is_up(arena, 1)


def test_a_place_that_was_given_before_it_looked_is_taken(arena):
    spare.seat(arena, 0, 0)
    assert spare.wait_for_place(arena, 0, 60.0) == 0


def test_the_word_serves_the_next_one_once_the_place_is_taken(arena):
    spare.wait_for_place(arena, 0, 0.0)
    spare.seat(arena, 0, 2)
    assert spare.is_up(arena, 0)  # it has not looked yet
    assert spare.wait_for_place(arena, 0, 0.0) == 2
    spare.prepare(arena, 0)
    assert spare.wait_for_place(arena, 0, 0.0) is None


def test_one_that_is_dismissed_leaves(arena):
    spare.dismiss(arena, 0)
    assert spare.wait_for_place(arena, 0, 60.0) == -1


def test_a_spare_that_is_not_there_is_refused(arena):
    with pytest.raises(IndexError, match="spare 2 of 2"):
        spare.is_up(arena, 2)
