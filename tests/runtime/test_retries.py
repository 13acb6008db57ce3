"""Rows that are handled again: how often, when, and what goes on meanwhile."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from pythia_fast import App, CircuitBreaker, MemoryConsumer, RetryPolicy
from pythia_fast.brokers.memory import MemoryMessage, MemoryProducer
from pythia_fast.pool.outcome import Outcome
from pythia_fast.runtime import slot_plan
from tests.support import memory_run
from tests.support.memory_run import Events, numbers, sorted_ints


class Journal:
    """What handlers in several processes did, one line each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *words: object) -> None:
        with self.path.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []


def rows_of(batch) -> list[int]:
    return [int(payload) for payload in batch["payload"].tolist()]


def test_rows_wait_before_they_are_handled_again_and_the_others_go_on(tmp_path):
    journal = Journal(tmp_path / "journal")

    def handler(batch):
        rows = rows_of(batch)
        for row in rows:
            if row % 50 == 7:
                journal.add(row, time.monotonic(), *batch.attempts[:1])
        batch.retry([row % 50 == 7 and batch.attempts[0] < 2 for row in rows])
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=5, backoff=0.2, jitter=0.0)
    report, sink, dead, source = memory_run.run(tmp_path, handler, numbers(500), batch_size=100, retry=policy)
    assert sorted_ints(sink) == list(range(500))
    assert dead.records == []
    assert (report.rows, report.retried) == (500, 20)
    assert source.committed == {0: 500}
    calls = defaultdict(list)
    for row, at, attempts in journal.lines:
        calls[row].append((float(at), int(attempts)))
    assert len(calls) == 10
    for times in calls.values():
        assert [attempts for _, attempts in times] == [0, 1, 2]
        (first, _), (second, _), (third, _) = times
        assert second - first >= 0.2
        assert third - second >= 0.4


def test_a_row_that_never_goes_well_is_given_up_after_its_attempts(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        batch.retry([row == 3 for row in rows])
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=3, backoff=0.01)
    report, sink, dead, source = memory_run.run(tmp_path, handler, numbers(10), retry=policy, workers=1)
    assert dead.payloads == [b"3"]
    headers = dict(dead.records[0].headers)
    assert headers["pf-reason"] == b"the handler asked for another attempt after 3 of 3"
    assert headers["pf-attempts"] == b"3"
    assert sorted_ints(sink) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (report.retried, source.committed) == (2, {0: 10})


@pytest.mark.parametrize("backoff", [0.0, 0.05])
def test_an_exception_of_retry_on_has_the_whole_call_tried_again(tmp_path, backoff):
    journal = Journal(tmp_path / "journal")

    def handler(batch):
        journal.add(len(batch), *batch.attempts[:1])
        if batch.attempts[0] < 2:
            raise TimeoutError("the service is busy")
        return [b"%d" % row for row in rows_of(batch)]

    policy = RetryPolicy(max_attempts=3, backoff=backoff, retry_on=(TimeoutError, ConnectionError))
    report, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(64), batch_size=64, retry=policy)
    assert sorted_ints(sink) == list(range(64))
    assert dead.records == []
    assert journal.lines == [["64", "0"], ["64", "1"], ["64", "2"]]
    assert report.retried == 128


def test_a_service_that_is_away_to_the_last_attempt_costs_two_calls_a_row(tmp_path):
    journal = Journal(tmp_path / "journal")

    def handler(batch):
        journal.add(len(batch))
        raise ConnectionError("no service")

    policy = RetryPolicy(max_attempts=2, retry_on=ConnectionError)
    report, _, dead, source = memory_run.run(tmp_path, handler, numbers(64), batch_size=64, workers=1, retry=policy)
    assert sorted_ints(dead) == list(range(64))
    assert dict(dead.records[0].headers)["pf-error"] == b"ConnectionError"
    assert journal.lines[:2] == [["64"], ["64"]]
    assert len(journal.lines) <= 2 + 2 * 64 + 12  # and what the first search by halves takes
    assert (report.dead_lettered, source.committed) == (64, {0: 64})


def test_only_the_rows_that_raise_it_to_the_last_attempt_are_given_up(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        if {5, 6, 7, 8, 40} & set(rows):
            raise TimeoutError("no answer for this one")
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=2, retry_on=TimeoutError)
    _, sink, dead, source = memory_run.run(tmp_path, handler, numbers(64), batch_size=64, workers=1, retry=policy)
    assert sorted_ints(dead) == [5, 6, 7, 8, 40]
    assert sorted_ints(sink) == sorted(set(range(64)) - {5, 6, 7, 8, 40})
    assert source.committed == {0: 64}


@pytest.mark.parametrize(("on_error", "given_up"), [("dead_letter", 64), ("isolate", 1)])
def test_what_is_raised_at_the_last_attempt_follows_on_error(tmp_path, on_error, given_up):
    def handler(batch):
        rows = rows_of(batch)
        if 9 in rows:
            raise TimeoutError("no answer for this one")
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=2, retry_on=TimeoutError)
    _, _, dead, _ = memory_run.run(tmp_path, handler, numbers(64), batch_size=64, retry=policy, on_error=on_error)
    assert len(dead.records) == given_up


@pytest.mark.parametrize("ordering", ["partition", "key"])
def test_rows_behind_one_that_waits_wait_for_it_and_other_lanes_go_on(tmp_path, ordering):
    """One process, lanes A and B; A's first row is not done until B's last one is."""
    app = App("test")
    messages = [
        MemoryMessage(b"%d" % i, key=b"A" if i % 2 == 0 else b"B", partition=i % 2 if ordering == "partition" else 0)
        for i in range(200)
    ]
    source = MemoryConsumer(messages, partitions=2)
    sink, dead = MemoryProducer(), MemoryProducer()
    handled = tmp_path / "handled"

    @app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        batch_size=10,
        ordering=ordering,
        retry=RetryPolicy(max_attempts=100, backoff=0.05, jitter=0.0, max_backoff=0.05),
    )
    def handler(batch):
        rows = rows_of(batch)
        with handled.open("a") as file:
            file.write("".join(f"{row}\n" for row in rows))
        last_of_b = "199" in handled.read_text().split()
        batch.retry([row == 0 and not last_of_b for row in rows])
        return [b"%d" % row for row in rows]

    app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert dead.records == []
    sent = [int(payload) for payload in sink.payloads]
    assert sorted(sent) == list(range(200))
    assert [row for row in sent if row % 2] == [row for row in range(200) if row % 2]
    behind = [row for row in sent if row % 2 == 0]
    # Of its own batch, row 0 was handled together with the rows behind it, and only its record comes later.
    first = {0, 2, 4, 6, 8}
    assert [row for row in behind if row not in first] == [row for row in range(0, 200, 2) if row not in first]
    assert sent.index(0) > sent.index(199)
    assert sent.index(10) > sent.index(0)


def test_rows_that_wait_outlive_the_processes_that_handled_them(tmp_path):
    deaths = tmp_path / "deaths"
    deaths.mkdir()

    def handler(batch):
        rows = rows_of(batch)
        if batch.attempts[0] and len(list(deaths.iterdir())) < 2:
            (deaths / str(len(list(deaths.iterdir())))).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        batch.retry([row % 10 == 3 and attempts == 0 for row, attempts in zip(rows, batch.attempts, strict=True)])
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=9, backoff=0.05)
    options = {"batch_size": 50, "ordering": "key", "retry": policy}
    messages = [MemoryMessage(b"%d" % i, key=b"%d" % (i % 10)) for i in range(300)]
    report, sink, dead, source = memory_run.run(tmp_path, handler, messages, **options)
    assert sorted_ints(sink) == list(range(300))
    assert dead.records == []
    assert (report.crashes, source.committed) == (2, {0: 300})
    for key in range(10):
        rows = [int(payload) for payload in sink.payloads if int(payload) % 10 == key]
        assert sorted(rows) == list(range(key, 300, 10))


@pytest.fixture
def dies_before_it_commits(tmp_path, monkeypatch):
    """The first process that has handled rows of a second round dies when they are noted, and not yet written down as
    done; whether it has is said by the file that this returns."""
    died = tmp_path / "died"
    write = Outcome.write

    def die_once(self, journal, rows_done, errors):
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, journal, rows_done, errors)

    monkeypatch.setattr(Outcome, "write", die_once)
    return died


def test_a_death_before_rows_of_a_later_round_are_written_down_changes_no_count_of_attempts(
    tmp_path, dies_before_it_commits
):
    """Row 0 was done then, row 1 was to be handled again; afterwards, neither ever goes well."""
    calls = Journal(tmp_path / "calls")

    def handler(batch):
        rows = rows_of(batch)
        for row in rows:
            calls.add(row)
        second = not dies_before_it_commits.exists() and batch.attempts[0] == 1
        batch.retry([row == 1 or (row == 0 and not second) for row in rows])
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=4, backoff=0.01)
    report, sink, dead, source = memory_run.run(tmp_path, handler, numbers(10), retry=policy, workers=1)
    assert (report.crashes, source.committed) == (1, {0: 10})
    assert sorted_ints(dead) == [0, 1]
    assert sorted_ints(sink) == list(range(2, 10))
    # Four times each, and once more because a process died; the others were done in the first round.
    assert sorted(row for (row,) in calls.lines) == sorted([*"23456789", *"0" * 5, *"1" * 5])


def test_a_death_before_rows_of_a_later_round_are_written_down_keeps_their_order(tmp_path, dies_before_it_commits):
    def handler(batch):
        rows = rows_of(batch)
        second = not dies_before_it_commits.exists() and batch.attempts[0] == 1
        batch.retry([not batch.attempts[0] or (second and row % 10 == 5) for row in rows])
        return [b"%d" % row for row in rows]

    options = {"ordering": "partition", "retry": RetryPolicy(max_attempts=4, backoff=0.01), "workers": 1}
    report, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(640), batch_size=640, batch_timeout=60, **options)
    assert (report.crashes, dead.records) == (1, [])
    assert [int(payload) for payload in sink.payloads] == list(range(640))


def test_a_killer_among_rows_that_wait_is_found(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        if batch.attempts[0] and 33 in rows:
            os.kill(os.getpid(), signal.SIGSEGV)
        batch.retry([attempts == 0 for attempts in batch.attempts])
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=20, backoff=0.01)
    _, sink, dead, source = memory_run.run(tmp_path, handler, numbers(100), batch_size=50, retry=policy)
    assert dead.payloads == [b"33"]
    assert "SIGSEGV" in repr(dead.records[0].headers)
    assert sorted_ints(sink) == sorted(set(range(100)) - {33})
    assert source.committed == {0: 100}


def test_a_run_that_is_stopped_has_rows_that_wait_handled_at_once(tmp_path):
    app, events = App("test"), Events()
    source = MemoryConsumer(numbers(10), keep_open=True)
    sink, dead = MemoryProducer(), MemoryProducer()
    seen = tmp_path / "seen"

    @app.batch_handler(
        source=source, sink=sink, dead_letter=dead, decoder="raw", retry=RetryPolicy(backoff=3600, max_backoff=3600)
    )
    def handler(batch):
        batch.retry(batch.attempts == 0)
        seen.touch()
        return [b"%d" % row for row in rows_of(batch)]

    def stop() -> None:
        while not seen.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    started = time.monotonic()
    report = app.run(workers=1, until="forever", state_dir=tmp_path / "state", observer=events)
    thread.join()
    assert time.monotonic() - started < 60
    assert report.ending == "drained"
    assert sorted_ints(sink) == list(range(10))
    assert source.committed == {0: 10}


class Away(Exception):
    pass


def ask_by_mark(batch):
    batch.retry(np.array(rows_of(batch)) == 7)


def ask_by_exception(batch):
    if 7 in rows_of(batch):
        raise Away("the service is away")


POLICY = {"backoff": 3600, "max_backoff": 3600, "jitter": 0.0}


@pytest.mark.parametrize("last", [False, True], ids=["attempts are left", "the last attempt"])
@pytest.mark.parametrize(
    ("ask", "options"),
    [
        (ask_by_mark, {}),
        (ask_by_exception, {"retry_on": Away}),
    ],
    ids=["batch.retry", "retry_on"],
)
def test_a_run_that_is_stopped_tries_once_early_for_nothing_and_leaves_the_row_to_the_next_run(
    tmp_path, ask, options, last
):
    """The service that a row waits for is not back sooner for a SIGTERM: its attempts must not go, nor anybody wait."""
    app, events = App("test"), Events()
    source = MemoryConsumer(numbers(10), keep_open=True)
    sink, dead = MemoryProducer(), MemoryProducer()
    calls = tmp_path / "calls"
    policy = RetryPolicy(max_attempts=2 if last else 5, **options, **POLICY)

    @app.batch_handler(source=source, sink=sink, dead_letter=dead, decoder="raw", batch_size=1, retry=policy)
    def handler(batch):
        with calls.open("a") as told:
            told.write(f"{rows_of(batch)[0]} {batch.attempts[0]}\n")
        ask(batch)
        return [b"%d" % row for row in rows_of(batch)]

    def stop() -> None:
        while len(sink.payloads) < 9:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    started = time.monotonic()
    report = app.run(workers=1, until="forever", state_dir=tmp_path / "state", observer=events, drain_timeout=60.0)
    thread.join()
    assert time.monotonic() - started < 45
    assert (report.ending, report.dead_lettered, report.unfinished) == ("deadline", 0, 1)
    told = [line.split() for line in calls.read_text().splitlines()]
    assert [attempts for row, attempts in told if row == "7"] == ["0", "1"]
    assert dead.records == []
    assert source.committed == {0: 7}
    (line,) = [text for text in events.lines if "next attempt" in text]
    assert re.fullmatch(
        r"handler: 1 row waits for its next attempt until \d\d:\d\d:\d\d, beyond the drain timeout; "
        r"the next run reads it again, and with it all that was done behind memory\[0\] offset 7",
        line,
    )


def test_an_early_attempt_that_the_breaker_expects_to_fail_does_not_count_either(tmp_path):
    """The row asks for a retry first; its last attempt, early, meets a service that is away."""
    app, events = App("test"), Events()
    source = MemoryConsumer(numbers(1), keep_open=True)
    dead = MemoryProducer()
    seen = tmp_path / "seen"

    @app.batch_handler(
        source=source,
        dead_letter=dead,
        decoder="raw",
        retry=RetryPolicy(max_attempts=2, **POLICY),
        breaker=CircuitBreaker(expected=Away, failure_threshold=100),
    )
    def handler(batch):
        if batch.attempts[0]:
            raise Away("the service is away")
        batch.retry([True])
        seen.touch()

    def stop() -> None:
        while not seen.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    report = app.run(workers=1, until="forever", state_dir=tmp_path / "state", observer=events, drain_timeout=60.0)
    thread.join()
    assert (report.ending, report.dead_lettered, report.unfinished) == ("deadline", 0, 1)
    assert dead.records == []
    assert source.committed in ({}, {0: 0})


def test_rows_that_wait_beyond_the_slots_for_them_hold_the_source_back_and_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(slot_plan, "GATHERED_ROWS", 1)
    policy = RetryPolicy(max_attempts=2, backoff=0.3, jitter=0.0)

    def handler(batch):
        batch.retry(batch.attempts == 0)
        return [b"%d" % row for row in rows_of(batch)]

    report, sink, dead, source = memory_run.run(tmp_path, handler, numbers(200), batch_size=1, retry=policy)
    assert sorted_ints(sink) == list(range(200))
    assert dead.records == []
    assert (report.retried, source.committed) == (200, {0: 200})


class Refuses(type):
    def __instancecheck__(cls, instance):
        raise TypeError("do not ask")


class Unaskable(Exception, metaclass=Refuses):
    pass


@pytest.mark.parametrize("backoff", [0, 0.01])
def test_a_type_of_retry_on_that_cannot_be_asked_costs_the_rows_that_raise(tmp_path, backoff):
    def handler(batch):
        rows = rows_of(batch)
        if 3 in rows:
            raise ValueError("bad row")
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=3, backoff=backoff, retry_on=Unaskable)
    _, sink, dead, source = memory_run.run(tmp_path, handler, numbers(10), retry=policy, workers=1)
    assert dead.payloads == [b"3"]
    reason = dict(dead.records[0].headers)["pf-reason"].decode()
    assert reason.startswith("ValueError: bad row")
    assert "RetryPolicy(retry_on=) could not be compared with this exception: TypeError: do not ask" in reason
    assert sorted_ints(sink) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert source.committed == {0: 10}
