"""UndoneRows: whose the rows of an aborted transaction are."""

from __future__ import annotations

from pythia_fast.runtime.undone_rows import UndoneRows


def test_rows_are_those_of_who_has_their_partition_at_the_end() -> None:
    undone = UndoneRows()
    undone.assign([0, 1])
    undone.settle(0, 5)
    undone.settle(1, 7)
    undone.drop(1, 20)  # was in no transaction yet
    assert (undone.ours, undone.of_others) == (20, 0)
    undone.abort()
    assert (undone.ours, undone.of_others) == (32, 0)
    undone.forget([0])
    assert (undone.ours, undone.of_others) == (27, 5)
    undone.forget([1])
    assert (undone.ours, undone.of_others) == (0, 32)


def test_what_is_committed_or_read_again_is_nobodys() -> None:
    undone = UndoneRows()
    undone.assign([0])
    undone.settle(0, 5)
    undone.committed()
    undone.abort()
    assert (undone.ours, undone.of_others) == (0, 0)
    undone.settle(0, 3)
    undone.abort()
    undone.rewound()
    assert (undone.ours, undone.of_others) == (0, 0)
