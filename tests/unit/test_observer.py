"""Who listens where no observer was given, and what cannot be one."""

from __future__ import annotations

import logging

import pytest

from pythia_fast.errors import ConfigError
from pythia_fast.observer import LogObserver, Snapshot, check_observer


def test_lines_go_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pythia_fast")
    observer = LogObserver()
    observer.event("a process died, 100 % of one")
    observer.routine_event("a partition was assigned")
    observer.sample(Snapshot(trouble=["no broker answers"]))
    observer.sample(Snapshot(trouble=["no broker answers"]))
    observer.sample(Snapshot())
    observer.sample(Snapshot(trouble=["no broker answers"]))
    waiting = ("pythia_fast", logging.WARNING, "waiting: no broker answers")
    assert caplog.record_tuples == [
        ("pythia_fast", logging.WARNING, "a process died, 100 % of one"),
        ("pythia_fast", logging.INFO, "a partition was assigned"),
        waiting,
        waiting,  # once as long as it lasts
    ]


def test_lines_go_to_stderr_where_logging_was_not_set_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pythia_fast"), "propagate", False)  # pytest has set logging up
    LogObserver().event("a view was kept")
    assert capsys.readouterr().err == "a view was kept\n"
    silent = logging.NullHandler()
    logging.getLogger("pythia_fast").addHandler(silent)
    try:
        LogObserver().event("a view was kept")
    finally:
        logging.getLogger("pythia_fast").removeHandler(silent)
    assert capsys.readouterr().err == ""


def test_what_cannot_watch_is_refused() -> None:
    check_observer(LogObserver())
    with pytest.raises(ConfigError, match="it has no started"):
        check_observer(print)
