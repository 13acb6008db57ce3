"""Whole runs that get nowhere for a while: which row waits is told, why, and that it goes on; nothing is lost by it."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pytest

from pythia_fast import App, CircuitBreaker, DeadLetterLimit, FileConsumer, MemoryConsumer, MemoryProducer, RetryPolicy
from pythia_fast.brokers.memory import MemoryMessage
from pythia_fast.runtime import engine, reading, slot_plan, standing
from tests.support.memory_run import Events, echo, numbers, run, sorted_ints


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Tenths of seconds for what takes ten, so that the tests need not wait."""
    monkeypatch.setattr(engine, "STALL_INTERVAL_S", 0.05)
    monkeypatch.setattr(standing, "STALL_S", 0.3)
    monkeypatch.setattr(standing, "LATE_S", 0.6)


class Telling(Events):
    """Calls ``then``, once, when a line says so."""

    sample_interval_s = 0.05

    def __init__(self, words: str, then) -> None:
        super().__init__()
        self._words, self._then = words, then

    def event(self, text):
        super().event(text)
        if self._then is not None and self._words in text:
            then, self._then = self._then, None
            then()

    @property
    def told(self) -> list[str]:
        return [line for line in self.lines if "nothing was completed" in line or "while others" in line]

    @property
    def oldest(self) -> float:
        return max(snapshot.oldest_incomplete_s.get("handler", 0.0) for snapshot in self.snapshots)


def wait_while(flag: Path, seconds: float = 0.0):
    def handler(batch):
        time.sleep(seconds)
        while flag.exists():
            time.sleep(0.01)
        return echo(batch)

    return handler


def test_rows_that_wait_with_an_oversize_payload_are_told_why(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "SPOOL_RETRY_S", 0.05)
    app, dead = App("stalls"), MemoryProducer()

    @app.batch_handler(
        source=MemoryConsumer([b"1", b"x" * 10_000]), dead_letter=dead, decoder="raw", max_batch_bytes=1000
    )
    def handle(batch):
        pass

    class Away(Telling):
        """The spool's folder is moved away until the stall was told of."""

        def started(self, info):
            super().started(info)
            (self.folder,) = (tmp_path / "spool").iterdir()
            self.elsewhere = self.folder.rename(tmp_path / "elsewhere")

    events = Away("nothing was completed", lambda: events.elsewhere.rename(events.folder))
    app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert dead.payloads == [b"x" * 10_000]
    first = events.told[0]
    assert (
        f"waits with its batch while nothing is read: cannot keep an oversize payload in {events.folder}: No" in first
    )


def test_a_handler_that_does_not_return_is_named_with_its_process(tmp_path):
    stuck = tmp_path / "stuck"
    stuck.touch()
    events = Telling("nothing was completed", stuck.unlink)
    report, sink, _, _ = run(
        tmp_path / "state", wait_while(stuck, 0.05), numbers(50), workers=1, batch_size=10, observer=events
    )
    assert sorted_ints(sink) == list(range(50))
    first, last = events.told
    assert "handler: nothing was completed for 0." in first
    assert "the oldest row, memory[0] offset 0, came 0." in first
    assert "is in the handler in process " in first
    assert "batch_deadline= is not set, so nothing ends it" in first
    assert last.startswith("handler: it goes on after ")
    assert events.oldest >= 0.3
    assert report.longest_incomplete_s == report.handlers[0].longest_incomplete_s >= 0.3
    assert report.oldest_incomplete_s == 0.0


def test_processes_that_die_one_after_the_other_are_told_with_their_batch(tmp_path):
    heals = tmp_path / "heals"

    def handler(batch):
        if not heals.exists():
            os.kill(os.getpid(), 9)
        return echo(batch)

    events = Telling("have died with", heals.touch)
    options = {"workers": 1, "batch_size": 64, "spares": 0, "dead_letter_limit": None}
    _, sink, dead, _ = run(tmp_path / "state", handler, numbers(64), observer=events, **options)
    assert sorted(sorted_ints(sink) + sorted_ints(dead)) == list(range(64))
    told = next(line for line in events.told if "have died with this batch" in line)
    assert "set batch_deadline=" not in told


def test_a_batch_deadline_is_told_with_what_is_left_of_it(tmp_path):
    stuck = tmp_path / "stuck"
    stuck.touch()
    events = Telling("nothing was completed", stuck.unlink)
    run(tmp_path / "state", wait_while(stuck), numbers(5), workers=1, batch_deadline=60, observer=events)
    assert "batch_deadline=60 ends it in " in events.told[0]


def test_one_row_that_is_late_while_others_flow_is_named(tmp_path):
    stuck = tmp_path / "stuck"
    stuck.touch()

    def handler(batch):
        if batch.positions["partition"][0] == 1:
            while stuck.exists():
                time.sleep(0.01)
        return echo(batch)

    events = Telling("while others are completed", stuck.unlink)
    source, sink = MemoryConsumer(partitions=2, keep_open=True), MemoryProducer()
    app = App("test")
    app.batch_handler(source=source, sink=sink, decoder="raw", ordering="partition", name="handler")(handler)

    def feed() -> None:
        source.send(b"0", partition=1)
        for i in range(1, 10_000):
            if not stuck.exists():
                break
            source.send(b"%d" % i, partition=0)
            time.sleep(0.01)
        source.end()

    feeder = threading.Thread(target=feed)
    feeder.start()
    app.run(workers=2, until="end", state_dir=tmp_path / "state", observer=events)
    feeder.join()
    late = [line for line in events.lines if "while others are completed" in line]
    assert "the oldest row, memory[1] offset 0, came 0." in late[0]
    assert "is in the handler in process " in late[0]
    assert len(sink.records) == source.committed[0] + 1


def test_a_row_that_waits_for_its_retry_is_named_with_the_time(tmp_path):
    def handler(batch):
        if batch.attempts[0] == 0 and (again := [i for i, v in enumerate(batch["payload"].tolist()) if v == b"7"]):
            batch.retry(again)
        return echo(batch)

    events = Events()
    retry = RetryPolicy(max_attempts=3, backoff=1.5, jitter=0)
    _, sink, _, _ = run(
        tmp_path, handler, numbers(20), workers=1, retry=retry, output_rows="any", batch_size=20, observer=events
    )
    assert sorted(set(sorted_ints(sink))) == list(range(20))
    told = [line for line in events.lines if "nothing was completed" in line]
    assert "the oldest row, memory[0] offset 7, came " in told[0]
    assert "waits to be handled again at " in told[0]
    assert ", as retry= asks for" in told[0]


def test_rows_that_wait_and_leave_no_room_to_read_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(slot_plan, "GATHERED_ROWS", 1)

    def handler(batch):
        batch.retry(batch.attempts == 0)
        return echo(batch)

    events = Events()
    retry = RetryPolicy(max_attempts=3, backoff=3, jitter=0)
    _, sink, _, _ = run(tmp_path, handler, numbers(60), workers=1, retry=retry, batch_size=1, observer=events)
    assert sorted_ints(sink) == list(range(60))
    assert max(snapshot.rows_waiting for snapshot in events.snapshots) == 40
    told = [line for line in events.lines if "nothing was completed" in line]
    assert re.search(
        r"; 40 rows wait for their next attempt until \d\d:\d\d:\d\d and take 40 of all 40 slots, "
        "so nothing more is read before; raise batch_size or shorten the backoff",
        "\n".join(told),
    )


def test_a_sink_that_takes_nothing_is_named_with_its_trouble(tmp_path):
    app, source, sink = App("test"), MemoryConsumer(numbers(50)), MemoryProducer()
    app.batch_handler(source=source, sink=sink, decoder="raw", name="handler")(echo)
    sink.fail_with("nobody answers")
    events = Telling("nothing was completed", lambda: sink.fail_with(None))
    report = app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert sorted_ints(sink) == list(range(50))
    assert "its results wait for the sink, which does not confirm them: nobody answers" in events.told[0]
    assert report.longest_incomplete_s >= 0.3


def test_dead_letters_that_cannot_be_written_are_named(tmp_path):
    def handler(batch):
        raise ValueError("no")

    app, source, dead = App("test"), MemoryConsumer(numbers(3)), MemoryProducer()
    app.batch_handler(source=source, dead_letter=dead, decoder="raw", name="handler")(handler)
    dead.fail_with("no room")
    events = Telling("nothing was completed", lambda: dead.fail_with(None))
    app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert len(dead.records) == 3
    assert "its dead letters wait for where they are written to, which does not confirm them: " in events.told[0]


def test_a_source_that_is_paused_for_its_dead_letters_is_told(tmp_path):
    bad = tmp_path / "bad"
    bad.touch()

    def handler(batch):
        if bad.exists():
            raise ValueError("a bad deploy")
        return echo(batch)

    events = Telling("nothing was completed", bad.unlink)
    limit = DeadLetterLimit(ratio=0.5, min_rows=100, pause=1.0, probes=100)
    report, *_ = run(
        tmp_path / "state",
        handler,
        numbers(5000),
        workers=1,
        batch_size=100,
        on_error="dead_letter",
        dead_letter_limit=limit,
        observer=events,
    )
    assert report.rows == 5000
    assert "reading is paused: " in events.told[0]
    assert "more than dead_letter_limit allows" in events.told[0]


def test_an_open_circuit_is_told_with_the_row_that_waits_for_it(tmp_path):
    away = tmp_path / "away"
    away.touch()

    def handler(batch):
        if away.exists():
            raise ConnectionError("no route")
        return echo(batch)

    events = Telling("nothing was completed", away.unlink)
    breaker = CircuitBreaker(failure_threshold=2, recovery_timeout=1.0, probes=100)
    _, sink, _, _ = run(tmp_path / "state", handler, numbers(500), workers=1, breaker=breaker, observer=events)
    assert sorted_ints(sink) == list(range(500))
    assert "the oldest row, memory[0] offset 0, came " in events.told[0]
    assert "the circuit is open: 2 batches in a row failed, the last with ConnectionError" in events.told[0]


def test_a_rate_limit_that_lets_nothing_through_is_told(tmp_path):
    events = Events()
    run(tmp_path, echo, numbers(2), workers=1, rate_limit=1.0, observer=events)
    told = [line for line in events.lines if "nothing was completed" in line]
    assert "the source is held back by rate_limit=1 rows per second" in told[0]


def test_the_position_of_a_file_is_told_as_its_line(tmp_path):
    stuck = tmp_path / "stuck"
    stuck.touch()
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"".join(b'{"i": %d}\n' % i for i in range(30)))

    def handler(batch):
        if b'{"i": 20}' in batch["payload"].tolist():
            while stuck.exists():
                time.sleep(0.01)

    app = App("test")
    app.batch_handler(source=FileConsumer(path), decoder="raw", batch_size=10, name="handler")(handler)
    events = Telling("nothing was completed", stuck.unlink)
    app.run(workers=1, until="end", state_dir=tmp_path / "state", observer=events)
    assert f"the oldest row, {path}:21 (byte 190), came " in events.told[0]


def test_a_run_that_ends_with_rows_in_hand_tells_their_age(tmp_path):
    def handler(batch):
        time.sleep(60)

    class StopsWhenStalled(Telling):
        def __init__(self):
            super().__init__("nothing was completed", lambda: os.kill(os.getpid(), 15))

    app, source = App("test"), MemoryConsumer([MemoryMessage(b"x")], keep_open=True)
    app.batch_handler(source=source, decoder="raw", name="handler")(handler)
    report = app.run(workers=1, until="forever", state_dir=tmp_path, observer=StopsWhenStalled(), drain_timeout=0.2)
    assert report.ending == "deadline"
    assert report.oldest_incomplete_s >= 0.5
    assert report.unfinished == 1
