"""pythia_fast.pool.calls: what the calls of a batch tell of the service, and what an outage costs its rows."""

from __future__ import annotations

import pytest

from pythia_fast import CircuitBreaker
from pythia_fast._ext.batch_memory import ColumnTooLargeError
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.ring import CIRCUIT_CLOSED, CIRCUIT_FAILING, CIRCUIT_HALF_OPEN, CIRCUIT_OPEN
from pythia_fast.errors import HandlerError, OutputValueError
from pythia_fast.pool.calls import Calls
from pythia_fast.runtime.notes import Notes
from tests.support.ring_feed import make_arena


def make(circuit=CIRCUIT_CLOSED, **options):
    arena = make_arena(Plan(None))
    arena.set_circuit(circuit)
    return Calls(CircuitBreaker(**options), arena)


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
