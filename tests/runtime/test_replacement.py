"""Processes that make room, are slow to be up, or lose their parent: the run goes on, and says so."""

from __future__ import annotations

import os
import resource
import signal
import time

import pytest

from pythia_fast import DeadLetterLimit
from pythia_fast.errors import HandlerError, PoolError
from pythia_fast.pool import watchdog
from pythia_fast.pool.restart_budget import RestartBudget
from pythia_fast.runtime import engine
from tests.support import memory_run
from tests.support.memory_run import Events, numbers, sorted_ints


def rows_of(batch) -> list[int]:
    return [int(payload) for payload in batch["payload"].tolist()]


def records(rows: list[int]) -> list[bytes]:
    return [b"%d" % row for row in rows]


def test_a_teardown_that_hangs_does_not_hold_its_lane_up(tmp_path, monkeypatch):
    """The successor works while the process before it is still in teardown(), which is ended after a time."""
    monkeypatch.setattr(watchdog, "TEARDOWN_DEADLINE_S", 0.5)
    monkeypatch.setattr(watchdog, "GRACE_S", 0.1)

    class Handler:
        def __call__(self, batch):
            rows = rows_of(batch)
            if 150 in rows:  # until the first one was ended
                deadline = time.monotonic() + 60
                while not (tmp_path / "hung").exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                first = int((tmp_path / "hung").read_text())
                while os.path.exists(f"/proc/{first}") and time.monotonic() < deadline:
                    time.sleep(0.01)
            return records(rows)

        def teardown(self):
            if not (tmp_path / "hung").exists():
                (tmp_path / "writing").write_text(str(os.getpid()))
                (tmp_path / "writing").rename(tmp_path / "hung")
                time.sleep(3600)

    events = Events()
    report, sink, dead, _ = memory_run.run(
        tmp_path,
        Handler,
        numbers(200),
        batch_size=10,
        workers=1,
        max_batches_per_process=8,
        ordering="partition",
        observer=events,
    )
    assert [int(payload) for payload in sink.payloads] == list(range(200))
    assert dead.records == []
    assert report.crashes == 0
    assert report.recycled in (1, 2)
    told = [line for line in events.lines if "teardown()" in line]
    assert len(told) == 1
    assert "was not back from teardown() after 0.5 s and was killed by SIGABRT in teardown(), after its last" in told[0]


def test_one_that_leaves_while_the_one_before_it_still_does_keeps_its_place_meanwhile(tmp_path, monkeypatch):
    """Else a teardown() that takes longer than batches do would have ever more processes."""
    monkeypatch.setattr(watchdog, "TEARDOWN_DEADLINE_S", 60.0)
    leaving = tmp_path / "leaving"
    leaving.mkdir()

    class Handler:
        def __call__(self, batch):
            return records(rows_of(batch))

        def teardown(self):
            mine = leaving / str(os.getpid())
            mine.touch()
            if len(list(leaving.iterdir())) > 2:
                (tmp_path / "too many").touch()
            time.sleep(0.05)
            mine.unlink()

    report, sink, _, _ = memory_run.run(
        tmp_path, Handler, numbers(10), batch_size=1, workers=1, max_batches_per_process=1, spares=0
    )
    assert sorted_ints(sink) == list(range(10))
    assert report.crashes == 0
    assert not (tmp_path / "too many").exists()


def test_processes_that_follow_one_another_at_every_batch_hold_no_lane_up(tmp_path):
    """Each of them was a spare: seats are left, filled and emptied faster than their processes notice."""

    def handler(batch):
        time.sleep(0.002)
        return [b"%d" % int(payload) for payload in batch["payload"].tolist()]

    report, sink, dead, _ = memory_run.run(
        tmp_path, handler, numbers(400), batch_size=2, workers=3, max_batches_per_process=1, setup_deadline=30
    )
    assert sorted_ints(sink) == list(range(400))
    assert dead.records == []
    assert report.crashes == 0  # none was ended by its setup_deadline
    assert report.recycled > 50


def test_a_process_that_leaks_descriptors_makes_room_before_it_has_none(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    leaked = []

    class Handler:
        def setup(self):
            resource.setrlimit(resource.RLIMIT_NOFILE, (200, limit[1]))

        def __call__(self, batch):
            leaked.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(5))
            return records(rows_of(batch))

    events = Events()
    report, sink, dead, _ = memory_run.run(
        tmp_path, Handler, numbers(600), batch_size=10, workers=1, observer=events, on_error="stop"
    )
    assert sorted_ints(sink) == list(range(600))
    assert dead.records == []
    assert report.crashes == 0
    assert report.recycled >= 1
    (told,) = [line for line in events.lines if "has reached its limits" in line]
    assert "descriptors open of the 200 that it may (ulimit -n)" in told


def lose_all_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_a_process_that_can_open_nothing_any_more_is_replaced_and_costs_no_other_row(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        if 25 in rows:
            lose_all_descriptors()
        with open(os.devnull) as _:
            return records(rows)

    events = Events()
    report, sink, dead, source = memory_run.run(
        tmp_path, handler, numbers(600), batch_size=10, workers=1, observer=events
    )
    assert sorted_ints(sink) == sorted(set(range(600)) - {25})
    assert dead.payloads == [b"25"]
    headers = {name: (value or b"").decode() for name, value in dead.records[0].headers}
    assert "could open no descriptor any more (EMFILE, exit code 4)" in headers["pf-reason"]
    assert "Too many open files" in headers["pf-traceback"]
    assert 3 <= report.crashes <= 4
    assert source.committed == {0: 600}


def test_a_process_whose_handler_lowers_its_limit_and_goes_on_makes_room(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        with open(os.devnull) as _:
            if 25 in rows:
                lose_all_descriptors()
            return records(rows)

    report, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(600), batch_size=10, workers=1)
    assert sorted_ints(sink) == list(range(600))
    assert dead.records == []
    assert (report.crashes, report.recycled) == (0, 1)


def test_a_batch_that_leaks_more_than_a_process_may_open_is_handled_in_parts(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    leaked = []

    class Handler:
        def setup(self):
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, limit[1]))

        def __call__(self, batch):
            rows = rows_of(batch)
            leaked.extend(os.open(os.devnull, os.O_RDONLY) for _ in rows)
            return records(rows)

    report, sink, dead, _ = memory_run.run(tmp_path, Handler, numbers(300), batch_size=300, batch_timeout=60, workers=1)
    assert sorted_ints(sink) == list(range(300))
    assert dead.records == []
    assert report.crashes >= 3


def test_an_exit_code_of_the_handlers_own_is_not_taken_for_one_of_ours(tmp_path):
    """5 was that of a process that made room, 4 that of one without memory."""

    def handler(batch):
        rows = rows_of(batch)
        for row, code in ((3, 4), (13, 5)):
            if row in rows:
                os._exit(code)
        return records(rows)

    events = Events()
    report, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(20), batch_size=10, observer=events)
    assert sorted_ints(sink) == sorted(set(range(20)) - {3, 13})
    reasons = {record.payload: dict(record.headers)["pf-reason"].decode() for record in dead.records}
    assert "exit code 4" in reasons[b"3"]
    assert "memory" not in reasons[b"3"]
    assert "exit code 5" in reasons[b"13"]
    assert report.recycled == 0


def test_a_successor_whose_setup_hangs_is_told_of_and_followed_by_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "SLOW_SETUP_S", 0.2)
    monkeypatch.setattr(watchdog, "GRACE_S", 0.1)

    class Handler:
        def setup(self):
            if (tmp_path / "died").exists() and not (tmp_path / "hung").exists():
                (tmp_path / "hung").touch()
                time.sleep(3600)

        def __call__(self, batch):
            rows = rows_of(batch)
            if 5 in rows and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return records(rows)

    events = Events()
    _, sink, dead, _ = memory_run.run(
        tmp_path, Handler, numbers(20), batch_size=10, workers=1, spares=0, setup_deadline=10.0, observer=events
    )
    assert sorted_ints(sink) == list(range(20))
    assert dead.records == []
    (slow,) = [line for line in events.lines if "has been starting (imports, setup()) for" in line]
    assert "handler: process 0 (pid " in slow
    assert "setup_deadline=10 ends it in" in slow
    assert sum("was still starting (imports, setup()) after setup_deadline=10 s" in line for line in events.lines) == 1


def test_setups_that_hang_one_after_the_other_pause_the_handler_however_long_each_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "GRACE_S", 0.1)
    budget = RestartBudget(deaths_in_vain=2, period_s=0.1)
    monkeypatch.setattr(RestartBudget, "of", lambda limit: budget)

    class Handler:
        def setup(self):
            if (tmp_path / "died").exists():
                time.sleep(3600)

        def __call__(self, batch):
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    limit = DeadLetterLimit(pause=0.01, max_pause=0.01, probes=1)
    expected = "got nowhere: 4 of its processes, one after the other, did not come up and no row was settled between"
    with pytest.raises(HandlerError, match=expected):
        memory_run.run(tmp_path, Handler, numbers(1), workers=1, spares=0, setup_deadline=2.0, dead_letter_limit=limit)


def test_a_setup_that_hangs_at_the_start_ends_the_run(tmp_path):
    class Handler:
        def setup(self):
            time.sleep(3600)

        def __call__(self, batch):
            return None

    expected = r"handler 'handler' was not up after setup_deadline=0.5 s: its imports and setup\(\) take longer"
    with pytest.raises(PoolError, match=expected):
        memory_run.run(tmp_path, Handler, numbers(1), setup_deadline=0.5)


def test_a_spare_whose_setup_hangs_delays_no_end(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CLOSE_TIMEOUT_S", 1000.0)

    class Handler:
        def setup(self):
            if (tmp_path / "first").exists():
                (tmp_path / "hangs").touch()
                time.sleep(3600)
            (tmp_path / "first").touch()

        def __call__(self, batch):
            deadline = time.monotonic() + 60
            while not (tmp_path / "hangs").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            return records(rows_of(batch))

    events = Events()
    _, sink, _, _ = memory_run.run(tmp_path, Handler, numbers(10), batch_size=10, workers=1, observer=events)
    assert sorted_ints(sink) == list(range(10))
    ended = "is ended: it was still starting (imports, setup()) when the run was over"
    (line,) = [line for line in events.lines if ended in line]
    assert line.startswith("handler: a spare process (pid ")
    assert not any("teardown()" in line for line in events.lines)


def test_a_spare_that_cannot_start_is_told_of_once_and_made_again_until_one_is_up(tmp_path):
    made = tmp_path / "made"
    made.mkdir()

    class Handler:
        def setup(self):
            (made / str(os.getpid())).touch()
            if 1 < len(list(made.iterdir())) < 5:
                raise OSError("no model yet")

        def __call__(self, batch):
            deadline = time.monotonic() + 60
            while not (tmp_path / "spare is up").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            return records(rows_of(batch))

    class UntilUp(Events):
        def event(self, text):
            super().event(text)
            if "a spare process is up again" in text:
                (tmp_path / "spare is up").touch()

    events = UntilUp()
    _, sink, _, _ = memory_run.run(tmp_path, Handler, numbers(30), batch_size=10, workers=1, observer=events)
    assert sorted_ints(sink) == list(range(30))
    told = [line for line in events.lines if "spare" in line]
    assert len(told) == 2
    assert "could not start; another one is made" in told[0]
    assert told[0].endswith("OSError: no model yet")
    assert "is up again" in told[1]
