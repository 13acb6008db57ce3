"""pool/repeated_failures.py: which failures are the same, and for how long."""

from __future__ import annotations

from pythia_fast.pool.repeated_failures import FORGET_S, MOST_REASONS, RepeatedFailures


def failure(line: int, cause: str = "OSError: no model") -> tuple[str, str]:
    return cause, f'Traceback:\n  File "orders.py", line {line}, in setup\n    load()\n{cause}'


def test_failures_at_one_place_are_counted_whatever_they_say() -> None:
    failed = RepeatedFailures()
    assert [failed.count(float(n), *failure(3, f"OSError: port {n}")) for n in range(3)] == [1, 2, 3]
    assert failed.count(3.0, *failure(4)) == 1
    assert failed.count(3.0, *failure(3, "ValueError: no")) == 1
    assert failed.count(4.0, *failure(3)) == 4


def test_one_that_did_not_come_for_long_is_told_anew() -> None:
    failed = RepeatedFailures()
    assert failed.count(0.0, *failure(3)) == 1
    assert failed.count(FORGET_S, *failure(3)) == 2
    assert failed.count(2 * FORGET_S + 1, *failure(3)) == 1


def test_no_more_places_are_remembered_than_there_is_room_for() -> None:
    failed = RepeatedFailures()
    for line in range(MOST_REASONS):
        failed.count(0.0, *failure(line))
    assert failed.count(0.0, *failure(MOST_REASONS)) == 1
    assert failed.count(0.0, *failure(0)) == 1
