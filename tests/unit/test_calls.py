"""pythia_fast.pool.calls: what the calls of a batch tell of the service, and what an outage costs its rows."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_fast import CircuitBreaker
from pythia_fast._ext.batch_memory import ColumnTooLargeError
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.ring import CIRCUIT_CLOSED, CIRCUIT_FAILING, CIRCUIT_HALF_OPEN, CIRCUIT_OPEN
from pythia_fast.errors import HandlerError, OutputValueError
from pythia_fast.pool.calls import Calls, Doubt, Probes
from pythia_fast.pool.notes import Notes, write_notes
from pythia_fast.pool.search import Search
from tests.support.ring_feed import make_arena

MAX_ATTEMPTS = 3


def make(circuit=CIRCUIT_CLOSED, **options):
    arena = make_arena(Plan(None))
    arena.set_circuit(circuit)
    return Calls(CircuitBreaker(**options), arena, MAX_ATTEMPTS, Probes(ordered=False))


def told(calls):
    notes = Notes()
    calls.report(notes)
    return notes.circuit, notes.outage


def test_no_call_tells_nothing():
    assert told(make()) == ("", "")


def test_an_outage_outweighs_what_was_answered_before():
    calls = make()
    assert not calls.ended(None)
    assert told(calls) == ("answered", "")
    assert calls.ended(TimeoutError("too late"))
    assert told(calls) == ("outage", "TimeoutError: too late")


def test_an_exception_whose_text_is_no_unicode_is_told_all_the_same():
    calls = make()
    assert calls.ended(ConnectionError("upload of caf\udce9.csv"))
    notes = Notes()
    calls.report(notes)
    assert notes.outage == r"ConnectionError: upload of caf\udce9.csv"
    assert write_notes(notes, memoryview(bytearray(1000)))


@pytest.mark.parametrize("error", [HandlerError("no table"), OutputValueError(3, "too large")])
def test_a_result_that_is_wrong_is_an_answer_whatever_is_expected(error):
    calls = make(expected=Exception)
    assert not calls.ended(error)
    assert told(calls) == ("answered", "")


def test_an_exception_that_cannot_be_compared_with_what_is_expected_is_an_answer():
    class Refuses(type):
        def __instancecheck__(cls, instance):
            raise TypeError("do not ask")

    class Away(Exception, metaclass=Refuses):
        pass

    calls = make(expected=Away)
    assert not calls.ended(None)
    assert not calls.ended(error := ValueError("bad row"))
    assert told(calls) == ("answered", "")
    assert error.__notes__ == [
        "(CircuitBreaker(expected=) could not be compared with this exception: TypeError: do not ask)"
    ]


@pytest.mark.parametrize("error", [ColumnTooLargeError("names"), MemoryError()])
def test_rows_that_do_not_fit_were_no_call(error):
    calls = make(expected=Exception)
    assert not calls.ended(error)
    assert told(calls) == ("", "")


@pytest.mark.parametrize(
    ("circuit", "spent"),
    [(CIRCUIT_CLOSED, 2), (CIRCUIT_FAILING, 1), (CIRCUIT_OPEN, 1), (CIRCUIT_HALF_OPEN, 1)],
)
def test_an_outage_costs_an_attempt_only_where_the_batch_before_was_answered(circuit, spent):
    calls = make(circuit)
    calls.ended(ConnectionError())
    assert calls.spent(2) == spent


def test_rows_that_were_left_out_keep_their_last_attempt():
    calls = make()
    calls.ended(ConnectionError())
    assert [calls.left_out(attempt) for attempt in (1, 2, 3, 4)] == [1, 2, 2, 3]


class Service:
    """Answers calls without ``guilty`` rows, until it has been called so often."""

    def __init__(self, guilty=(), until=10**6):
        self.guilty, self.until, self.calls = set(guilty), until, 0

    def call(self, rows):
        self.calls += 1
        return ConnectionError("no") if self.calls > self.until or self.guilty & set(rows) else None


def search(service, rows, attempt=MAX_ATTEMPTS):
    """As pool/rows.py searches rows whose attempts are used up: (given up, handled again, Calls)."""
    calls = make()
    assert calls.ended(service.call(range(rows)))
    assert calls.used_up(attempt)
    found, left, rows_searched = [], [], Search(rows)
    doubt = Doubt(calls, attempt)
    while (span := rows_searched.next()) is not None:
        error = None
        if calls.outage:
            left += range(*span)
        else:
            error = service.call(range(*span))
            calls.ended(error)
        found += [row for row, _ in doubt.told(error, rows_searched.tell(error))]
    found += [row for row, _ in doubt.ended()]
    return found, sorted([*left, *doubt.waiting]), calls


@pytest.mark.parametrize("guilty", [0, 1, 31, 62, 63])
def test_at_the_last_attempt_the_row_that_makes_the_service_fail_is_found(guilty):
    found, left, calls = search(Service([guilty]), 64)
    assert (found, left, told(calls)) == ([guilty], [], ("answered", ""))


def test_several_are_found_where_others_are_answered_between():
    found, left, _ = search(Service([3, 20, 41]), 64)
    assert (found, left) == ([3, 20, 41], [])


@pytest.mark.parametrize("rows", [2, 3, 64, 1000])
def test_a_service_that_is_away_at_the_last_attempt_costs_no_row_and_few_calls(rows):
    service = Service(until=0)
    found, left, calls = search(service, rows)
    assert (found, left) == ([], list(range(rows)))
    assert told(calls) == ("outage", "ConnectionError: no")
    assert calls.left_out(MAX_ATTEMPTS) == MAX_ATTEMPTS
    assert calls.left_out(1) == 1  # rows of the batch that were not searched
    assert service.calls <= 2 * rows.bit_length() + 2


@pytest.mark.parametrize("until", range(1, 9))
def test_one_that_goes_away_during_the_search_costs_no_row_that_it_would_have_answered(until):
    guilty = 20
    found, left, _ = search(Service([guilty], until), 64)
    assert set(found) <= {guilty}
    answered = set(range(64)) - set(found) - set(left)
    assert not answered & {guilty}


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_a_batch_of_nothing_but_such_rows_is_given_up_row_by_row_once_it_was_searched_in_vain(rows):
    found, left, _ = search(Service(range(rows)), rows, attempt=MAX_ATTEMPTS + 1)
    assert (found, left) == ([0], list(range(1, rows)))


def test_another_exception_is_an_answer_and_costs_its_row():
    calls = make()
    calls.ended(ConnectionError("no"))
    doubt = Doubt(calls, MAX_ATTEMPTS)
    calls.ended(away := ConnectionError("no"))
    assert doubt.told(away, (0, away)) == []
    calls.ended(bad := ValueError("bad row"))
    assert doubt.told(bad, (1, bad)) == [(0, away), (1, bad)]


def test_a_circuit_that_is_no_more_closed_ends_the_search():
    calls = make()
    calls.ended(ConnectionError("no"))
    doubt = Doubt(calls, MAX_ATTEMPTS)
    calls.ended(away := ConnectionError("no"))
    assert doubt.told(away, (0, away)) == []
    calls.arena.set_circuit(CIRCUIT_OPEN)  # other processes have said so
    calls.ended(away)
    assert not calls.used_up(MAX_ATTEMPTS)
    assert doubt.told(None, None) == []  # for the rows are noted
    assert (doubt.ended(), doubt.waiting) == ([], [0])
    assert calls.left_out(MAX_ATTEMPTS) == calls.spent(MAX_ATTEMPTS) == MAX_ATTEMPTS - 1


def parts(ordered, rows=16):
    """What each of ten probes tries that fail, one after the other."""
    every, tried = np.arange(rows, dtype=np.uint32), []
    for failed in range(10):
        part, others = Probes(ordered, failed).part(every)
        assert sorted([*part, *others]) == every.tolist()
        tried.append((int(part[0]), int(part[-1]) + 1))
    return tried


def test_each_probe_that_follows_a_failed_one_tries_fewer_rows():
    assert parts(ordered=True)[:6] == [(0, 16), (0, 8), (0, 4), (0, 2), (0, 1), (0, 1)]
    assert parts(ordered=False)[:6] == [(0, 16), (0, 8), (8, 16), (0, 4), (12, 16), (0, 2)]
    assert parts(ordered=False, rows=1) == [(0, 1)] * 10


def groups_of(calls, *groups):
    return [(rows.tolist(), given) for rows, given in calls.in_parts(list(groups))]


def test_a_probe_after_a_failed_one_begins_with_a_part_which_tells_whether_the_service_is_there():
    rows, others = np.arange(8, dtype=np.uint32), np.arange(8, 10, dtype=np.uint32)
    calls = make(CIRCUIT_OPEN)
    assert groups_of(calls, (rows, 1), (others, 0)) == [(rows.tolist(), 1), ([8, 9], 0)]
    calls.ended(ConnectionError("no"))
    assert told(calls)[0] == "outage"
    probe = Calls(calls.breaker, calls.arena, MAX_ATTEMPTS, calls.probes)
    assert groups_of(probe, (rows, 1), (others, 0)) == [([0, 1, 2, 3], 1), ([4, 5, 6, 7], 1), ([8, 9], 0)]
    probe.ended(None)
    assert groups_of(probe, (others, 0)) == [([8, 9], 0)]
    probe.ended(ConnectionError("no"))
    assert (probe.spent(1), probe.used_up(MAX_ATTEMPTS)) == (1, True)
    assert told(probe)[0] == "answered"
    assert probe.probes.failed == 0


def test_a_part_that_fails_is_an_outage_that_costs_nothing():
    calls = make(CIRCUIT_OPEN)
    calls.probes.failed = 1
    calls.ended(ConnectionError("no"))
    assert (calls.spent(1), calls.used_up(MAX_ATTEMPTS)) == (0, False)
    assert told(calls)[0] == "outage"
    assert calls.probes.failed == 2


def test_calls_that_are_no_probe_are_of_all_rows():
    rows = np.arange(8, dtype=np.uint32)
    calls = Calls(CircuitBreaker(), make().arena, MAX_ATTEMPTS, Probes(ordered=False, failed=3))
    assert groups_of(calls, (rows, 1)) == [(rows.tolist(), 1)]
    calls.ended(ConnectionError("no"))
    told(calls)
    assert calls.probes.failed == 3
