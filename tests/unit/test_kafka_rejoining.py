"""brokers/kafka_rejoining: how often a member joins its group again."""

from __future__ import annotations

import itertools

import pytest

from pythia_fast.brokers.kafka_rejoining import LONGEST_APART_S, LOOK_AGAIN_S, Rejoining


class Played:
    """A member that looks every 5 s, whose looks always find partitions that nobody reads."""

    def __init__(self, session_s: float, chance: float) -> None:
        self.now_s = 100.0
        self.rejoining = Rejoining(session_s, 300, clock=lambda: self.now_s, chance=lambda: chance)

    def times(self, count: int, held: int = 0) -> list[float]:
        """When it joins again, in seconds after the first look."""
        begun, found = self.now_s, []
        while len(found) < count:
            if self.rejoining.is_due(held):
                found.append(self.now_s - begun)
                self.rejoining.rejoined()
                self.rejoining.changed()
            self.now_s += 5
        return found


def test_each_time_in_vain_doubles_the_wait_up_to_ten_minutes() -> None:
    times = Played(session_s=40, chance=0).times(8)
    apart = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] == 5
    assert apart == [40, 80, 160, 320, 600, 600, 600]
    assert LONGEST_APART_S == 600


def test_a_session_longer_than_that_is_still_waited_for() -> None:
    times = Played(session_s=1800, chance=0).times(3)
    assert [times[1] - times[0], times[2] - times[1]] == [1800, 1800]


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.99])
def test_chance_parts_members_that_look_at_the_same_time(chance: float) -> None:
    played = Played(session_s=40, chance=chance)
    times = played.times(2)
    assert 40 * (1 + chance) <= times[1] - times[0] < 40 * (1 + chance) + 5
    assert played.rejoining.look_after_s() == LOOK_AGAIN_S * (0.5 + chance)


def test_what_helped_is_forgotten() -> None:
    played = Played(session_s=40, chance=0)
    played.times(3)
    assert played.rejoining.times == 3
    played.rejoining.helped()
    assert (played.rejoining.times, played.rejoining.pause_s) == (0, 0)
    assert played.times(2) == [5, 45]


def test_one_that_has_partitions_waits_until_nobody_may_still_give_them_back() -> None:
    assert Played(session_s=40, chance=0).times(1, held=2) == [300]
