"""pythia_fast.pool.search: which rows raise, and how many calls it takes to know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.pool.search import Search


def run(rows: int, raising: set[int], flaky: set[int] = frozenset()):
    """(rows handled, in order; rows found; calls). ``flaky``: calls that raise whatever their rows."""
    search: Search[str] = Search(rows)
    handled: list[int] = []
    found: list[int] = []
    calls = 0
    while (span := search.next()) is not None:
        calls += 1
        bad = [row for row in range(*span) if row in raising]
        error = f"row {bad[0]}" if bad else "flaky" if calls in flaky else None
        if error is None:
            handled += range(*span)
        result = search.tell(error)
        if result is not None:
            assert result[1] in (f"row {result[0]}", "flaky")
            found.append(result[0])
    return handled, found, calls


@given(st.integers(2, 3000), st.data())
def test_the_rows_that_raise_are_found_and_the_others_handled_once_and_in_order(rows: int, data: st.DataObject):
    raising = set(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=40)))
    handled, found, _ = run(rows, raising)
    assert found == sorted(raising)
    assert handled == sorted(set(range(rows)) - raising)


@given(st.integers(2, 500), st.sets(st.integers(1, 60), max_size=8))
def test_every_row_is_handled_or_found_whatever_raises_by_chance(rows: int, flaky: set[int]):
    handled, found, _ = run(rows, set(), flaky)
    assert sorted(handled + found) == list(range(rows))
    assert handled == sorted(handled)


@given(st.integers(0, 999))
def test_one_row_of_a_thousand_takes_a_call_a_halving_and_one_for_the_rest(row: int):
    assert run(1000, {row})[2] <= 12


def test_a_batch_of_nothing_but_such_rows_takes_two_calls_a_row():
    rows = 4096
    assert run(rows, set(range(rows)))[2] <= 2 * rows + 24
