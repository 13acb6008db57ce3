"""pythia_fast.pool.watchdog: who is ended, when, and by which signal."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from pythia_fast._ext.ring import monotonic_ns
from pythia_fast.pool.places import Places
from pythia_fast.pool.watchdog import (
    GRACE_S,
    GROWING_GRACE_S,
    MEMORY_EVERY_S,
    SLOW_SETUP_S,
    TEARDOWN_DEADLINE_S,
    Watchdog,
)


class FakeArena:
    n_workers = 2

    def __init__(self) -> None:
        self.began_ns = [0, 0]
        self.booted = [True, True]

    def worker_facts(self, worker):
        return SimpleNamespace(began_ns=self.began_ns[worker], booted=self.booted[worker])


@pytest.fixture
def places():
    found = Places(2, 0, 0)
    found.launched(0, 10)
    found.launched(1, 11)
    return found


def make(**limits):
    sent, memory = [], {10: 0.0, 11: 0.0}
    told = limits.pop("told", [])
    handler = (
        SimpleNamespace(name="score", batch_deadline=None, setup_deadline=None, max_memory_mb=None)
        if not limits
        else SimpleNamespace(
            name="score", **{"batch_deadline": None, "setup_deadline": None, "max_memory_mb": None, **limits}
        )
    )
    return (
        Watchdog(handler, send=lambda pid, number: sent.append((pid, number)), tell=told.append, memory_mb=memory.get),
        sent,
        memory,
    )


def test_one_that_takes_too_long_is_aborted_and_then_killed(places):
    watchdog, sent, _ = make(batch_deadline=2.0)
    arena = FakeArena()
    arena.began_ns = [monotonic_ns() - int(1e9), monotonic_ns() - int(3e9)]
    watchdog.look(0.0, arena, places)
    watchdog.look(GRACE_S / 2, arena, places)
    assert sent == [(11, signal.SIGABRT)]
    watchdog.look(GRACE_S, arena, places)
    assert sent == [(11, signal.SIGABRT), (11, signal.SIGKILL)]
    assert watchdog.ended(11) == "took longer than batch_deadline=2 s"
    assert watchdog.ended(10) is None


def test_one_whose_handler_is_not_called_takes_no_time(places):
    watchdog, sent, _ = make(batch_deadline=0.001)
    watchdog.look(0.0, FakeArena(), places)
    assert sent == []


def test_one_that_grows_within_a_batch_is_ended_with_its_stacks(places):
    watchdog, sent, memory = make(max_memory_mb=100)
    memory[10] = 149.0
    watchdog.look(0.0, FakeArena(), places)
    memory[10] = 151.0
    watchdog.look(MEMORY_EVERY_S / 2, FakeArena(), places)
    assert sent == []
    watchdog.look(MEMORY_EVERY_S, FakeArena(), places)
    assert sent == [(10, signal.SIGABRT)]
    watchdog.look(MEMORY_EVERY_S + GROWING_GRACE_S, FakeArena(), places)
    assert sent == [(10, signal.SIGABRT), (10, signal.SIGKILL)]
    assert watchdog.ended(10) == "grew beyond 1.5 x max_memory_mb=100 within a batch"


def test_what_has_ended_at_sigabrt_is_not_killed(places):
    watchdog, sent, _ = make(batch_deadline=0.001)
    arena = FakeArena()
    arena.began_ns = [1, 0]
    watchdog.look(0.0, arena, places)
    assert watchdog.ended(10) is not None
    places.died(10, 0)
    watchdog.look(GRACE_S, arena, places)
    assert sent == [(10, signal.SIGABRT)]


def test_without_limits_nobody_is_looked_at(places):
    watchdog, sent, memory = make()
    memory[10] = 1e9
    arena = FakeArena()
    arena.began_ns = [1, 1]
    watchdog.look(0.0, arena, places)
    assert sent == []


def test_a_setup_that_takes_long_is_told_of_once_and_then_ended(places):
    watchdog, sent, _ = make(setup_deadline=30.0, told=(told := []))
    arena = FakeArena()
    arena.booted = [True, False]
    for now in (0.0, SLOW_SETUP_S, SLOW_SETUP_S + 1, SLOW_SETUP_S + 2, 30.0):
        watchdog.look(now, arena, places)
    assert len(told) == 1
    assert "score: process 1 (pid 11) has been starting (imports, setup()) for 11 s" in told[0]
    assert "setup_deadline=30 ends it in 19 s" in told[0]
    assert sent == []
    watchdog.look(30.1, arena, places)
    assert sent == [(11, signal.SIGABRT)]
    watchdog.look(30.1 + GRACE_S, arena, places)
    assert sent == [(11, signal.SIGABRT), (11, signal.SIGKILL)]
    assert watchdog.ended(11) == "was still starting (imports, setup()) after setup_deadline=30 s"


def test_a_setup_without_a_deadline_is_told_of_and_not_ended(places):
    watchdog, sent, _ = make(told=(told := []))
    arena = FakeArena()
    arena.booted = [False, True]
    for now in (0.0, 1e6):
        watchdog.look(now, arena, places)
    assert "nothing ends it" in told[0]
    assert sent == []


def test_the_clock_of_a_setup_begins_anew_with_each_process(places):
    watchdog, sent, _ = make(setup_deadline=30.0)
    arena = FakeArena()
    arena.booted = [True, False]
    watchdog.look(0.0, arena, places)
    watchdog.ended(11)
    places.died(11, 1)
    places.launched(1, 12)
    watchdog.look(29.0, arena, places)
    watchdog.look(40.0, arena, places)
    assert sent == []


def test_a_teardown_that_takes_long_is_ended(places):
    watchdog, sent, _ = make(batch_deadline=1000.0)
    watchdog.tears_down(10, 5.0)
    places.leaves(10, 0)
    watchdog.look(5.0 + TEARDOWN_DEADLINE_S, FakeArena(), places)
    assert sent == []
    watchdog.look(5.1 + TEARDOWN_DEADLINE_S, FakeArena(), places)
    assert sent == [(10, signal.SIGABRT)]
    assert watchdog.ended(10) == "was not back from teardown() after 10 s"
