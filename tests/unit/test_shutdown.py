"""runtime/shutdown.py: what a signal asks for, and what the program does."""

from __future__ import annotations

import os
import signal

from pythia_fast.runtime.shutdown import StopRequest


def test_the_first_signal_drains_and_the_second_stops_at_once() -> None:
    stop, lines = StopRequest(), []
    with stop.signals(lines.append):
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.asked, stop.killed) == (True, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.asked, stop.killed) == (True, True)
    assert lines == ["SIGTERM: draining; the same again stops at once"]


def test_a_signal_after_the_program_asked_is_the_first_one() -> None:
    stop, lines = StopRequest(), []
    with stop.signals(lines.append):
        stop.ask()
        assert (stop.asked, stop.killed) == (True, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.asked, stop.killed) == (True, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.killed
    assert lines == ["SIGTERM: draining; the same again stops at once"]
