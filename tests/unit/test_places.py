"""pythia_fast.pool.places: whatever is launched, seated and dies, every process has one place or waits for one."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pythia_fast.pool.places import Holder, Places

WORKERS, SPARES, SEATS = 3, 2, 4


class AnyPool(RuleBasedStateMachine):
    """Places beside a plain list of who is where."""

    def __init__(self) -> None:
        super().__init__()
        self.places = Places(WORKERS, SPARES, SEATS)
        self.next_pid = 100
        self.holds: dict[int, int] = {}
        self.waits: dict[int, int] = {}
        self.was: dict[int, int] = {}
        self.leaving: dict[int, int] = {}

    @precondition(lambda self: len(self.holds) < WORKERS)
    @rule(data=st.data())
    def launch_for_a_place(self, data):
        place = data.draw(st.sampled_from(sorted(set(range(WORKERS)) - set(self.holds.values()))))
        self.next_pid += 1
        self.places.launched(place, self.next_pid)
        self.holds[self.next_pid] = place

    @rule()
    def launch_spares(self):
        vacant = self.places.vacant_seats()
        assert vacant == sorted(set(range(SEATS)) - set(self.waits.values()))
        for spare in vacant[: self.places.missing_spares]:
            self.places.asked(spare)
            self.was = {pid: left for pid, left in self.was.items() if left != spare}
            self.next_pid += 1
            self.places.launched(self.places.seat_of(spare), self.next_pid)
            self.waits[self.next_pid] = spare

    @precondition(lambda self: self.waits and len(self.holds) < WORKERS)
    @rule(data=st.data())
    def seat_a_spare(self, data):
        place = data.draw(st.sampled_from(sorted(set(range(WORKERS)) - set(self.holds.values()))))
        spare, pid = self.places.waiting_spares()[0]
        self.places.seated(pid, place)
        self.was[pid] = self.waits.pop(pid)
        assert self.was[pid] == spare
        self.holds[pid] = place

    @precondition(lambda self: self.holds or self.waits)
    @rule(data=st.data())
    def die(self, data):
        pid = data.draw(st.sampled_from(sorted({**self.holds, **self.waits})))
        holder = self.places.died(pid, 0)
        expected = Holder(self.holds.pop(pid, None), self.waits.pop(pid, self.was.get(pid)))
        assert holder == expected

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def leave(self, data):
        pid = data.draw(st.sampled_from(sorted(self.holds)))
        gives_up = self.holds[pid] not in self.leaving.values()
        assert self.places.leaves(pid, self.holds[pid]) == gives_up
        if gives_up:
            self.leaving[pid] = self.holds.pop(pid)

    @precondition(lambda self: self.leaving)
    @rule(data=st.data())
    def have_left(self, data):
        pid = data.draw(st.sampled_from(sorted(self.leaving)))
        assert self.places.place(pid) == self.leaving[pid]
        assert self.places.died(pid, 0) == Holder(self.leaving.pop(pid), self.was.get(pid), leaving=True)

    @invariant()
    def who_is_where(self):
        assert {pid: self.places.place(pid) for pid in self.holds} == self.holds
        assert [self.places.pid_at(place) for place in range(WORKERS)] == [
            next((pid for pid, held in self.holds.items() if held == place), None) for place in range(WORKERS)
        ]
        assert dict(self.places.waiting_spares()) == {spare: pid for pid, spare in self.waits.items()}
        assert len(self.places.processes()) == len(self.holds) + len(self.waits) + len(self.leaving)
        assert len(self.waits) <= SPARES
        assert bool(self.places) == bool(self.holds or self.waits or self.leaving)


AnyPool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyPool = AnyPool.TestCase


def test_one_that_dies_before_it_was_told_of_is_known_by_its_launch():
    places = Places(2, 1, 1)
    assert places.died(7, 1) == Holder(1, None)
    places.asked(0)
    assert places.vacant_seats() == []
    assert places.died(8, 2) == Holder(None, 0)
    assert places.vacant_seats() == [0]


def test_a_seat_in_which_one_was_followed_is_not_given_up_by_its_end():
    """Its follower was given a place, and may not have noticed that yet: the word in the arena is its own."""
    places = Places(2, 1, 2)
    for pid, place in ((12, 0), (13, 1)):
        places.asked(0)
        places.launched(places.seat_of(0), pid)
        places.seated(pid, place)
    assert places.died(12, 2) == Holder(0, None)
    assert places.died(13, 2) == Holder(1, 0)


def test_processes_are_named_by_what_they_do():
    places = Places(2, 1, 1)
    places.launched(1, 11)
    places.launched(0, 10)
    places.launched(2, 12)
    assert places.processes() == [("worker 0", 10), ("worker 1", 11), ("spare 0", 12)]
