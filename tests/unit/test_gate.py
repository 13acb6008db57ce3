"""pythia_fast.runtime.gate: when a paused source is tried again, under a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.runtime.gate import Gate


def test_pauses_double_up_to_the_longest_and_begin_anew_after_success():
    gate, now, pauses = Gate(1.0, 10.0, None), 0.0, []
    gate.close(now, "why")
    for _ in range(6):
        pauses.append(gate.next_probe_s - now)
        assert not gate.begin_probe(gate.next_probe_s - 0.01)
        now = gate.next_probe_s
        assert gate.begin_probe(now)
        gate.close(now, "why")
    assert pauses == [1, 2, 4, 8, 10, 10]
    assert gate.begin_probe(gate.next_probe_s)
    gate.reopen(gate.next_probe_s)
    gate.close(100.0, "again")
    assert (gate.next_probe_s, gate.times_closed) == (101.0, 2)


def test_a_gate_with_a_number_of_probes_is_exhausted_by_them():
    gate = Gate(1.0, 1.0, 2)
    gate.close(0.0, "why")
    for probe in range(1, 3):
        assert not gate.exhausted
        assert gate.begin_probe(float(probe))
        gate.close(float(probe), "why")
    assert gate.exhausted
    assert not gate.begin_probe(1e9)


def test_the_seconds_it_was_not_open_are_counted():
    gate = Gate(1.0, 1.0, None)
    assert gate.closed_s(5.0) == 0
    gate.close(5.0, "why")
    assert gate.closed_s(7.0) == 2
    gate.begin_probe(7.0)
    assert gate.closed_s(8.0) == 3
    gate.reopen(8.0)
    assert gate.closed_s(50.0) == 3
    gate.close(50.0, "why")
    assert gate.closed_s(51.0) == 4


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["probe", "close", "reopen"])), max_size=80))
def test_it_never_probes_before_its_pause_is_over(steps):
    gate, now, closed_at = Gate(1.0, 60.0, None), 0.0, None
    for wait, step in steps:
        now += wait
        if step == "close" and gate.state != "closed":
            gate.close(now, "why")
            closed_at = now
        elif step == "reopen":
            gate.reopen(now)
        elif step == "probe" and gate.begin_probe(now):
            assert now - closed_at >= min(1.0 * 2**gate.failed_probes, 60.0) - 1e-9
        assert (gate.why == "") == (gate.state == "open")
        assert 0 <= gate.closed_s(now) <= now + 1e-9
