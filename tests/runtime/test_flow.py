"""What holds a source back on purpose, in whole runs: dead_letter_limit=, breaker=, rate_limit=; nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pythia_fast import App, Batch, CircuitBreaker, DeadLetterLimit, MemoryConsumer, MemoryProducer, RetryPolicy
from pythia_fast.brokers.memory import MemoryMessage
from pythia_fast.errors import HandlerError
from pythia_fast.runtime.flow import PROBE_ROWS
from tests.support import memory_run
from tests.support.memory_run import Events, numbers, sorted_ints

#: Rows that a handler of two processes may have in hand at batches of 100: every slot of its arena.
IN_HAND = 100 * (2 * 4 + 4)
#: Slots of one with a circuit breaker: batches that it may call the handler with until the circuit is known to be open.
SLOTS = 2 * 4 + 4 + 32


class Watcher(Events):
    """Calls something, once, when an event or a snapshot says so."""

    sample_interval_s = 0.02

    def __init__(self, *, when: Callable[[str], bool], then: Callable[[], None]) -> None:
        super().__init__()
        self._when, self._then = when, then

    def event(self, text):
        super().event(text)
        if self._then is not None and self._when(text):
            then, self._then = self._then, None
            then()


def says(words: str) -> Callable[[str], bool]:
    return lambda text: words in text


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def rows_of(batch) -> list[int]:
    return [int(payload) for payload in batch["payload"].tolist()]


def echo(batch):
    return batch["payload"].tolist()


# -- dead_letter_limit


def fail_while(flag: Path):
    def handler(batch):
        if flag.exists():
            raise ValueError("a bad deploy")
        return echo(batch)

    return handler


def test_a_bad_deploy_does_not_empty_the_source_and_a_good_one_goes_on(tmp_path):
    bad = tmp_path / "bad"
    bad.touch()
    limit = DeadLetterLimit(ratio=0.5, min_rows=200, pause=0.05, max_pause=0.05, probes=1000)
    events = Watcher(when=says("reading is paused: 64 of 64"), then=bad.unlink)
    report, sink, dead, source = memory_run.run(
        tmp_path / "state",
        fail_while(bad),
        numbers(20_000),
        batch_size=100,
        on_error="dead_letter",
        dead_letter_limit=limit,
        observer=events,
    )
    assert sorted(int(payload) for payload in (*sink.payloads, *dead.payloads)) == list(range(20_000))
    assert 200 <= len(dead.records) <= 200 + IN_HAND + 10 * PROBE_ROWS
    assert source.committed == {0: 20_000}
    assert (report.pauses, report.handlers[0].pauses, report.handlers[0].flow) == (1, 1, "open")
    assert report.handlers[0].paused_seconds >= 0.05
    first, *_, last = [line for line in events.lines if "reading" in line]
    assert "reading is paused" in first
    assert "more than dead_letter_limit allows (50%); the last one: ValueError: a bad deploy; a batch of" in first
    assert last == "handler: reading goes on"


def test_a_run_to_the_end_that_gets_nowhere_fails_and_the_next_one_goes_on_there(tmp_path):
    bad = tmp_path / "bad"
    bad.touch()
    app, events = App("test"), Events()
    source = MemoryConsumer(numbers(20_000))
    sink, dead = MemoryProducer(), MemoryProducer()
    app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        batch_size=100,
        name="handler",
        dead_letter_limit=DeadLetterLimit(min_rows=200, pause=0.01, probes=3),
    )(fail_while(bad))
    with pytest.raises(
        HandlerError, match="handler 'handler' got nowhere: 64 of 64 rows that were tried were given up"
    ):
        app.run(workers=2, until="end", state_dir=tmp_path / "state", observer=events)
    assert events.report.ending == "failed"
    assert "3 batches were tried" in events.report.error
    assert "ValueError: a bad deploy" in events.report.error
    assert events.report.handlers[0].flow == "paused"
    given_up = [int(payload) for payload in dead.payloads]
    assert len(given_up) <= 200 + IN_HAND + 3 * PROBE_ROWS
    assert source.committed[0] <= len(given_up)
    bad.unlink()
    app.run(workers=2, until="end", state_dir=tmp_path / "state")
    assert set(sorted_ints(sink)) | set(given_up) == set(range(20_000))
    assert source.committed == {0: 20_000}


def test_a_paused_source_is_told_and_a_stop_drains_it(tmp_path):
    app = App("test")

    class StopWhenSeen(Watcher):
        def sample(self, snapshot):
            super().sample(snapshot)
            if self._then is not None and snapshot.trouble and snapshot.flow[0].state == "paused":
                self._then = None
                stop()

    events = StopWhenSeen(when=lambda text: False, then=stop)
    source = MemoryConsumer(numbers(20_000))
    dead = MemoryProducer()

    @app.batch_handler(
        source=source, dead_letter=dead, decoder="raw", batch_size=100, dead_letter_limit=DeadLetterLimit(pause=60)
    )
    def handler(batch):
        raise ValueError("a bad deploy")

    report = app.run(workers=2, until="forever", state_dir=tmp_path / "state", observer=events)
    assert report.ending == "drained"
    assert report.handlers[0].flow == "paused"
    assert source.committed == {0: len(dead.records)}
    assert any("handler: reading is paused: " in line for snapshot in events.snapshots for line in snapshot.trouble)


@pytest.mark.parametrize(
    ("options", "paused"),
    [
        ({"dead_letter_limit": DeadLetterLimit(ratio=0.4, min_rows=100, pause=0.01, count_rejected=True)}, True),
        ({"dead_letter_limit": DeadLetterLimit(ratio=0.4, min_rows=100, pause=0.01)}, False),
        ({"dead_letter_limit": 0.4}, False),
        ({"dead_letter_limit": None}, False),
    ],
)
def test_rejected_rows_count_only_if_asked(tmp_path, options, paused):
    def handler(batch):
        batch.reject([row % 2 == 0 for row in rows_of(batch)], reason="even")

    if paused:
        with pytest.raises(HandlerError, match="got nowhere"):
            memory_run.run(tmp_path, handler, numbers(5000), batch_size=100, **options)
        return
    report, _, dead, _ = memory_run.run(tmp_path, handler, numbers(5000), batch_size=100, **options)
    assert (report.pauses, len(dead.records)) == (0, 2500)


def test_without_a_limit_everything_may_go_to_the_dead_letters(tmp_path):
    def handler(batch):
        raise ValueError("all of them")

    options = {"batch_size": 100, "on_error": "dead_letter", "dead_letter_limit": None}
    report, _, dead, _ = memory_run.run(tmp_path, handler, numbers(5000), **options)
    assert (report.pauses, len(dead.records)) == (0, 5000)


def test_the_default_limit_is_half_of_the_rows(tmp_path):
    with pytest.raises(HandlerError, match=r"more than dead_letter_limit allows \(50%\)"):
        memory_run.run(
            tmp_path,
            lambda batch: batch["no such column"],
            numbers(50_000),
            batch_size=500,
            dead_letter_limit=DeadLetterLimit(pause=0.01),
            on_error="dead_letter",
        )


# -- breaker


def call_service(away: Path, calls: Path):
    def handler(batch):
        with calls.open("a") as file:
            file.write(f"{int(away.exists())}\n")
        if away.exists():
            raise ConnectionError("no service")
        return echo(batch)

    return handler


@pytest.mark.parametrize("ordering", ["unordered", "key"])
def test_an_outage_dead_letters_nothing_and_costs_few_calls(tmp_path, ordering):
    away, calls = tmp_path / "away", tmp_path / "calls"
    away.touch()
    events = Watcher(when=says("the batch that was tried failed"), then=away.unlink)
    messages = [MemoryMessage(b"%d" % i, key=b"%d" % (i % 7)) for i in range(20_000)]
    report, sink, dead, source = memory_run.run(
        tmp_path / "state",
        call_service(away, calls),
        messages,
        batch_size=100,
        ordering=ordering,
        breaker=CircuitBreaker(failure_threshold=3, recovery_timeout=0.1, probes=1000),
        observer=events,
    )
    assert dead.records == []
    assert sorted_ints(sink) == list(range(20_000))
    assert source.committed == {0: 20_000}
    assert (report.pauses, report.handlers[0].circuit) == (1, "closed")
    assert calls.read_text().split().count("1") <= SLOTS + len(events.lines)
    assert "the circuit is open: 3 batches in a row failed, the last with ConnectionError: no service" in " ".join(
        events.lines
    )
    if ordering == "key":
        for key in range(7):
            assert [n for n in map(int, sink.payloads) if n % 7 == key] == list(range(key, 20_000, 7))


def test_the_circuit_is_seen_while_it_is_open(tmp_path):
    away, calls = tmp_path / "away", tmp_path / "calls"
    away.touch()

    class MendWhenSeen(Watcher):
        def sample(self, snapshot):
            super().sample(snapshot)
            if self._then is not None and snapshot.flow[0].circuit == "open":
                then, self._then = self._then, None
                then()

    events = MendWhenSeen(when=lambda text: False, then=away.unlink)
    memory_run.run(
        tmp_path / "state",
        call_service(away, calls),
        numbers(1000),
        batch_size=100,
        breaker=CircuitBreaker(failure_threshold=2, recovery_timeout=0.2),
        observer=events,
    )
    states = {(snapshot.flow[0].state, snapshot.flow[0].circuit) for snapshot in events.snapshots}
    assert ("paused", "open") in states
    assert events.snapshots[-1].flow[0] == ("handler", "open", "closed")


def test_one_batch_alone_opens_the_circuit_and_keeps_its_attempts(tmp_path):
    """The failing batch is all there is: it must be what is tried, over and over."""
    away, calls = tmp_path / "away", tmp_path / "calls"
    away.touch()
    events = Watcher(when=says("the batch that was tried failed"), then=away.unlink)
    report, sink, dead, _ = memory_run.run(
        tmp_path / "state",
        call_service(away, calls),
        numbers(10),
        breaker=CircuitBreaker(failure_threshold=4, recovery_timeout=0.05),
        retry=RetryPolicy(max_attempts=2),
        observer=events,
    )
    assert dead.records == []
    assert (sorted_ints(sink), report.handlers[0].circuit) == (list(range(10)), "closed")


def test_rows_that_make_the_service_fail_are_given_up_while_it_answers_others(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        if 555 in rows:
            raise TimeoutError("this one takes too long")
        return echo(batch)

    report, sink, dead, source = memory_run.run(
        tmp_path,
        handler,
        numbers(10_000),
        batch_size=10,
        workers=1,
        rate_limit=5000,  # so that others are handled between its attempts
        breaker=CircuitBreaker(),
        retry=RetryPolicy(max_attempts=3),
    )
    assert dead.payloads == [b"555"]
    assert dict(dead.records[0].headers)["pf-error"] == b"TimeoutError"
    assert sorted_ints(sink) == [row for row in range(10_000) if row != 555]
    assert (report.pauses, source.committed) == (0, {0: 10_000})


@pytest.mark.parametrize("ordering", ["unordered", "key"])
def test_an_outage_at_the_last_attempt_gives_up_no_row(tmp_path, ordering):
    """The only attempt is the last one, and the circuit is closed when the outage begins."""
    away, calls = tmp_path / "away", tmp_path / "calls"
    away.touch()
    # Only then: a search that another process is in when the service comes back takes it for the row's fault.
    events = Watcher(when=says("the batch that was tried failed"), then=away.unlink)
    _, sink, dead, source = memory_run.run(
        tmp_path / "state",
        call_service(away, calls),
        [MemoryMessage(b"%d" % i, key=b"%d" % (i % 7)) for i in range(2000)],
        batch_size=100,
        batch_timeout=60,
        ordering=ordering,
        breaker=CircuitBreaker(failure_threshold=3, recovery_timeout=0.5),
        retry=RetryPolicy(max_attempts=1),
        observer=events,
    )
    assert dead.records == []
    assert sorted_ints(sink) == list(range(2000))
    assert source.committed == {0: 2000}
    if ordering == "key":
        for key in range(7):
            assert [n for n in map(int, sink.payloads) if n % 7 == key] == list(range(key, 2000, 7))


def test_rows_that_all_make_the_service_fail_are_given_up_one_after_the_other(tmp_path):
    guilty = set(range(500, 506))

    def handler(batch):
        if guilty & set(rows_of(batch)):
            raise TimeoutError("these take too long")
        return echo(batch)

    _, sink, dead, source = memory_run.run(
        tmp_path,
        handler,
        numbers(5000),
        batch_size=3,
        workers=1,
        rate_limit=1000,  # so that others are handled between its attempts
        breaker=CircuitBreaker(failure_threshold=100),
        retry=RetryPolicy(max_attempts=1),
    )
    assert {int(payload) for payload in dead.payloads} == guilty
    assert sorted_ints(sink) == [row for row in range(5000) if row not in guilty]
    assert source.committed == {0: 5000}


def test_other_exceptions_are_faults_of_their_rows(tmp_path):
    def handler(batch):
        if 7 in rows_of(batch):
            raise ValueError("seven")
        return echo(batch)

    report, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(1000), batch_size=100, breaker=CircuitBreaker())
    assert dead.payloads == [b"7"]
    assert (len(sink.payloads), report.pauses) == (999, 0)


def test_a_search_for_a_row_stops_at_an_outage(tmp_path):
    """The batch raises, and while its rows are searched the service goes away: the rest waits."""
    away, calls = tmp_path / "away", tmp_path / "calls"

    def handler(batch):
        rows = rows_of(batch)
        with calls.open("a") as file:
            file.write(f"{len(rows)}\n")
        if away.exists():
            raise ConnectionError("no service")
        if 0 in rows and len(rows) == 50:
            away.touch()
        if 77 in rows:
            raise ValueError("seventy-seven")
        return echo(batch)

    events = Watcher(when=says("the circuit is open"), then=away.unlink)
    report, sink, dead, source = memory_run.run(
        tmp_path / "state",
        handler,
        numbers(100),
        batch_size=100,
        batch_timeout=60,
        workers=1,
        breaker=CircuitBreaker(failure_threshold=1, recovery_timeout=0.05),
        observer=events,
    )
    assert calls.read_text().split()[:4] == ["100", "50", "25", "50"]  # not called for the other 25 in between
    assert dead.payloads == [b"77"]
    assert [int(payload) for payload in sink.payloads] == [n for n in range(100) if n != 77]
    assert (report.pauses, source.committed) == (1, {0: 100})


def test_a_process_that_dies_with_the_probe_does_not_keep_the_circuit_half_open(tmp_path):
    away, died = tmp_path / "away", tmp_path / "died"
    away.touch()

    def handler(batch):
        if away.exists():
            raise ConnectionError("no service")
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return echo(batch)

    events = Watcher(when=says("the batch that was tried failed"), then=away.unlink)
    report, sink, dead, _ = memory_run.run(
        tmp_path / "state",
        handler,
        numbers(2000),
        batch_size=100,
        breaker=CircuitBreaker(failure_threshold=2, recovery_timeout=0.05),
        observer=events,
    )
    assert (report.crashes, dead.records) == (1, [])
    assert sorted_ints(sink) == list(range(2000))


class Row(msgspec.Struct):
    id: int


def test_with_nothing_in_hand_batches_are_read_until_one_calls_the_service(tmp_path):
    away = tmp_path / "away"
    away.touch()
    app = App("test")
    source = MemoryConsumer([b'{"id":0}'], keep_open=True)
    sink, dead = MemoryProducer(), MemoryProducer()

    @app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        batch_size=1,
        breaker=CircuitBreaker(failure_threshold=1, recovery_timeout=0.05),
        retry=RetryPolicy(max_attempts=1),
    )
    def handler(batch: Batch[Row]):
        if away.exists():
            raise ConnectionError("no service")
        return {"id": batch["id"]}

    def go_on() -> None:
        away.unlink()
        for payload in (b"no row", b"nor this", b'{"id":1}', b'{"id":2}'):
            source.send(payload)
        source.end()

    events = Watcher(when=says("the circuit is open"), then=go_on)
    report = app.run(workers=1, until="end", state_dir=tmp_path / "state", observer=events)
    assert sorted(dead.payloads) == [b"no row", b"nor this", b'{"id":0}']
    assert sink.payloads == [b'{"id":1}', b'{"id":2}']
    assert (report.pauses, report.handlers[0].circuit, source.committed) == (1, "closed", {0: 5})


def test_a_run_to_the_end_does_not_wait_for_the_service_for_ever(tmp_path):
    away, calls = tmp_path / "away", tmp_path / "calls"
    away.touch()
    breaker = CircuitBreaker(failure_threshold=2, recovery_timeout=0.02, probes=3)
    app, events = App("test"), Events()
    source = MemoryConsumer(numbers(1000))
    sink, dead = MemoryProducer(), MemoryProducer()
    app.batch_handler(source=source, sink=sink, dead_letter=dead, decoder="raw", name="handler", breaker=breaker)(
        call_service(away, calls)
    )
    with pytest.raises(HandlerError, match="got nowhere: the circuit is open: the batch that was tried failed"):
        app.run(workers=2, until="end", state_dir=tmp_path / "state", observer=events)
    assert (dead.records, sink.records, source.committed) == ([], [], {0: 0})
    assert events.report.handlers[0].circuit == "open"
    away.unlink()
    app.run(workers=2, until="end", state_dir=tmp_path / "state")
    assert sorted_ints(sink) == list(range(1000))


def test_a_stop_while_the_circuit_is_open_leaves_the_rows_for_the_next_run(tmp_path):
    away, calls = tmp_path / "away", tmp_path / "calls"
    away.touch()
    app = App("test")
    source = MemoryConsumer(numbers(1000), keep_open=True)
    sink, dead = MemoryProducer(), MemoryProducer()
    app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        batch_size=100,
        breaker=CircuitBreaker(failure_threshold=2, recovery_timeout=600),
    )(call_service(away, calls))
    events = Watcher(when=says("the circuit is open"), then=stop)
    report = app.run(workers=2, until="forever", state_dir=tmp_path / "state", observer=events, drain_timeout=0.5)
    assert report.ending == "deadline"
    assert (dead.records, source.committed) == ([], {0: 0})
    assert calls.read_text().split().count("1") <= SLOTS
    assert report.unfinished > 0


# -- rate_limit


def test_a_rate_of_a_thousand_rows_is_met_over_ten_seconds_and_seen(tmp_path):
    app, events = App("test"), Events()
    source = MemoryConsumer(numbers(100_000))
    sink = MemoryProducer()
    started, at = [], []

    @app.batch_handler(source=source, sink=sink, decoder="raw", rate_limit=1000)
    def handler(batch):
        return echo(batch)

    class Clock(Events):
        sample_interval_s = 0.05

        def sample(self, snapshot):
            super().sample(snapshot)
            if snapshot.rows and not started:
                started.append((snapshot.seconds, snapshot.rows))
            elif started and not at and snapshot.seconds >= started[0][0] + 10:
                at.append((snapshot.seconds, snapshot.rows))
                stop()

    events = Clock()
    report = app.run(workers=2, until="forever", state_dir=tmp_path / "state", observer=events)
    (from_s, from_rows), (to_s, to_rows) = started[0], at[0]
    assert (to_rows - from_rows) / (to_s - from_s) == pytest.approx(1000, rel=0.05)
    assert report.ending == "drained"
    assert source.committed == {0: len(sink.records)}
    assert "rate limited" in {snapshot.flow[0].state for snapshot in events.snapshots}


@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
def test_a_rate_limit_loses_nothing(tmp_path, ordering):
    messages = [MemoryMessage(b"%d" % i, key=b"%d" % (i % 3), partition=i % 4) for i in range(3000)]
    started = time.monotonic()
    options = {"rate_limit": 2000, "ordering": ordering, "partitions": 4, "workers": 4}
    report, sink, dead, _ = memory_run.run(tmp_path, echo, messages, **options)
    assert sorted_ints(sink) == list(range(3000))
    assert dead.records == []
    assert time.monotonic() - started >= 0.9 * (3000 - 200) / 2000
    assert report.pauses == 0
