"""pythia_fast.pool.spare_care: when a spare is made again, and what is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.pool.spare_care import FIRST_WAIT_S, FORGET_S, LONGEST_WAIT_S, SpareCare


def test_the_first_one_is_made_at_once() -> None:
    assert SpareCare().may_launch(0.0)


def test_failures_are_told_of_once_until_one_is_up() -> None:
    care = SpareCare()
    assert [care.failed(float(now)) for now in range(5)] == [True] + [False] * 4
    assert [care.up(), care.up()] == [True, False]
    assert care.failed(6.0)


def test_a_long_time_without_a_failure_is_a_new_beginning() -> None:
    care = SpareCare()
    for _ in range(20):
        care.failed(0.0)
    assert not care.may_launch(LONGEST_WAIT_S - 1)
    later = FORGET_S + LONGEST_WAIT_S + 1
    care.failed(later)
    assert care.may_launch(later + FIRST_WAIT_S)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_one_is_made_again_within_the_longest_wait_and_never_at_once(gaps: list[float]) -> None:
    care, now = SpareCare(), 0.0
    for gap in gaps:
        now += gap
        care.failed(now)
        assert not care.may_launch(now)
        assert care.may_launch(now + LONGEST_WAIT_S)
