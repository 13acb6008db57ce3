"""brokers/kafka_foreign_partitions: when a run to the end is done with what others read; with brokers made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from pythia_fast.brokers.kafka_coordinator import Owner
from pythia_fast.brokers.kafka_foreign_look import UNTOLD, Bounds, Key, Look, Looking
from pythia_fast.brokers.kafka_foreign_partitions import (
    SESSION_MARGIN_S,
    TOLD_AFTER_S,
    UNTOLD_MARGIN_S,
    ForeignPartitions,
)

SESSION_S = 45.0
OWN, OTHER, THIRD = ("orders", 0), ("orders", 1), ("orders", 2)
SHOP, DESK = Owner("shop-1", "shop at 10.0.0.1"), Owner("desk-1", "desk at 10.0.0.2")


class Brokers:
    """Stand for the brokers, for what asks them, and for time."""

    def __init__(self, *topics: str) -> None:
        self.now_s = 100.0
        self.bounds: dict[Key, Bounds] = dict.fromkeys((OWN, OTHER, THIRD), (0, 100))
        self.positions: dict[Key, int] = {OWN: 100, OTHER: 40, THIRD: 100}
        self.owners: Mapping[Key, Owner] | None = {OTHER: SHOP, THIRD: DESK}
        self.trouble = ""
        self.log: list[str] = []
        self.begun = self.closed = 0
        self.last: Look | None = None
        self.foreign = ForeignPartitions(
            "g", topics or ["orders"], SESSION_S, looking=self.begin, log=self.log.append, clock=lambda: self.now_s
        )
        self.foreign.ended([7])

    def begin(self, bounds: Mapping[Key, Bounds | None]) -> Looking:
        self.begun += 1
        return cast(Looking, self)

    def ask_about(self, bounds: Mapping[Key, Bounds | None]) -> None:
        known = {key: marks or (0, 100) for key, marks in bounds.items()}
        finished = frozenset(key for key, marks in known.items() if self.positions.get(key, 0) >= marks[1])
        if self.trouble:
            self.last = Look(self.now_s, frozenset(known), trouble=self.trouble)
        else:
            self.last = Look(self.now_s, frozenset(known), known, dict(self.positions), finished, self.owners)

    def close(self) -> None:
        self.closed += 1

    def rest(self, own: Mapping[Key, int] | None = None) -> str:
        return self.foreign.rest({OWN: 7} if own is None else own, self.bounds)

    def later(self, seconds: float) -> None:
        self.now_s += seconds


def test_nobody_is_asked_where_all_partitions_are_our_own() -> None:
    brokers = Brokers()
    del brokers.bounds[OTHER], brokers.bounds[THIRD]
    assert brokers.rest() == "none"
    assert brokers.begun == 0


def test_nobody_is_asked_about_partitions_that_were_read_before_the_run() -> None:
    brokers = Brokers()
    brokers.bounds |= {OTHER: (100, 100), THIRD: (100, 100)}
    assert brokers.rest() == "none"
    assert brokers.begun == 0


def test_what_others_have_read_is_done_at_once() -> None:
    brokers = Brokers()
    brokers.positions[OTHER] = 100
    assert brokers.rest() == "none"
    assert (brokers.foreign.left, brokers.log, brokers.closed) == ((), [], 1)


def test_a_partition_that_comes_is_read() -> None:
    brokers = Brokers()
    assert brokers.rest() == "awaited"
    assert brokers.rest({OWN: 7, OTHER: 8}) == "here"
    assert brokers.closed == 1
    brokers.foreign.ended([7, 8])
    assert brokers.rest({OWN: 7, OTHER: 8}) == "none"


def test_an_owner_that_commits_lives() -> None:
    brokers = Brokers()
    assert brokers.rest() == "awaited"
    brokers.positions[OTHER] = 41
    assert brokers.rest() == "none"
    (sentence,) = brokers.foreign.left
    assert sentence.startswith("orders[1] left to shop at 10.0.0.1, which lives: up to 59 messages before the end are")
    assert brokers.log == [f"kafka: {sentence}"]


def test_commits_of_one_member_say_nothing_of_another() -> None:
    brokers = Brokers()
    brokers.positions[THIRD] = 50
    assert brokers.rest() == "awaited"
    brokers.positions[THIRD] = 60
    assert brokers.rest() == "awaited"
    brokers.positions[OTHER] = 41
    assert brokers.rest() == "none"
    assert len(brokers.foreign.left) == 2


@pytest.mark.parametrize(
    ("owner", "patience_s"), [(SHOP, SESSION_S + SESSION_MARGIN_S), (UNTOLD, SESSION_S + UNTOLD_MARGIN_S)]
)
def test_an_owner_that_is_a_member_after_a_session_lives(owner: Owner, patience_s: float) -> None:
    brokers = Brokers()
    brokers.owners = {OTHER: owner, THIRD: owner}
    assert brokers.rest() == "awaited"
    brokers.later(patience_s - 0.1)
    assert brokers.rest() == "awaited"
    brokers.later(0.2)
    assert brokers.rest() == "none"
    assert owner.name in brokers.foreign.left[0]


def test_another_owner_is_given_a_session_of_its_own() -> None:
    brokers = Brokers()
    assert brokers.rest() == "awaited"
    brokers.later(SESSION_S)
    brokers.owners = None
    assert brokers.rest() == "awaited"
    brokers.later(SESSION_S)
    brokers.owners = {OTHER: Owner("shop-2", "shop at 10.0.0.3"), THIRD: DESK}
    assert brokers.rest() == "awaited"
    brokers.later(SESSION_S)
    assert brokers.rest() == "awaited"
    brokers.later(SESSION_MARGIN_S)
    assert brokers.rest() == "none"


def test_where_owners_are_not_told_commits_of_one_partition_say_nothing_of_another() -> None:
    brokers = Brokers()
    brokers.owners = {OTHER: UNTOLD, THIRD: UNTOLD}
    brokers.positions[THIRD] = 50
    assert brokers.rest() == "awaited"
    brokers.positions[THIRD] = 60
    assert brokers.rest() == "awaited"


def test_partitions_that_nobody_has_are_waited_for() -> None:
    brokers = Brokers()
    brokers.owners = {THIRD: DESK}
    for _ in range(10):
        assert brokers.rest() == "awaited"
        brokers.later(SESSION_S)
    (line,) = brokers.log
    assert line.endswith("no member of group g has them")


def test_what_is_waited_for_is_told_once() -> None:
    brokers = Brokers()
    brokers.trouble = "no answer"
    for seconds in (0.0, TOLD_AFTER_S - 0.1, 0.2, TOLD_AFTER_S):
        brokers.later(seconds)
        assert brokers.rest() == "awaited"
        assert len(brokers.log) == (brokers.now_s >= 100 + TOLD_AFTER_S)
    assert "the brokers do not tell how far those of others are: no answer" in brokers.log[0]


def test_topics_that_only_a_pattern_names_are_those_that_others_read() -> None:
    brokers = Brokers("^ord.*")
    del brokers.bounds[OTHER], brokers.bounds[THIRD]
    brokers.owners = {OWN: SHOP, OTHER: DESK, ("payments", 0): DESK}
    assert brokers.rest() == "awaited"
    assert brokers.rest() == "awaited"
    assert brokers.last is not None
    assert brokers.last.keys == {OTHER}
    brokers.positions[OTHER] = 100
    assert brokers.rest() == "none"
