"""drill/interrupts.py: the first signal comes through where it may, and no other one does."""

from __future__ import annotations

import os
import signal

import pytest

from pythia_fast.drill.interrupts import Interrupts


def come(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_one_that_comes_while_it_is_open_is_raised_at_once_and_no_other_one() -> None:
    interrupts, done = Interrupts(), []
    with pytest.raises(KeyboardInterrupt), interrupts.handled():  # noqa: PT012
        try:
            with interrupts.let_through():
                come(signal.SIGHUP)
                done.append("after it")
        finally:
            come(signal.SIGINT)
            with interrupts.let_through():
                come()
            done.append("cleaned up")
    assert done == ["cleaned up"]


def test_one_that_is_held_back_is_raised_behind_it() -> None:
    interrupts, done = Interrupts(), []
    with interrupts.handled(), pytest.raises(KeyboardInterrupt), interrupts.let_through():  # noqa: PT012
        with interrupts.held_back():
            come()
            done.append("made")
        done.append("after it")
    assert done == ["made"]


def test_one_that_came_before_it_was_open_is_raised_when_it_is() -> None:
    interrupts = Interrupts()
    with interrupts.handled():
        come()
        with pytest.raises(KeyboardInterrupt), interrupts.let_through():
            raise AssertionError("nothing is begun")


def test_one_that_came_at_the_end_is_raised_with_the_handlers_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.handled():
        come()
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_exception_is_not_replaced() -> None:
    interrupts = Interrupts()
    with pytest.raises(ValueError, match="no topic"), interrupts.handled():  # noqa: PT012
        come()
        raise ValueError("no topic")


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().handled():
            come(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
