"""Epochs: no transaction ever holds an output of a row at or beyond a position that it commits, or lacks one below."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.runtime.epochs import Epochs

PARTITIONS = 3
WORKERS = 2
Row = tuple[int, int]  #: partition, offset


@dataclass
class Batch:
    """A slot: rows of one lane group, of one epoch."""

    epoch: int
    lane: int
    rows: list[tuple[int, int, int]] = field(default_factory=list)  #: partition, its index, offset
    left: list[tuple[int, int, int]] = field(default_factory=list)  #: those whose outputs are still to come

    def seal(self) -> Batch:
        self.left = list(self.rows)
        return self


class Broker:
    """What a read_committed reader and the group's next owner see."""

    def __init__(self) -> None:
        self.seen: list[Row] = []
        self.positions = [0] * PARTITIONS
        self.open: list[Row] = []

    def commit(self, positions: dict[int, int]) -> None:
        self.seen += self.open
        self.open = []
        for partition, position in positions.items():
            assert position > self.positions[partition]
            self.positions[partition] = position
        self.check()

    def check(self) -> None:
        below = [(p, offset) for p in range(PARTITIONS) for offset in range(self.positions[p])]
        assert sorted(self.seen) == below


class Run:
    """A runtime as the completion thread sees it: the intake reads, the pool finishes batches in any order."""

    def __init__(self, ordering: Literal["unordered", "partition", "key"]) -> None:
        self.ordering = ordering
        self.broker = Broker()
        self.epochs = Epochs()
        self.epoch = 0
        self.read_in_epoch = False
        self.next_index = 0
        self.index: dict[int, int] = {}  #: partition -> its index now; absent: it is not ours
        self.partition: dict[int, int] = {}
        self.at = [0] * PARTITIONS
        self.open: dict[int, Batch] = {}
        self.pool: list[Batch] = []
        self.held: list[Batch] = []
        for partition in range(PARTITIONS):
            self.assign(partition)
        self.begin()

    # -- the intake

    def assign(self, partition: int) -> None:
        self.index[partition] = self.next_index
        self.partition[self.next_index] = partition
        self.epochs.assign(self.next_index)
        self.next_index += 1
        self.at[partition] = self.broker.positions[partition]

    def read(self, partition: int, rows: int) -> None:
        if partition not in self.index:
            return
        for offset in range(self.at[partition], self.at[partition] + rows):
            lane = {"unordered": 0, "partition": partition, "key": hash((partition, offset * 7))}[
                self.ordering
            ] % WORKERS
            batch = self.open.setdefault(lane, Batch(self.epoch, lane))
            batch.rows.append((partition, self.index[partition], offset))
        self.at[partition] += rows
        self.read_in_epoch = True

    def publish(self, lane: int) -> None:
        if lane in self.open:
            self.pool.append(self.open.pop(lane).seal())

    def next_epoch(self) -> None:
        """An epoch without a row is not closed, except by a rewind."""
        if self.read_in_epoch:
            self.close_epoch()

    def close_epoch(self) -> None:
        for lane in list(self.open):
            self.publish(lane)
        self.epoch += 1
        self.read_in_epoch = False

    def rewind(self) -> None:
        """After an abort."""
        for partition, index in list(self.index.items()):
            self.epochs.forget(index)
            self.assign(partition)
        self.close_epoch()
        self.epochs.resume(self.epoch)
        self.begin()

    # -- the completion thread

    def complete(self, which: int, rows: int) -> None:
        """The pool hands a batch back with some of its rows; the others wait, and come back with a later round."""
        if not self.pool:
            return
        at = which % len(self.pool)
        if self.ordering != "unordered":  # a lane's batches are handled in their order
            lane = self.pool[at].lane
            at = next(i for i, batch in enumerate(self.pool) if batch.lane == lane)
        batch = self.pool.pop(at)
        self.arrived(batch, rows)

    def arrived(self, batch: Batch, rows: int) -> None:
        turn = self.epochs.turn(batch.epoch)
        if turn == "never":
            return
        if turn == "later":
            self.held.append(batch)
            return
        done, batch.left = batch.left[:rows], batch.left[rows:]
        self.broker.open += [(partition, offset) for partition, _, offset in done]
        if batch.left:
            self.pool.insert(0, batch)
            return
        for _, index, offset in batch.rows:
            self.epochs.settle(index, offset + 1)

    def oldest(self) -> int | None:
        return min((batch.epoch for batch in self.live() if batch.epoch >= self.epochs.first), default=None)

    def begin(self) -> None:
        self.epochs.begin(self.epoch, self.oldest())
        held, self.held = self.held, []
        for batch in held:
            self.arrived(batch, len(batch.left))

    def live(self) -> list[Batch]:
        return [*self.open.values(), *self.pool, *self.held]

    def commit(self) -> None:
        if not self.epochs.complete(self.epoch, self.oldest()):
            return
        positions = self.epochs.positions()
        self.epochs.close()
        self.broker.commit({self.partition[index]: position for index, position in positions.items()})
        self.epochs.committed()
        self.begin()

    def abort(self) -> None:
        self.epochs.abort()
        self.broker.open = []
        self.held = []
        self.rewind()

    def revoke(self, partition: int) -> None:
        """As the group does: finished and committed where it can be, else the transaction is aborted."""
        if partition not in self.index:
            return
        index = self.index[partition]
        if self.epochs.holds(index) or any(index in (row[1] for row in batch.rows) for batch in self.live()):
            self.epochs.abort()
            self.broker.open = []
            self.held = []
            self.epochs.forget(index)
            del self.index[partition]
            self.rewind()
        else:
            self.epochs.forget(index)
            del self.index[partition]

    def finish(self) -> None:
        """A drain."""
        for partition in range(PARTITIONS):
            if partition not in self.index:
                self.assign(partition)
        self.next_epoch()
        for _ in range(3):
            while self.pool:
                self.complete(0, 1 << 30)
            self.commit()
        assert not self.live()
        assert not self.epochs.positions()
        self.broker.check()


common = st.one_of(
    st.tuples(st.just("read"), st.integers(0, PARTITIONS - 1), st.integers(1, 5)),
    st.tuples(st.just("publish"), st.integers(0, WORKERS - 1)),
    st.tuples(st.just("complete"), st.integers(0, 5), st.integers(1, 12)),
    st.tuples(st.just("next_epoch")),
    st.tuples(st.just("commit")),
)
rare = st.one_of(
    st.tuples(st.just("abort")),
    st.tuples(st.just("revoke"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("assign_again"), st.integers(0, PARTITIONS - 1)),
)
steps = st.lists(st.integers(0, 9).flatmap(lambda which: rare if which == 9 else common), min_size=20, max_size=120)


@settings(max_examples=500, deadline=None)
@given(ordering=st.sampled_from(["unordered", "partition", "key"]), steps=steps)
def test_a_reader_sees_exactly_the_rows_below_the_positions(
    ordering: Literal["unordered", "partition", "key"], steps: list[tuple[str, int, int]]
) -> None:
    run = Run(ordering)
    for name, *arguments in steps:
        if name == "assign_again":
            if arguments[0] not in run.index:
                run.assign(arguments[0])
        else:
            getattr(run, name)(*arguments)
    read, ours = list(run.at), set(run.index)
    run.finish()
    for partition in range(PARTITIONS):  # and a drain leaves nothing behind
        assert run.broker.positions[partition] == (read[partition] if partition in ours else run.at[partition])


def test_batches_of_a_later_epoch_wait() -> None:
    epochs = Epochs()
    assert epochs.turn(0) == "later"  # no transaction is open yet
    epochs.begin(3, None)
    assert [epochs.turn(epoch) for epoch in (2, 3, 4)] == ["now", "now", "later"]
    epochs.close()
    assert epochs.turn(3) == "later"


def test_an_open_transaction_may_take_more_epochs_and_no_fewer() -> None:
    epochs = Epochs()
    epochs.extend(5)
    assert epochs.turn(0) == "later"  # no transaction is open yet
    epochs.begin(3, None)
    epochs.extend(5)
    epochs.extend(4)
    assert [epochs.turn(epoch) for epoch in (5, 6)] == ["now", "later"]
    assert not epochs.complete(6, 5)
    assert epochs.complete(6, None)


def test_a_transaction_is_complete_once_its_epochs_are_closed_and_settled() -> None:
    epochs = Epochs()
    assert not epochs.complete(9, None)
    epochs.begin(3, None)
    assert not epochs.complete(3, None)  # batches of epoch 3 may still be opened
    assert not epochs.complete(4, 3)
    assert epochs.complete(4, 4)
    assert epochs.complete(4, None)


def test_closed_epochs_do_not_wait_for_the_open_one() -> None:
    epochs = Epochs()
    epochs.begin(3, 1)
    assert [epochs.turn(epoch) for epoch in (1, 2, 3)] == ["now", "now", "later"]
    assert epochs.complete(3, 3)


def test_what_was_read_before_an_abort_never_counts() -> None:
    epochs = Epochs()
    epochs.assign(0)
    epochs.begin(3, None)
    epochs.settle(0, 10)
    epochs.abort()
    assert epochs.positions() == {}
    assert epochs.turn(7) == "never"  # nobody has gone back yet
    epochs.resume(5)
    epochs.begin(5, 5)
    assert [epochs.turn(epoch) for epoch in (4, 5, 6)] == ["never", "now", "later"]


def test_a_partition_of_the_open_transaction_cannot_be_forgotten() -> None:
    epochs = Epochs()
    epochs.assign(0)
    epochs.begin(0, None)
    epochs.settle(0, 10)
    with pytest.raises(ValueError, match="partition 0 has rows in the open transaction"):
        epochs.forget(0)
    epochs.committed()
    epochs.forget(0)
    epochs.settle(0, 20)
    assert epochs.positions() == {}
