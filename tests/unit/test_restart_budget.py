"""pythia_fast.pool.restart_budget: which deaths are counted, and when they are too many."""

from __future__ import annotations

from pythia_fast.pool.restart_budget import Death, RestartBudget


def spend(budget, *deaths):
    return [budget.spend(death) for death in deaths]


def in_vain(at_s=0.0, settled=0):
    return Death(at_s, settled, "nothing", handled=False)


def found(handled=False, settled=0):
    return Death(0.0, settled, "row", handled)


def narrowed():
    return Death(0.0, 0, "part", handled=False)


def test_deaths_in_vain_are_counted_within_the_period_only():
    budget = RestartBudget(deaths_in_vain=2, period_s=10)
    assert spend(budget, in_vain(0), in_vain(1), in_vain(11), in_vain(12), in_vain(23)) == [None] * 5
    (reason,) = spend(budget, in_vain(24), in_vain(25))[1:]
    assert reason == "3 of its processes died within 10 s and no row was settled between"


def test_a_settled_row_begins_the_count_anew():
    budget = RestartBudget(deaths_in_vain=2, rows_in_a_row=2)
    deaths = [in_vain(settled=0), in_vain(settled=0), in_vain(settled=1), in_vain(settled=1)]
    assert spend(budget, *deaths) == [None] * 4
    assert budget.spend(in_vain(settled=1)) is not None


def test_a_row_found_begins_the_count_of_deaths_in_vain_anew():
    budget = RestartBudget(deaths_in_vain=2, rows_in_a_row=9)
    assert spend(budget, in_vain(), in_vain(), found(), in_vain(), in_vain(), found()) == [None] * 6


def test_rows_in_a_row_count_until_one_is_handled():
    budget = RestartBudget(rows_in_a_row=2)
    assert spend(budget, found(), found(), found(handled=True), found()) == [None] * 4
    assert budget.spend(found()) == "3 rows, one after the other, each killed the processes that handled it alone"


def test_deaths_between_rows_in_a_row_do_not_break_the_row():
    """Batches of one row: two deaths, then the row is found; the next batch is the same."""
    budget = RestartBudget(rows_in_a_row=2)
    batch = [narrowed(), narrowed(), found()]
    assert spend(budget, *batch, *batch) == [None] * 6
    assert spend(budget, *batch)[2] is not None


def hung(at_s, settled=0):
    return Death(at_s, settled, "nothing", handled=False, booted=False)


def test_setups_in_vain_count_in_a_row_however_long_each_takes():
    budget = RestartBudget(deaths_in_vain=2, period_s=10)
    assert spend(budget, hung(0), hung(300)) == [None] * 2
    reason = "3 of its processes, one after the other, did not come up and no row was settled between"
    assert budget.spend(hung(600)) == reason


def test_a_process_that_was_up_or_a_settled_row_begins_the_count_of_setups_anew():
    budget = RestartBudget(deaths_in_vain=2, period_s=10)
    assert spend(budget, hung(0), hung(300), in_vain(600), hung(900), hung(1200)) == [None] * 5
    assert spend(budget, hung(1500, settled=1), hung(1800, settled=1)) == [None] * 2
    assert budget.spend(hung(2100, settled=1)) is not None


def test_deaths_that_narrow_the_search_are_not_counted():
    budget = RestartBudget(deaths_in_vain=1)
    assert spend(budget, *[narrowed()] * 50) == [None] * 50
    assert spend(budget, in_vain(), in_vain())[1] is not None
