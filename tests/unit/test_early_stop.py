"""A signal before the run handles signals: raised at once, again when asked, and handed to the run that has begun."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pythia_fast.cli.early_stop import EarlyStop, StoppedBeforeStart
from pythia_fast.observer import RunInfo, check_observer


@pytest.fixture
def early() -> Iterator[EarlyStop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield EarlyStop()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_lost_is_told_again(early: EarlyStop, number: signal.Signals) -> None:
    early.check()
    with pytest.raises(StoppedBeforeStart, match=number.name):
        os.kill(os.getpid(), number)
    with pytest.raises(StoppedBeforeStart, match=number.name):
        early.check()
    heard: list[int] = []
    signal.signal(number, lambda number, _frame: heard.append(number))  # as the run does
    check_observer(early)
    early.started(RunInfo(app="orders"))
    assert heard == [number]


def test_a_second_signal_ends_the_process_and_raises_nothing_where_the_first_one_is_told(early: EarlyStop) -> None:
    with pytest.raises(StoppedBeforeStart):
        os.kill(os.getpid(), signal.SIGTERM)
    assert {signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)} == {signal.SIG_DFL}


def test_without_a_signal_the_run_goes_on(early: EarlyStop) -> None:
    early.started(RunInfo(app="orders"))
    early.check()
