"""runtime/stalls: what is told of a handler that gets nowhere, when, and how often."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast import CircuitBreaker, RetryPolicy
from pythia_fast.runtime.stalls import FORGET_S, LATE_S, LONGEST_PAUSE_S, STALL_S, Row, Scene, Stalls, Unread
from pythia_fast.runtime.standing import asking


def row(place: str = "orders[3] offset 17", age_s: float = 21.0, stage: str = "called", **facts) -> Row:
    return Row(place=place, age_s=age_s, stage=stage, **{"pid": 4711, "busy_s": age_s, **facts})


def watch() -> Stalls:
    return Stalls("score", STALL_S, LATE_S)


def run(stalls: Stalls, scene: Callable[[int], Scene], seconds: int, start: int = 0) -> list[tuple[int, str]]:
    """The lines of a look a second, with the second they came in."""
    return [(now, line) for now in range(start, start + seconds) for line in stalls.look(float(now), scene(now))]


def stuck(now: int) -> Scene:
    return Scene(settled=5, oldest=row(age_s=float(now)))


def test_a_stall_is_told_after_ten_seconds_and_again_after_twice_the_time():
    told = run(watch(), stuck, 200)
    assert [now for now, _ in told] == [10, 20, 40, 80, 160]
    assert told[0][1] == (
        "score: nothing was completed for 10 s; the oldest row, orders[3] offset 17, came 10 s ago and is in the "
        "handler in process 4711, which has been at it for 10 s; batch_deadline= is not set, so nothing ends it: see "
        "what it does (py-spy dump --pid 4711), and set batch_deadline= for calls that hang"
    )


def test_a_stall_without_end_is_told_every_ten_minutes():
    times = [now for now, _ in run(watch(), stuck, 6000)]
    assert max(after - before for before, after in pairwise(times)) == LONGEST_PAUSE_S


def test_that_it_goes_on_is_told_once_and_only_after_a_stall_that_was_told():
    stalls = watch()
    assert len(run(stalls, stuck, 15)) == 1
    told = run(stalls, lambda now: Scene(settled=6 + now, oldest=row(age_s=1.0)), 30, start=15)
    assert told == [(15, "score: it goes on after 15 s in which nothing was completed")]
    assert run(stalls, lambda now: Scene(settled=100, oldest=row(age_s=1.0)), 5, start=45) == []
    assert run(stalls, lambda now: Scene(settled=101), 30, start=50) == []


def test_work_that_vanishes_ends_a_stall():
    stalls = watch()
    run(stalls, stuck, 15)
    assert run(stalls, lambda now: Scene(settled=5), 5, start=15) == [
        (15, "score: nothing waits any more after 15 s in which nothing was completed")
    ]


def test_a_handler_that_is_merely_slow_is_told_of_once():
    """Fifteen seconds a batch, for hours: one stall is told, and not the hundreds that follow."""
    told = run(watch(), lambda now: Scene(settled=now // 15, oldest=row(age_s=float(now % 15))), 3600)
    assert not [now for now, _ in told if 15 < now < FORGET_S]
    assert len(told) <= 2 * (1 + 3600 / FORGET_S)


def test_a_longer_stall_is_told_in_spite_of_shorter_ones_before():
    stalls = watch()
    run(stalls, lambda now: Scene(settled=now // 15, oldest=row(age_s=1.0)), 60)
    told = run(stalls, lambda now: Scene(settled=4, oldest=row(age_s=1.0)), 40, start=60)
    assert [now - 60 for now, line in told if "nothing was completed" in line] == [20]


def test_nothing_is_told_while_there_is_nothing_to_do():
    assert run(watch(), lambda now: Scene(settled=5), 3600) == []


def test_a_batch_that_fills_as_asked_is_no_stall():
    filling = Scene(settled=0, oldest=row(stage="filling", age_s=20.0, fill_s=60.0))
    assert run(watch(), lambda now: filling, 50) == []


def test_one_late_row_is_told_while_others_are_completed():
    told = run(watch(), lambda now: Scene(settled=now, oldest=row(age_s=float(now))), 300)
    assert [now for now, _ in told] == [60, 120, 240]
    assert told[0][1].startswith(
        "score: while others are completed, the oldest row, orders[3] offset 17, came 60 s ago"
    )
    stalls = watch()
    run(stalls, lambda now: Scene(settled=now, oldest=row(age_s=float(now))), 70)
    after = run(stalls, lambda now: Scene(settled=now, oldest=row("orders[3] offset 18", age_s=0.1)), 5, start=70)
    assert after == [(70, "score: orders[3] offset 17 goes on")]


def test_a_retry_that_is_still_to_come_is_late_as_asked():
    waits = row(stage="retry", due_in_s=30.0, due_at="14:03:12", age_s=500.0, asked_by="breaker=")
    assert run(watch(), lambda now: Scene(settled=now, oldest=waits), 100) == []
    told = run(watch(), lambda now: Scene(settled=5, oldest=waits), 15)
    assert "waits to be handled again at 14:03:12, in 30 s, as breaker= asks for" in told[0][1]


@pytest.mark.parametrize(
    ("backoff", "breaker", "expected"),
    [(1, None, "retry="), (0, CircuitBreaker(), "breaker="), (1, CircuitBreaker(), "retry= or breaker=")],
)
def test_the_options_are_named_that_are_set(backoff, breaker, expected):
    assert asking(SimpleNamespace(retry=RetryPolicy(backoff=backoff), breaker=breaker)) == expected


def test_a_partition_whose_messages_do_not_come_is_told_while_others_flow():
    def scene(now: int) -> Scene:
        return Scene(settled=now, unread=[Unread(place="orders[3] offset 17", since_s=float(now), messages=1200)])

    told = run(watch(), scene, 100)
    assert [now for now, _ in told] == [60]
    assert told[0][1] == (
        "score: while others are completed, for 60 s nothing has come from orders[3] offset 17, where 1,200 messages "
        "wait; the broker answers: its fetch is stuck, or a transaction was left open there"
    )


WHY = [
    (
        row(stage="called", deadline_s=30.0, busy_s=21.0),
        "which has been at it for 21 s; batch_deadline=30 ends it in 9.0 s",
    ),
    (row(stage="called", deadline_s=20.0, busy_s=21.0), "batch_deadline=20 is ending it"),
    (row(stage="queued", busy_s=12.0), "waits in the queue of process 4711, which has been at another batch for 12 s"),
    (row(stage="queued", busy_s=None), "waits in the queue of process 4711, which has not taken it yet"),
    (
        row(stage="called", deadline_s=30.0),
        "is in the handler, or in what that returned or raised, in process 4711, wh",
    ),
    (row(stage="called", busy_s=0.0), "at it for 0.0 s, so no call hangs: see what it does (py-spy dump --pid 4711)"),
    (
        row(stage="called", busy_s=0.0, deaths=7),
        "which has been at it for 0.0 s; 7 processes have died with this batch, which is handled in parts to find",
    ),
    (row(stage="called", busy_s=0.0, deadline_s=30.0, deaths=1), "0.0 s; a process has died with this batch, which is"),
    (row(stage="called", deaths=7), "see above how they died; batch_deadline= is not set, so nothing ends it"),
    (row(stage="queued", busy_s=0.1, deaths=7), "another batch for 0.1 s; 7 processes have died with that batch"),
    (row(stage="queued", busy_s=None, deaths=7), "has not taken it yet; 7 processes have died with this batch"),
    (row(stage="starting", busy_s=None, deaths=7), "which is not up yet; 7 processes have died with this batch"),
    (row(stage="held", busy_s=None), "is in process 4711, outside the handler"),
    (row(stage="starting", busy_s=None), "waits for the process of its place, which is not up yet; see what setup()"),
    (
        row(stage="circuit", trouble="the circuit is open: 5 batches in a row failed"),
        "waits because the circuit is open",
    ),
    (
        row(stage="results", trouble="no broker answers"),
        "its results wait for the sink, which does not confirm them: no",
    ),
    (row(stage="results"), "its batch is done, but its results wait for the sink, which does not confirm them"),
    (row(stage="dead letters", trouble="disk full"), "its dead letters wait for where they are written to"),
    (row(stage="done"), "is done, but its batch is not released yet"),
    (row(stage="retry", due_in_s=-2.0, due_at="14:03:12"), "due to be handled again since 14:03:12 and waits for room"),
    (row(stage="filling", fill_s=0.1), "waits for a process that has room for its batch"),
    (
        row(stage="filling", fill_s=0.1, trouble="cannot keep an oversize payload in spool: No space left on device"),
        "waits with its batch while nothing is read: cannot keep an oversize payload in spool: No space left on device",
    ),
    (
        row(stage="kept"),
        "is held back with its partition, whose process has its hands full, while other",
    ),
]


def test_a_limit_on_calls_is_not_advised_where_processes_die():
    dies = Scene(settled=0, oldest=row(stage="called", busy_s=0.0, deaths=7))
    ((_, line),) = run(watch(), lambda now: dies, 11)
    assert line.endswith("see above how they died")


@pytest.mark.parametrize(("oldest", "words"), WHY)
def test_every_reason_has_its_words(oldest, words):
    ((_, line),) = run(watch(), lambda now: Scene(settled=0, oldest=oldest), 11)
    assert line.startswith("score: nothing was completed for 10 s; the oldest row, orders[3] offset 17, came 21 s ago")
    assert words in line


SOURCE = [
    (Scene(settled=0, paused=["reading is paused: 9 of 10 rows were given up"]), "10 s; reading is paused: 9 of 10"),
    (Scene(settled=0, rate_limit=0.01), "the source is held back by rate_limit=0.01 rows per second"),
    (
        Scene(settled=0, oldest=row(), held_back=["orders[1]", "orders[2]"]),
        "the source keeps orders[1], orders[2] back meanwhile, whose process has its hands full",
    ),
    (
        Scene(settled=0, oldest=row(), waiting="9 rows wait and take all slots"),
        "; 9 rows wait and take all slots; raise batch_size or shorten the backoff",
    ),
    (
        Scene(settled=0, unread=[Unread(place="orders[3] offset 17", since_s=20, messages=1, silent_s=12)]),
        "nothing has come from orders[3] offset 17, where 1 message waits; the broker was asked and has not",
    ),
    (
        Scene(settled=0, unread=[Unread(place=f"orders[{i}] offset 0", since_s=20) for i in range(6)]),
        "orders[2] offset 0, orders[3] offset 0 and 2 partitions more; the broker answers",
    ),
]


@pytest.mark.parametrize(("scene", "words"), SOURCE)
def test_what_holds_the_source_is_told(scene, words):
    ((_, line),) = run(watch(), lambda now: scene, 11)
    assert words in line


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from(["settles", "stuck", "idle", "late"])), min_size=1, max_size=20
    )
)
def test_no_wait_is_silent_and_no_log_is_flooded(stretches):
    """Whatever comes after what: a wait twice as long as any before is told of, and lines are few."""
    stalls, now, settled = watch(), 0, 0
    told: list[int] = []
    longest = STALL_S
    for kind, same in groupby(stretches, key=lambda stretch: stretch[1]):
        seconds = sum(some for some, _ in same)  # two of a kind, one after the other, are one wait
        lasted = lines_here = 0
        for _ in range(seconds):
            settled += kind in ("settles", "late")
            age = float(lasted if kind in ("stuck", "late") else 0)
            scene = Scene(settled=settled, oldest=None if kind == "idle" else row(age_s=age))
            lines = stalls.look(float(now), scene)
            told += [now] * len(lines)
            lines_here += sum("nothing was completed" in line and "goes on" not in line for line in lines)
            now += 1
            lasted += kind == "stuck"
            if kind == "stuck" and lasted > 2 * longest + 1:
                assert lines_here
        longest = max(longest, float(lasted))
    assert len(told) <= 12 * (len(stretches) + 1)
