"""pythia_fast.drill.result: what is wrong, as sentences."""

from __future__ import annotations

import json

import numpy as np

from pythia_fast.drill.ledger import balance, keys_of
from pythia_fast.drill.result import (
    DrillResult,
    handler_that_fails,
    promises_broken,
    recovered_text,
    result_lines,
    results_json,
)

KEYS = keys_of(1, np.arange(10))
NONE = KEYS[:0]


def test_an_account_that_balances_breaks_nothing():
    assert promises_broken(balance(KEYS, KEYS[1:], KEYS[:1]), NONE) == []


def test_what_is_lost_repeated_or_foreign_is_told_with_the_first_positions():
    lost, twice, foreign = promises_broken(balance(KEYS[:8], [*KEYS[7:], KEYS[7]], []), NONE)
    assert lost.startswith("nothing is lost, but 7 rows came out nowhere: partition 1 offset 0; partition 1 offset 1")
    assert lost.endswith("partition 1 offset 4; ...")
    assert twice == "nothing comes twice, but 1 did: partition 1 offset 7"
    assert "2 positions came that did not: partition 1 offset 8; partition 1 offset 9" in foreign


def test_what_was_not_committed_may_come_once_more():
    account = balance(KEYS, [*KEYS, *KEYS[3:]], [])
    assert promises_broken(account, KEYS[3:]) == []
    (sentence,) = promises_broken(account, KEYS[4:])
    assert sentence == "nothing before the committed position comes twice, but 1 did: partition 1 offset 3"
    (sentence,) = promises_broken(balance(KEYS, [*KEYS, *KEYS[8:], *KEYS[8:]], []), KEYS[8:])
    assert sentence.startswith("the 2 rows from the committed position on come once more at most, but 4 times one did")


def test_a_handler_that_gives_most_rows_up_shows_nothing():
    assert handler_that_fails(["ValueError: no"] * 5, 10) == []
    (sentence,) = handler_that_fails(["ValueError: no"] * 4 + ["KeyError: 'x'"] * 2, 10)
    assert "6 of 10 became dead letters" in sentence
    assert sentence.endswith("4 of them because: ValueError: no")


def test_times_to_recover():
    assert recovered_text([]) == "-"
    assert recovered_text([7.04]) == "7.0 ms"
    assert recovered_text([7.0, 250.0, 2000.0]) == "250 ms, at most 2.00 s"


def test_a_result_as_lines_and_as_json():
    passed = DrillResult(drill="kill", passed=True, rows_in=200_000, rows_out=199_999, dead_lettered=1)
    figures = "rows in 200,000  rows out 199,999  dead-lettered 1  lost 0  duplicated 0  recovered in -"
    assert result_lines(passed) == [f"drill kill: PASS  {figures}"]
    failed = DrillResult(drill="kill", passed=False, broken=["it is so"], notes=["seen"], folder="x/y")
    told = "\n".join(result_lines(failed))
    for text in ("drill kill: FAIL", "  seen", "  broken: it is so", "  promised: only the guilty row", "logs: x/y"):
        assert text in told
    unshown = DrillResult(drill="kill", passed=False, inconclusive=["too few rows"], folder="x/y")
    told = "\n".join(result_lines(unshown))
    for text in ("drill kill: INCONCLUSIVE", "  inconclusive: too few rows", "logs: x/y"):
        assert text in told
    assert "promised" not in told
    stopped = DrillResult(drill="rebalance", passed=False, error="no broker", error_code=4, notes=["seen"])
    assert result_lines(stopped) == ["drill rebalance: ERROR  no broker", "  seen"]
    both = DrillResult(drill="kill", passed=False, inconclusive=["too few rows"], broken=["it is so"])
    assert both.verdict == "FAIL"
    first, second = json.loads(results_json([passed, failed]))
    assert (first["drill"], first["passed"], first["rows_out"]) == ("kill", True, 199_999)
    assert second["broken"] == ["it is so"]
