"""breaker= where a row that makes the service fail by itself is in all that there is to try, in whole runs."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pythia_fast import App, CircuitBreaker, MemoryConsumer, MemoryMessage, MemoryProducer, RetryPolicy
from pythia_fast.errors import HandlerError
from tests.support import memory_run
from tests.support.memory_run import echo, sorted_ints

ROWS, BATCH_ROWS = 400, 100
KEYS = 7


def read(tmp_path, guilty: set[int], ordering: str, *, deadly: frozenset[int] = frozenset(), **options):
    """Run over batches; each that holds a guilty row fails, each with a deadly one kills. (sink, dead letters)"""

    def handler(batch):
        rows = {int(payload) for payload in batch["payload"].tolist()}
        if guilty & rows:
            raise ConnectionError("the service does not take this one")
        if deadly & rows:
            os._exit(7)
        return echo(batch)

    _, sink, dead, _ = memory_run.run(
        tmp_path,
        handler,
        [MemoryMessage(b"%d" % i, key=b"%d" % (i % KEYS)) for i in range(ROWS)],
        batch_size=BATCH_ROWS,
        batch_timeout=60,
        ordering=ordering,
        breaker=CircuitBreaker(failure_threshold=2, recovery_timeout=0.02),
        retry=RetryPolicy(max_attempts=2),
        **{"workers": 1, **options},
    )
    return sink, dead


@pytest.mark.parametrize("ordering", ["unordered", "key"])
@pytest.mark.parametrize("guilty", [{390}, {50, 150, 250, 350}], ids=["the last batch", "every batch"])
def test_rows_that_make_the_service_fail_do_not_keep_the_circuit_open(tmp_path, ordering, guilty):
    sink, dead = read(tmp_path, guilty, ordering)
    assert {int(payload) for payload in dead.payloads} == guilty
    assert sorted_ints(sink) == [row for row in range(ROWS) if row not in guilty]
    if ordering == "key":
        for key in range(KEYS):
            in_lane = [row for row in map(int, sink.payloads) if row % KEYS == key]
            assert in_lane == sorted(in_lane)


@pytest.mark.parametrize(
    ("guilty", "ordering", "options"),
    [
        ({50, 150, 250, 350}, "unordered", {"max_batches_per_process": 1}),
        ({10, 90, 110, 190, 210, 290, 310, 390}, "unordered", {"workers": 2}),
        ({0, 99, 100, 199, 200, 299, 300, 399}, "unordered", {}),
        ({0, 100, 200, 300}, "key", {}),
    ],
    ids=["recycled processes", "two processes", "first and last rows", "first rows of lanes"],
)
def test_they_are_found_wherever_they_stand_and_whoever_looks(tmp_path, guilty, ordering, options):
    sink, dead = read(tmp_path, guilty, ordering, **options)
    assert {int(payload) for payload in dead.payloads} == guilty
    assert sorted_ints(sink) == [row for row in range(ROWS) if row not in guilty]


@pytest.mark.parametrize("ordering", ["unordered", "key"])
@pytest.mark.parametrize(("fails", "kills"), [(150, 160), (160, 150), (150, 151)])
def test_one_that_kills_beside_one_that_makes_the_service_fail_are_both_given_up(tmp_path, ordering, fails, kills):
    sink, dead = read(tmp_path, {fails}, ordering, deadly=frozenset({kills}))
    assert {int(payload) for payload in dead.payloads} == {fails, kills}
    assert sorted_ints(sink) == [row for row in range(ROWS) if row not in (fails, kills)]


def test_rows_that_come_later_tell_that_the_service_is_there(tmp_path):
    """On a slow topic there is nothing in hand but the row that makes it fail."""
    source = MemoryConsumer(keep_open=True)
    sent = threading.Event()

    def send():
        for row in range(40):
            source.send(b"%d" % row)
            time.sleep(0.15)
        sent.set()
        source.end()

    def handler(batch):
        if b"4" in batch["payload"].tolist():
            raise ConnectionError("the service does not take this one")
        return echo(batch)

    app, sink, dead = App("test"), MemoryProducer(), MemoryProducer()
    app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        breaker=CircuitBreaker(failure_threshold=2, recovery_timeout=0.1),
    )(handler)
    sender = threading.Thread(target=send)
    sender.start()
    app.run(workers=1, until="end", state_dir=tmp_path / "state")
    sender.join()
    assert sent.is_set()
    assert dead.payloads == [b"4"]
    assert sorted_ints(sink) == [row for row in range(40) if row != 4]


@pytest.mark.parametrize("on_error", ["isolate", "dead_letter"])
def test_a_search_that_an_outage_cuts_short_is_not_begun_anew(tmp_path, on_error):
    """Both kinds are in the only lane, and the handler looks first at the one that kills: each whole batch would."""
    fails, kills, deaths = {2, 10}, 50, tmp_path / "deaths"
    deaths.touch()

    def handler(batch):
        rows = {int(payload) for payload in batch["payload"].tolist()}
        if kills in rows and deaths.stat().st_size < 40:
            with deaths.open("a") as file:
                file.write(".")
            os._exit(7)
        if fails & rows:
            raise ConnectionError("the service does not take this one")
        return echo(batch)

    with pytest.raises(HandlerError, match="the circuit is open"):
        memory_run.run(
            tmp_path,
            handler,
            [MemoryMessage(b"%d" % i, key=b"one") for i in range(BATCH_ROWS)],
            batch_size=BATCH_ROWS,
            batch_timeout=60,
            ordering="key",
            on_error=on_error,
            breaker=CircuitBreaker(failure_threshold=5, recovery_timeout=0.02, probes=3),
            workers=1,
        )
    assert 1 <= deaths.stat().st_size <= 6


def test_one_that_kills_in_a_probe_of_a_few_rows_is_found(tmp_path):
    """It is first in the only lane; parts of the batch would hold it beside the one that makes the service fail."""
    deaths = tmp_path / "deaths"
    deaths.touch()

    def handler(batch):
        rows = {int(payload) for payload in batch["payload"].tolist()}
        if 2 in rows:
            raise ConnectionError("the service does not take this one")
        if 0 in rows:
            with deaths.open("a") as file:
                file.write(".")
            os._exit(7)
        return echo(batch)

    rows = [MemoryMessage(b"%d" % i, key=b"one") for i in range(ROWS)]
    breaker = CircuitBreaker(failure_threshold=1, recovery_timeout=0.02, probes=3)
    with pytest.raises(HandlerError, match="the circuit is open"):
        memory_run.run(
            tmp_path, handler, rows, batch_size=ROWS, batch_timeout=60, ordering="key", breaker=breaker, workers=1
        )
    assert deaths.stat().st_size <= 6
