"""pythia_fast.runtime.circuit: what batches report, and the state that follows, under a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast import CircuitBreaker
from pythia_fast._ext.ring import CIRCUIT_CLOSED, CIRCUIT_FAILING, CIRCUIT_HALF_OPEN, CIRCUIT_OPEN
from pythia_fast.runtime.circuit import Circuit


def make(bounded=False, **options):
    return Circuit(CircuitBreaker(**options), bounded=bounded)


def report(circuit, now, *reports):
    for each in reports:
        circuit.reported(now, each, "TimeoutError: too late")


def test_failures_in_a_row_open_it():
    circuit = make(failure_threshold=3)
    report(circuit, 0.0, "outage", "outage", "answered", "outage", "", "outage")
    assert (circuit.state, circuit.word, circuit.gate.state) == ("closed", CIRCUIT_FAILING, "open")
    report(circuit, 0.0, "outage")
    assert (circuit.state, circuit.word, circuit.gate.state) == ("open", CIRCUIT_OPEN, "closed")
    assert circuit.gate.why == ("the circuit is open: 3 batches in a row failed, the last with TimeoutError: too late")


def test_one_answer_after_the_timeout_closes_it():
    circuit = make(failure_threshold=1, recovery_timeout=30)
    assert circuit.word == CIRCUIT_CLOSED
    report(circuit, 0.0, "outage")
    assert not circuit.begin_probe(29.9)
    assert circuit.begin_probe(30.0)
    assert (circuit.state, circuit.word) == ("half-open", CIRCUIT_HALF_OPEN)
    report(circuit, 31.0, "")
    assert circuit.state == "half-open"
    report(circuit, 31.0, "answered")
    assert (circuit.state, circuit.word, circuit.gate.state) == ("closed", CIRCUIT_CLOSED, "open")


def test_a_failure_after_the_timeout_opens_it_for_as_long_again():
    circuit = make(failure_threshold=5, recovery_timeout=30)
    report(circuit, 0.0, *["outage"] * 5)
    assert circuit.begin_probe(30.0)
    report(circuit, 40.0, "outage")
    assert circuit.state == "open"
    assert "the batch that was tried failed" in circuit.gate.why
    assert not circuit.begin_probe(69.9)
    assert circuit.begin_probe(70.0)


def test_what_was_begun_before_it_opened_changes_nothing():
    circuit = make(failure_threshold=1)
    report(circuit, 0.0, "outage", "answered", "outage")
    assert (circuit.state, circuit.gate.times_closed) == ("open", 1)


def test_a_bounded_run_has_so_many_probes():
    circuit = make(bounded=True, failure_threshold=1, recovery_timeout=1, probes=2)
    report(circuit, 0.0, "outage")
    for now in (1.0, 2.0):
        assert circuit.begin_probe(now)
        report(circuit, now, "outage")
    assert circuit.gate.exhausted


@pytest.mark.parametrize("threshold", [1, 2, 5])
@given(steps=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["answered", "outage", "", "probe"])), max_size=60))
def test_gate_and_circuit_agree(threshold, steps):
    circuit, now, failures = make(failure_threshold=threshold, recovery_timeout=10), 0.0, 0
    for wait, step in steps:
        now += wait
        before = circuit.state
        if step == "probe":
            circuit.begin_probe(now)
        else:
            report(circuit, now, step)
        if before == "closed" and step in ("answered", "outage"):
            failures = failures + 1 if step == "outage" else 0
            assert (circuit.state == "open") == (failures >= threshold)
        if circuit.state != "closed":
            failures = 0
        states = {"closed": "open", "open": "closed", "half-open": "probing"}
        assert circuit.gate.state == states[circuit.state]
