"""The tracker: no position is committable beyond a row that is not settled, whatever order things happen in."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pythia_fast.runtime.tracker import Tracker


def test_nothing_live_commits_behind_the_last_settled_message():
    tracker = Tracker()
    tracker.assign(0)
    tracker.settle(0, 10)
    assert tracker.committable([]) == {0: 10}


def test_a_live_batch_holds_its_partition_back_and_no_other():
    tracker = Tracker()
    for partition in (0, 1):
        tracker.assign(partition)
        tracker.settle(partition, 50)
    assert tracker.committable([(0, 20), (0, 30)]) == {0: 20, 1: 50}


def test_what_is_done_behind_a_live_batch_is_known():
    tracker = Tracker()
    for partition in (0, 1, 2):
        tracker.assign(partition)
    tracker.settle(0, 50)
    tracker.settle(1, 50)
    assert tracker.held_back([(0, 20), (1, 50), (2, 7)]) == {0: 20}


def test_a_position_is_offered_once():
    tracker = Tracker()
    tracker.assign(3)
    tracker.settle(3, 7)
    positions = tracker.committable([])
    tracker.committed(positions)
    assert tracker.committable([]) == {}
    tracker.settle(3, 8)
    assert tracker.committable([]) == {3: 8}


def test_a_position_that_may_not_have_arrived_is_offered_again_when_asked_for():
    tracker = Tracker()
    for partition in (3, 4):
        tracker.assign(partition)
        tracker.settle(partition, 7)
    tracker.committed(tracker.committable([]))
    assert tracker.committable([(4, 5)], again=True) == {3: 7, 4: 5}
    tracker.forget(3)
    assert tracker.committable([], again=True) == {4: 7}


def test_results_of_an_earlier_assignment_are_dropped():
    tracker = Tracker()
    tracker.assign(0)
    tracker.settle(0, 5)
    tracker.forget(0)
    tracker.settle(0, 9)
    assert tracker.committable([]) == {}
    tracker.assign(1)
    tracker.settle(0, 11)
    assert tracker.committable([]) == {}


def test_completions_out_of_order_never_move_a_position_back():
    tracker = Tracker()
    tracker.assign(0)
    tracker.settle(0, 20)
    tracker.settle(0, 10)
    assert tracker.committable([]) == {0: 20}


class Stream(RuleBasedStateMachine):
    """Two partitions with gaps, batches that complete in any order, rebalances and restarts at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker()
        self.epoch = {}
        self.next_epoch = 0
        self.broker = {"a": 0, "b": 0}  # committed
        self.done = {"a": set(), "b": set()}
        self.given = {"a": [], "b": []}  # every offset that exists, in order
        self.batches = []  # (rows: [(name, epoch, offset)])
        self.position = {}
        for name in self.broker:
            self._assign(name)

    def _assign(self, name):
        self.epoch[name] = self.next_epoch
        self.next_epoch += 1
        self.tracker.assign(self.epoch[name])
        self.position[name] = self.broker[name]

    @rule(name=st.sampled_from("ab"), gaps=st.lists(st.integers(1, 5), min_size=1, max_size=6))
    def produce(self, name, gaps):
        for gap in gaps:
            last = self.given[name][-1] if self.given[name] else -1
            self.given[name].append(last + gap)

    @rule(names=st.lists(st.sampled_from("ab"), min_size=1, max_size=6))
    def read_a_batch(self, names):
        rows = []
        for name in names:
            offset = next((o for o in self.given[name] if o >= self.position[name]), None)
            if offset is not None:
                self.position[name] = offset + 1
                rows.append((name, self.epoch[name], offset))
        if rows:
            self.batches.append(rows)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def settle_a_batch(self, data):
        rows = self.batches.pop(data.draw(st.integers(0, len(self.batches) - 1)))
        for name, epoch, offset in rows:
            self.done[name].add(offset)
            self.tracker.settle(epoch, offset + 1)

    @rule()
    def commit(self):
        first = {}
        for rows in self.batches:
            seen = set()
            for _, epoch, offset in rows:
                if epoch not in seen:
                    seen.add(epoch)
                    first.setdefault(id(rows), []).append((epoch, offset))
        positions = self.tracker.committable([pair for pairs in first.values() for pair in pairs])
        names = {epoch: name for name, epoch in self.epoch.items()}
        for epoch, position in positions.items():
            assert epoch in names, "a position of an assignment that is over"
            self.broker[names[epoch]] = position
        self.tracker.committed(positions)

    @rule(name=st.sampled_from("ab"))
    def rebalance(self, name):
        self.tracker.forget(self.epoch[name])
        self._assign(name)

    @rule()
    def restart(self):
        self.batches.clear()
        self.tracker = Tracker()
        for name in self.broker:
            self._assign(name)

    @invariant()
    def nothing_committed_is_undone(self):
        for name, position in self.broker.items():
            missing = [o for o in self.given[name] if o < position and o not in self.done[name]]
            assert not missing, f"{name}: {position} committed over {missing}"


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 100)), st.integers(0, 100))
def test_committable_is_the_lowest_live_offset_or_the_settled_one(live, settled):
    tracker = Tracker()
    tracker.assign(0)
    tracker.settle(0, settled)
    expected = min([*live, settled])
    assert tracker.committable([(0, offset) for offset in live]) == ({0: expected} if expected > -1 else {})
