"""Commits that are refused, the last one of a run among them: what is not committed is not done."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pythia_fast import App
from pythia_fast.brokers.base import ReaderContext
from pythia_fast.brokers.memory import MemoryConsumer, MemoryProducer, MemoryReader
from pythia_fast.errors import SourceError
from tests.support.memory_run import Events, echo, numbers

DRAIN_S = 1.0
MOST_ATTEMPTS = 20  #: in that time, and one at the end


class UnansweredReader(MemoryReader):
    """Its broker takes no commit."""

    attempts = 0

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        self.attempts += wait
        return "memory: could not commit: nobody answers"


class Unanswered(MemoryConsumer):
    reader: UnansweredReader

    def open(self, context: ReaderContext) -> UnansweredReader:
        self.reader = UnansweredReader(self, context)
        return self.reader


def an_app(*, keep_open: bool) -> tuple[App, Unanswered, MemoryProducer]:
    app = App("test")
    source, sink = Unanswered(numbers(100), keep_open=keep_open), MemoryProducer()
    app.batch_handler(source=source, sink=sink, decoder="raw", name="handler")(echo)
    return app, source, sink


def test_a_run_to_the_end_whose_last_commit_is_not_taken_fails(tmp_path: Path) -> None:
    app, source, sink = an_app(keep_open=False)
    events = Events()
    with pytest.raises(SourceError, match="could not commit: nobody answers; whoever reads on gets the messages"):
        app.run(workers=1, until="end", state_dir=tmp_path, observer=events, drain_timeout=DRAIN_S)
    assert len(sink.payloads) == 100
    assert events.report.ending == "failed"
    assert sum("trying again for 1 s" in line for line in events.lines) == 1
    assert 1 < source.reader.attempts <= MOST_ATTEMPTS


def test_a_run_that_is_stopped_then_ends_with_work_left(tmp_path: Path) -> None:
    app, _, sink = an_app(keep_open=True)

    def stop() -> None:
        if sink.wait_for(100):
            os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    report = app.run(workers=1, until="forever", state_dir=tmp_path, observer=Events(), drain_timeout=DRAIN_S)
    stopper.join()
    assert (report.ending, report.rows) == ("deadline", 100)


class RefusedLaterReader(MemoryReader):
    """Its broker takes the first commit, and says afterwards that it did not."""

    commit_interval_s = 0.05

    def __init__(self, consumer: MemoryConsumer, context: ReaderContext) -> None:
        super().__init__(consumer, context)
        self.sent: list[dict[int, int]] = []

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        self.sent += [] if wait else [dict(positions)]
        self.commit_failed = len(self.sent) == 1
        return super().commit(positions, wait=wait)


class RefusedLater(MemoryConsumer):
    reader: RefusedLaterReader

    def open(self, context: ReaderContext) -> RefusedLaterReader:
        self.reader = RefusedLaterReader(self, context)
        return self.reader


def test_a_commit_that_is_refused_after_it_was_sent_is_sent_again_though_nothing_else_comes(tmp_path: Path) -> None:
    app = App("test")
    source = RefusedLater(numbers(100), keep_open=True)
    app.batch_handler(source=source, sink=MemoryProducer(), decoder="raw", name="handler")(echo)

    def stop() -> None:
        deadline = time.monotonic() + 60
        while not (hasattr(source, "reader") and len(source.reader.sent) == 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    app.run(workers=1, until="forever", state_dir=tmp_path, observer=Events())
    stopper.join()
    assert source.reader.sent == [{0: 100}, {0: 100}]
