"""pythia_fast.runtime.dead_letter_watch: when too many rows are given up, under a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast import DeadLetterLimit
from pythia_fast.runtime.dead_letter_watch import WINDOW_PARTS, DeadLetterWatch


def make(bounded=False, **limit):
    return DeadLetterWatch(DeadLetterLimit(**limit), bounded=bounded)


def test_a_share_beyond_the_limit_closes_the_gate():
    watch = make(ratio=0.5, min_rows=100)
    watch.settled(0.0, 100, 50, 0.0)
    assert watch.gate.state == "open"
    watch.settled(1.0, 10, 6, 0.0)
    assert watch.gate.state == "closed"
    assert watch.gate.why == (
        "56 of the last 110 rows settled within 60 s were given up (51%), more than dead_letter_limit allows (50%)"
    )


def test_a_few_rows_close_nothing():
    watch = make(ratio=0.5, min_rows=100)
    watch.settled(0.0, 99, 99, 0.0)
    assert watch.gate.state == "open"


def test_rows_settled_before_the_window_count_no_more():
    watch = make(ratio=0.5, min_rows=100, window=60)
    watch.settled(0.0, 99, 99, 0.0)
    watch.settled(61.0 + 60 / WINDOW_PARTS, 99, 99, 0.0)
    assert watch.gate.state == "open"


def test_the_probe_alone_decides():
    watch = make(ratio=0.5, min_rows=1, pause=1)
    watch.settled(10.0, 10, 10, 9.0)
    watch.settled(10.5, 10, 0, 9.0)
    assert not watch.begin_probe(10.9)
    assert watch.begin_probe(11.0)
    watch.settled(11.1, 10, 0, 10.9)  # was in hand before
    assert watch.gate.state == "probing"
    watch.settled(11.2, 10, 6, 11.1)
    assert watch.gate.state == "closed"
    assert watch.gate.why.startswith("6 of 10 rows that were tried were given up (60%)")
    assert watch.begin_probe(13.2)
    watch.settled(13.3, 10, 5, 13.25)
    assert watch.gate.state == "open"
    watch.settled(13.4, 10, 5, 13.3)  # what was counted before the pause is forgotten
    assert watch.gate.state == "open"


def test_a_bounded_run_has_so_many_probes():
    watch = make(bounded=True, ratio=0, min_rows=1, pause=1, max_pause=1, probes=2)
    watch.settled(0.0, 1, 1, 0.0)
    for now in (1.0, 2.0):
        assert watch.begin_probe(now)
        watch.settled(now, 1, 1, now)
    assert watch.gate.exhausted


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 100), st.floats(0, 1)), max_size=100))
def test_it_closes_where_a_count_of_the_last_rows_goes_beyond_the_limit(steps):
    """Rows count for the window, and for at most the time of one of its parts longer."""
    watch, now, told = make(ratio=0.5, min_rows=50, window=60), 0.0, []
    part_s = 60 / WINDOW_PARTS
    for wait, rows, share in steps:
        now += wait
        told.append((now, rows, int(rows * share)))
        watch.settled(now, rows, told[-1][2], now)
        must = [at for at, _, _ in told if at > now - 60]
        may = [at for at, _, _ in told if at >= now - 60 - part_s]
        verdicts = set()
        for n_counted in range(len(must), len(may) + 1):
            counted = told[-n_counted:]
            total, given_up = sum(rows for _, rows, _ in counted), sum(bad for _, _, bad in counted)
            verdicts.add(total >= 50 and given_up > 0.5 * total)
        assert (watch.gate.state == "closed") in verdicts
        if watch.gate.state == "closed":
            return


def probing():
    """A watch whose probe begins at second 2."""
    watch = make(ratio=0.5, min_rows=1, pause=1)
    watch.settled(1.0, 10, 10, 0.0)
    assert watch.begin_probe(2.0)
    return watch


def test_rows_of_the_probe_that_are_done_at_once_do_not_speak_for_those_that_wait():
    watch = probing()
    watch.settled(2.1, 3, 0, 2.05, left=61)
    assert watch.gate.state == "probing"
    watch.settled(2.2, 30, 30, 2.05, left=31)
    assert watch.gate.state == "probing"
    watch.settled(2.3, 31, 31, 2.05)
    assert watch.gate.state == "closed"
    assert watch.gate.why.startswith("61 of 64 rows that were tried were given up (95%)")


def test_the_probe_decides_as_soon_as_rows_that_wait_can_change_nothing():
    watch = probing()
    watch.settled(2.1, 4, 0, 2.05, left=6)
    assert watch.gate.state == "probing"
    watch.settled(2.2, 1, 0, 2.05, left=5)
    assert watch.gate.state == "open"
    watch = probing()
    watch.settled(2.1, 6, 6, 2.05, left=4)
    assert watch.gate.why.startswith("6 of 10 rows that were tried were given up (60%)")


def test_rows_of_the_probe_wait_with_no_others():
    watch = make(min_rows=1, pause=1)
    assert not watch.keeps_apart(0.5)
    watch.settled(1.0, 10, 10, 0.0)
    assert watch.begin_probe(2.0)
    assert not watch.keeps_apart(0.5)  # there is no probe yet
    assert watch.keeps_apart(2.05)
    watch.settled(2.1, 0, 0, 2.05, left=10)  # it waits whole
    assert watch.keeps_apart(0.5)
    watch.settled(2.2, 10, 0, 2.05)
    assert not watch.keeps_apart(2.05)


def test_a_batch_that_has_no_row_is_no_probe():
    watch = probing()
    watch.settled(2.1, 0, 0, 2.05)
    assert watch.gate.state == "probing"
    watch.settled(2.2, 10, 10, 2.06)
    assert watch.gate.state == "closed"


def test_a_batch_beside_the_probe_decides_nothing_until_that_is_forgotten():
    watch = probing()
    watch.settled(2.1, 0, 0, 2.05, left=10)
    watch.settled(2.2, 10, 10, 2.06)
    assert watch.gate.state == "probing"
    watch.forget_probe()
    watch.settled(2.3, 10, 0, 2.07)
    assert watch.gate.state == "open"
