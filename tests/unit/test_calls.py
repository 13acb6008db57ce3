"""pythia_fast.pool.calls: what the calls of a batch tell of the service, and what an outage costs its rows."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_fast import CircuitBreaker
from pythia_fast._ext.batch_memory import ColumnTooLargeError
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.ring import CIRCUIT_CLOSED, CIRCUIT_FAILING, CIRCUIT_HALF_OPEN, CIRCUIT_OPEN
from pythia_fast.errors import HandlerError, OutputValueError
from pythia_fast.pool.calls import PARTS_IN_A_ROW, Calls, Doubt, probe_part
from pythia_fast.pool.notes import Notes, write_notes
from pythia_fast.pool.search import Search
from tests.support.ring_feed import make_arena

MAX_ATTEMPTS = 3


def make(circuit=CIRCUIT_CLOSED, failed_probes=0, **options):
    arena = make_arena(Plan(None))
    arena.set_circuit(circuit, failed_probes)
    return Calls(CircuitBreaker(**options), arena, MAX_ATTEMPTS)


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


def test_each_probe_that_follows_a_failed_one_tries_a_quarter_of_the_rows_from_another_place():
    tried = [probe_part(4096, failed, None) for failed in range(1, 12)]
    assert [len(part) for part in tried] == [1024, 256, 64, 16, 4, 1, 1, 1, 1, 1, 1]
    assert [int(part[0]) for part in tried[:3]] == [1536, 960, 3024]
    firsts = {int(part[0]) for part in tried[5:]}
    assert len(firsts) == 6
    assert all(0 <= first < 4096 for first in firsts)
    assert probe_part(1, 7, None).tolist() == [0]


@pytest.mark.parametrize("guilty", [{0}, {99}, {0, 99}, {0, 50, 99}, set(range(90))])
def test_a_part_without_the_rows_at_fault_is_found_in_a_few_probes(guilty):
    needed = next(n for n in range(1, 200) if not guilty & set(probe_part(100, n, None).tolist()))
    assert needed <= 16


def test_where_lanes_have_an_order_a_part_has_the_first_rows_of_some_of_them():
    lane_of = np.arange(40) % 8
    seen = set()
    for failed in range(1, 9):
        part = probe_part(40, failed, lane_of)
        assert part.tolist() == sorted(part.tolist())
        for lane in np.unique(lane_of[part]):
            ours = part[lane_of[part] == lane]
            assert ours.tolist() == np.flatnonzero(lane_of == lane)[: len(ours)].tolist()
        seen.add(int(lane_of[part[0]]))
    assert len(seen) > 3


class NoOrder:
    """Stands for the lanes of rows that have none."""

    def of(self, rows):
        return None

    def none_of(self, rows, others):
        return np.arange(len(rows))


def test_only_a_probe_that_follows_a_failed_one_is_small_and_not_of_a_batch_that_killed():
    assert not make(CIRCUIT_CLOSED, 3).is_small_probe
    assert not make(CIRCUIT_OPEN, 0).is_small_probe
    calls = make(CIRCUIT_OPEN, 1)
    assert calls.is_small_probe
    calls.by_parts = True
    assert not calls.is_small_probe


def test_a_small_probe_that_is_answered_leaves_the_other_rows_to_the_next_round():
    calls = make(CIRCUIT_OPEN, 2)
    number, chosen = calls.part_of([np.arange(64, dtype=np.uint32), np.arange(64, 70, dtype=np.uint32)], NoOrder())
    assert (number, len(chosen), calls.tried) == (0, 4, 4)
    calls.ended(None)
    assert calls.left_rows
    assert (told(calls), calls.wait_ns) == (("answered", ""), 0)


@pytest.mark.parametrize(("failed", "report"), [(1, "smaller"), (3, "outage")])
def test_a_part_of_several_rows_that_fails_asks_for_a_smaller_one_and_costs_nothing(failed, report):
    calls = make(CIRCUIT_OPEN, failed)
    calls.part_of([np.arange(64, dtype=np.uint32)], NoOrder())
    calls.ended(ConnectionError("no"))
    assert (calls.spent(1), calls.used_up(MAX_ATTEMPTS), calls.left_rows) == (0, False, False)
    assert told(calls) == (report, "ConnectionError: no")


def test_after_every_second_failed_probe_the_rows_leave_a_newly_read_batch_the_start():
    waits = []
    for failed in range(4):
        calls = make(CIRCUIT_OPEN, failed, recovery_timeout=0.5)
        calls.ended(ConnectionError("no"))
        waits.append(calls.wait_ns / 1e9)
    assert waits == pytest.approx([1.1, 0.1, 1.1, 0.1])


def test_parts_of_a_batch_that_killed_end_its_round_where_several_in_a_row_meet_an_outage():
    calls = make()
    calls.by_parts = True
    for part in range(PARTS_IN_A_ROW):
        assert not calls.outage
        calls.ended(ConnectionError("no"))
        assert calls.costs_an_attempt == (part == 0)
        calls.part_ended(0)
    assert told(calls) == ("outage", "ConnectionError: no")


def test_a_part_that_is_answered_between_tells_that_the_service_is_there():
    calls = make()
    calls.by_parts = True
    for _ in range(2 * PARTS_IN_A_ROW):
        answers = calls.answers
        calls.ended(ConnectionError("no"))
        calls.part_ended(answers)
        answers = calls.answers
        calls.ended(None)
        calls.part_ended(answers)
    assert told(calls) == ("answered", "")
    assert calls.wait_ns > 0
