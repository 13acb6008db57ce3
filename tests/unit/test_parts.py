"""pythia_fast.pool.parts: the search for the rows that kill, with a simulated pool."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.pool.parts import DEATHS_ALONE, Part, Suspects, convicted, convicts_next, parts_after, parts_to_go


def search(rows: int, killers: set[int], chance: set[int] = frozenset(), most: int = 5000):
    """(rows handled, rows convicted, deaths). ``chance``: calls during which a holder dies whatever its rows. ``most``:
    rows of a call."""
    handled: list[int] = []
    guilty: list[int] = []
    deaths = calls = 0
    parts, suspects, in_hand = parts_to_go(Suspects(0, 0, 0, 0), rows, 0, most, died=False), None, 0
    while True:
        for part in parts:
            calls += 1
            assert 0 < part.end - part.begin <= most
            assert part.begin < in_hand or part.deaths_before == 0
            in_hand = max(in_hand, part.end)
            if calls in chance or any(part.begin <= row < part.end for row in killers):
                deaths += 1
                same = suspects is not None and suspects[:2] == part[:2]
                suspects = Suspects(part.begin, part.end, suspects.deaths + 1 if same else 1, part.deaths_before)
                break
            handled += range(part.begin, part.end)
        else:
            return handled, guilty, deaths
        if convicted(suspects):
            guilty.append(suspects.begin)
        parts = parts_to_go(suspects, rows, len(guilty), most, died=True)


@given(st.integers(1, 5000), st.data())
def test_every_killer_is_convicted_and_every_other_row_is_handled_once_and_in_order(rows: int, data: st.DataObject):
    killers = set(data.draw(st.lists(st.integers(0, rows - 1), max_size=6)))
    handled, guilty, _ = search(rows, killers)
    assert guilty == sorted(killers)
    assert handled == sorted(set(range(rows)) - killers)


@given(st.integers(1, 300), st.integers(1, 100), st.data())
def test_rows_that_waited_together_are_searched_a_call_at_a_time(rows: int, most: int, data: st.DataObject):
    killers = set(data.draw(st.lists(st.integers(0, rows - 1), max_size=6)))
    handled, guilty, _ = search(rows, killers, most=most)
    assert guilty == sorted(killers)
    assert handled == sorted(set(range(rows)) - killers)


@given(st.integers(1, 5000), st.sets(st.integers(1, 40), max_size=2))
def test_deaths_by_chance_convict_nobody(rows: int, chance: set[int]):
    handled, guilty, deaths = search(rows, set(), chance)
    assert guilty == []
    assert handled == list(range(rows))
    assert deaths <= len(chance)


@given(st.integers(0, 999))
def test_one_killer_of_a_thousand_rows_costs_at_most_eleven_launches(killer: int):
    _, guilty, deaths = search(1000, {killer})
    assert guilty == [killer]
    assert deaths <= 4


def test_a_handler_that_kills_on_every_row_is_told_by_its_first():
    suspects = Suspects(0, 1, DEATHS_ALONE, 3)
    assert convicted(suspects)
    assert parts_after(suspects, 1, 1, 9) == []
    assert parts_after(suspects, 9, 1, 9) == [Part(1, 9, 1)]


def test_a_row_that_is_a_batch_of_its_own_is_convicted_at_the_third_death():
    assert [convicted(Suspects(0, 1, deaths, 0)) for deaths in (1, 2, 3)] == [False, False, True]
    assert [convicts_next(Suspects(0, 1, deaths, 0)) for deaths in (0, 1, 2)] == [False, False, True]
    assert convicts_next(Suspects(4, 5, 1, 1))


def test_where_killers_are_dense_a_further_one_costs_four_deaths():
    rows = 1000
    _, guilty, deaths = search(rows, set(range(rows)))
    assert guilty == list(range(rows))
    assert deaths <= 4 * rows + 10


def test_a_death_between_two_parts_leaves_the_rest_to_be_handled():
    assert parts_after(Suspects(5, 5, 0, 0), 9, 0, 9) == [Part(5, 9, 1)]
    assert parts_after(Suspects(9, 9, 0, 0), 9, 0, 9) == []


def test_no_part_is_larger_than_a_call_may_be():
    parts = parts_to_go(Suspects(0, 200, 1, 0), 200, 0, 1, died=True)
    assert parts == [Part(row, row + 1, 1) for row in range(200)]
