"""Checkups side by side: what is silent, what breaks, and what has nothing to ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast import App, MemoryConsumer
from pythia_fast.brokers.checkup import CheckupContext, Findings, ok, warning
from pythia_fast.doctor.examination import Subject, examine
from pythia_fast.doctor.findings_text import counts_of, findings_data, findings_lines
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.registration import Handler


class Silent(MemoryConsumer):
    """Says one thing and then nothing, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.seen: CheckupContext | None = None

    def checkup(self, context: CheckupContext) -> Findings:
        self.seen = context
        yield ok("it let us in")
        self.let_go.wait(60)
        yield ok("too late")


class Breaking(MemoryConsumer):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def checkup(self, context: CheckupContext) -> Findings:
        yield warning("it limps", "carry it")
        raise self.error


def app_of(*sources: MemoryConsumer, **options: object) -> App:
    app = App("shop")
    for number, source in enumerate(sources):
        app.batch_handler(source=source, decoder="raw", name=f"handler-{number}", **options)(lambda batch: None)  # type: ignore[arg-type]
    return app


def subjects(app: App, folder: Path, timeout_s: float = 60.0, workers: int = 8) -> list[Subject]:
    handlers: list[Handler] = list(app.handlers.values())
    return examine(app, handlers, workers=workers, state_dir=folder, timeout_s=timeout_s)[2:]


@pytest.fixture
def silent() -> Iterator[Silent]:
    source = Silent()
    yield source
    source.let_go.set()


def test_a_silent_one_is_told_and_delays_no_other(silent: Silent, tmp_path: Path) -> None:
    first, second = subjects(app_of(silent, MemoryConsumer()), tmp_path, timeout_s=0.5)
    assert [finding.what for finding in first.findings] == [
        "it let us in",
        "memory did not answer all questions within 0.5 s",
    ]
    assert first.findings[1].grade == "problem"
    assert [finding.what for finding in second.findings] == ["there is nothing to ask"]


def test_what_a_checkup_raises_is_a_problem(tmp_path: Path) -> None:
    app = app_of(Breaking(SourceError("no such thing")), Breaking(KeyError("partition")))
    ours, theirs = subjects(app, tmp_path)
    assert [finding.grade for finding in ours.findings] == ["warning", "problem"]
    assert ours.findings[1].what == "no such thing"
    assert theirs.findings[1].what.startswith("asking ended with KeyError: ")


def test_what_a_checkup_is_told(silent: Silent, tmp_path: Path) -> None:
    silent.let_go.set()
    subjects(app_of(silent, MemoryConsumer(), batch_deadline=9.0, ordering="key", batch_size=100), tmp_path, workers=6)
    seen = silent.seen
    assert seen is not None
    assert (seen.app, seen.handler, seen.role, seen.workers) == ("shop", "handler-0", "source", 3)
    assert (seen.batch_deadline_s, seen.ordering, seen.batch_size, seen.rows_in_hand) == (9.0, "key", 100, 1000)


def test_too_few_processes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers=1 is too few"):
        subjects(app_of(MemoryConsumer(), MemoryConsumer()), tmp_path, workers=1)


def test_the_forms_of_findings(tmp_path: Path) -> None:
    found = subjects(app_of(Breaking(SourceError("gone"))), tmp_path)
    assert findings_lines(found) == [
        "handler 'handler-0', source: memory",
        "  warning  it limps",
        "           change: carry it",
        "  problem  gone",
        "           change: see there",
        "0 ok, 0 notes, 1 warning, 1 problem",
    ]
    assert counts_of(found) == {"ok": 0, "note": 0, "warning": 1, "problem": 1}
    assert findings_data("shop", found)["subjects"][0]["findings"][0] == {
        "grade": "warning",
        "what": "it limps",
        "change": "carry it",
    }
