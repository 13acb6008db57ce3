"""Ranges against a plain set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.dlq.ranges import Ranges

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda at: (at[0], at[0] + at[1])), max_size=25)


@given(pairs, st.integers(0, 70))
def test_it_holds_what_a_set_holds_in_as_few_intervals_as_there_can_be(
    given: list[tuple[int, int]], below: int
) -> None:
    ranges = Ranges(given)
    held = {position for start, end in given for position in range(start, end)}
    assert {position for position in range(-1, 75) if position in ranges} == held
    assert bool(ranges) is bool(held)
    gaps = [start for (_, end), (start, _) in zip(ranges.pairs(), ranges.pairs()[1:], strict=False) if start <= end]
    assert gaps == []
    ranges.cut(below)
    assert {position for position in range(75) if position in ranges} == {each for each in held if each >= below}


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="no interval: 3 to 3"):
        Ranges([(3, 3)])
