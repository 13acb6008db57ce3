"""runtime/booting.py: what is told while the pool's parent imports the app, and how the wait ends."""

from __future__ import annotations

import pytest

from pythia_fast.errors import PoolError
from pythia_fast.pool.messages import BootFailed, Importing, Message, Ready
from pythia_fast.pool.nursery import Nursery, NurseryGoneError
from pythia_fast.runtime import booting
from pythia_fast.runtime.booting import await_nursery
from pythia_fast.runtime.shutdown import StopRequest

STACK = '  File "/srv/orders.py", line 3, in <module>\n    connect()'
FAILED = BootFailed(-1, -1, 7, "OSError: no model", "OSError: no model")


class Clock:
    """Goes on while the nursery is listened to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Played(Nursery):
    """Says what it is given, at these seconds of the wait."""

    pid = 7

    def __init__(self, clock: Clock, said: dict[float, Message | Exception]) -> None:
        self._clock, self._said, self._begun = clock, said, clock.now

    def receive(self, timeout: float) -> list[Message]:
        self._clock.now += 1.0
        word = self._said.pop(self._clock.now - self._begun, None)
        if isinstance(word, Exception):
            raise word
        return [] if word is None else [word]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(booting, "time", clock)
    return clock


def test_it_is_told_after_10_s_and_at_growing_intervals(clock: Clock) -> None:
    lines: list[str] = []
    nursery = Played(clock, {15.0: Importing(STACK), 100.0: Ready(7, 3)})
    assert await_nursery(nursery, "orders", StopRequest(), begun=False, tell=lines.append) == 3
    assert [line.partition("has been importing ")[2].partition(",")[0] for line in lines] == [
        "orders for 10 s",
        "orders for 20 s",
        "orders for 40 s",
        "orders for 80 s",
    ]
    assert lines[0].endswith("it ends the run at once (py-spy dump --pid 7 says what it does)")
    assert lines[1].endswith(f"it ends the run at once. It is there:\n{STACK}")


def test_one_that_never_comes_up_ends_the_run_with_its_place(clock: Clock) -> None:
    nursery = Played(clock, {5.0: Importing(STACK)})
    with pytest.raises(PoolError, match=r"(?s)did not come up within 300 seconds: it imports orders. .*connect\(\)"):
        await_nursery(nursery, "orders", StopRequest(), begun=False, tell=lambda _line: None)


@pytest.mark.parametrize("ending", [FAILED, NurseryGoneError("it is gone")])
def test_an_import_that_fails_ends_the_run_unless_it_is_stopped(clock: Clock, ending: Message | Exception) -> None:
    stop = StopRequest()
    with pytest.raises(PoolError, match=r"no model|it is gone"):
        await_nursery(Played(clock, {3.0: ending}), "orders", stop, begun=False, tell=lambda _line: None)

    class StoppedMeanwhile(Played):
        def receive(self, timeout: float) -> list[Message]:
            stop.ask()
            return super().receive(timeout)

    nursery = StoppedMeanwhile(clock, {1.0: ending})
    assert await_nursery(nursery, "orders", stop, begun=False, tell=lambda _line: None) == 1


def test_a_run_that_drains_waits_for_its_pool_until_it_is_killed(clock: Clock) -> None:
    lines: list[str] = []
    stop = StopRequest()
    stop.ask()
    nursery = Played(clock, {12.0: Ready(7, 1)})
    assert await_nursery(nursery, "orders", stop, begun=True, tell=lines.append) == 1
    assert "Ctrl-C or SIGTERM: a second one ends the run at once" in lines[0]
    stop.killed = True
    assert await_nursery(Played(clock, {}), "orders", stop, begun=True, tell=lines.append) == 1
