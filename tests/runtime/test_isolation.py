"""What a process that dies, hangs or grows costs: its own rows, for some milliseconds."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest

from pythia_fast import RetryPolicy
from tests.support import memory_run
from tests.support.memory_run import Events, numbers, sorted_ints


def rows_of(batch) -> list[int]:
    return [int(payload) for payload in batch["payload"].tolist()]


class Watcher(Events):
    """Remembers the processes of the pool while it runs; writes down how often it saw a spare that waits."""

    sample_interval_s = 0.02

    def __init__(self, spares_seen: Path | None = None) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._spares_seen = spares_seen

    def sample(self, snapshot):
        super().sample(snapshot)
        names = {process.name for process in snapshot.processes}
        self.names |= names
        if self._spares_seen is not None and any(name.startswith("spare") for name in names):
            with self._spares_seen.open("a") as seen:
                seen.write("spare\n")


class Numbered(msgspec.Struct):
    number: int


def headers_of(record) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}


def test_a_spare_is_kept_and_takes_the_place_of_one_that_dies(tmp_path):
    pids, spares_seen = tmp_path / "pids", tmp_path / "spares seen"
    pids.mkdir()
    spares_seen.touch()

    class Handler:
        def setup(self) -> None:
            (pids / str(os.getpid())).touch()

        def __call__(self, batch):
            rows = rows_of(batch)
            if rows[0] == 0:
                while len(list(pids.iterdir())) < 2:
                    time.sleep(0.01)
                # Its setup() has begun: a few looks later it waits for a place.
                looks = spares_seen.stat().st_size + 10 * len("spare\n")
                while spares_seen.stat().st_size < looks:
                    time.sleep(0.01)
            if 5 in rows and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            (tmp_path / "last").write_text(str(os.getpid()))
            return [b"%d" % row for row in rows]

    events = Watcher(spares_seen)
    report, sink, dead, _ = memory_run.run(
        tmp_path, Handler, numbers(20), batch_size=10, batch_timeout=60, workers=1, observer=events
    )
    assert sorted_ints(sink) == list(range(20))
    assert dead.records == []
    assert report.crashes == 1
    assert any(name.startswith("spare") for name in events.names)
    first, second = sorted(int(path.name) for path in pids.iterdir())[:2]
    assert (tmp_path / "last").read_text() == str(second) != str(first)


def test_without_spares_a_successor_is_made(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        if 5 in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return [b"%d" % row for row in rows]

    events = Watcher()
    _, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(200), batch_size=10, spares=0, observer=events)
    assert sorted_ints(sink) == sorted(set(range(200)) - {5})
    assert dead.payloads == [b"5"]
    assert not any("spare" in name for name in events.names)


def test_a_spare_that_cannot_start_is_told_and_the_run_goes_on(tmp_path):
    made = tmp_path / "made"
    made.mkdir()

    class Handler:
        def setup(self) -> None:
            (made / str(os.getpid())).touch()
            if len(list(made.iterdir())) > 1:
                raise OSError("no model any more")

        def __call__(self, batch):
            while len(list(made.iterdir())) < 2:
                time.sleep(0.01)
            return [b"%d" % row for row in rows_of(batch)]

    events = Events()
    _, sink, _, _ = memory_run.run(tmp_path, Handler, numbers(30), batch_size=10, workers=1, observer=events)
    assert sorted_ints(sink) == list(range(30))


def test_a_successor_whose_setup_raises_is_followed_by_others_until_one_is_up(tmp_path):
    class Handler:
        def setup(self) -> None:
            if (tmp_path / "died").exists() and len(list(tmp_path.glob("vain-*"))) < 3:
                (tmp_path / f"vain-{os.getpid()}").touch()
                raise ConnectionError("no database")

        def __call__(self, batch):
            rows = rows_of(batch)
            if 5 in rows and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return [b"%d" % row for row in rows]

    events = Events()
    report, sink, dead, _ = memory_run.run(
        tmp_path, Handler, numbers(20), batch_size=10, workers=1, spares=0, observer=events
    )
    assert sorted_ints(sink) == list(range(20))
    assert dead.records == []
    assert report.crashes == 4
    first, second, third = [text.partition(") ")[2] for text in events.lines if " could not start" in text]
    assert first.startswith("could not start; another one is made:\n")
    assert "in setup\n" in first
    assert first.endswith("ConnectionError: no database")
    assert second == "could not start, 2 by now at the same place; another one is made: ConnectionError: no database"
    assert third == "could not start, 3 by now at the same place; another one is made: ConnectionError: no database"


def test_a_row_on_which_the_handler_hangs_is_given_up_with_its_stacks(tmp_path):
    def get_stuck() -> None:
        time.sleep(3600)

    def handler(batch):
        rows = rows_of(batch)
        if 13 in rows:
            get_stuck()
        return [b"%d" % row for row in rows]

    started = time.monotonic()
    report, sink, dead, source = memory_run.run(
        tmp_path, handler, numbers(64), batch_size=16, batch_deadline=0.3, ordering="partition"
    )
    assert sorted_ints(sink) == sorted(set(range(64)) - {13})
    assert dead.payloads == [b"13"]
    headers = headers_of(dead.records[0])
    assert "took longer than batch_deadline=0.3 s and was killed by SIGABRT" in headers["pf-reason"]
    assert "get_stuck" in headers["pf-traceback"]
    assert (report.crashes, source.committed) == (3, {0: 64})
    assert time.monotonic() - started < 60


def test_one_that_ignores_sigabrt_is_killed(tmp_path):
    def handler(batch):
        rows = rows_of(batch)
        if 3 in rows:
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
            while True:
                time.sleep(1)
        return [b"%d" % row for row in rows]

    _, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(4), batch_size=1, batch_deadline=0.1)
    assert dead.payloads == [b"3"]
    assert "SIGKILL" in headers_of(dead.records[0])["pf-reason"]
    assert sorted_ints(sink) == [0, 1, 2]


def test_a_native_crash_leaves_its_stack_in_the_dead_letter(tmp_path, capfd):
    def read_nowhere() -> None:
        ctypes.string_at(0)

    def handler(batch):
        rows = rows_of(batch)
        if 7 in rows:
            read_nowhere()
        return [b"%d" % row for row in rows]

    _, _, dead, _ = memory_run.run(tmp_path, handler, numbers(10), batch_size=10, batch_timeout=60)
    headers = headers_of(dead.records[0])
    assert "SIGSEGV" in headers["pf-reason"]
    assert "Segmentation fault" in headers["pf-traceback"]
    assert "read_nowhere" in headers["pf-traceback"]
    told = capfd.readouterr().err
    assert told.count("Fatal Python error: Segmentation fault") == 1  # of four deaths at one place
    assert "read_nowhere" in told
    assert "pool/records.py" not in told + headers["pf-traceback"]


def test_a_stack_is_not_written_into_a_file_that_the_handler_opened_after_it_had_closed_ours(tmp_path):
    def handler(batch):
        if 3 in rows_of(batch):
            os.closerange(3, 100)
            for number in range(8):
                os.open(tmp_path / f"own-{number}", os.O_WRONLY | os.O_CREAT)
            ctypes.string_at(0)
        return [b"%d" % row for row in rows_of(batch)]

    _, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(6), batch_size=6, workers=1)
    assert sorted_ints(dead) == [3]
    assert sorted_ints(sink) == [0, 1, 2, 4, 5]
    assert "Segmentation fault" in headers_of(dead.records[0])["pf-traceback"]
    assert [(tmp_path / f"own-{number}").read_bytes() for number in range(8)] == [b""] * 8


def test_a_process_makes_room_after_so_many_batches(tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()

    def handler(batch):
        (pids / str(os.getpid())).touch()
        return [b"%d" % row for row in rows_of(batch)]

    events = Events()
    report, sink, dead, source = memory_run.run(
        tmp_path, handler, numbers(200), batch_size=10, workers=1, max_batches_per_process=4, observer=events
    )
    assert sorted_ints(sink) == list(range(200))
    assert dead.records == []
    assert (report.crashes, source.committed) == (0, {0: 200})
    assert report.recycled in (4, 5)  # the last one may leave when the run has ended
    assert len(list(pids.iterdir())) == 5
    assert sum("has reached its limits" in line for line in events.lines) == 1


def test_processes_that_poll_are_replaced_and_end_as_others(tmp_path):
    def handler(batch):
        if batch.positions["offset"][0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return [b"%d" % row for row in rows_of(batch)]

    report, sink, dead, source = memory_run.run(
        tmp_path, handler, numbers(200), batch_size=1, workers=2, busy_poll=1.0, spares=1
    )
    assert sorted_ints(sink) == list(range(1, 200))
    assert len(dead.records) == 1
    assert (report.dead_lettered, source.committed) == (1, {0: 200})


@pytest.mark.parametrize("always", [False, True], ids=["large batches only", "one row"])
def test_a_memory_error_ends_the_process_and_the_batch_is_handled_in_parts(tmp_path, always):
    def handler(batch):
        rows = rows_of(batch)
        if len(rows) > 8 or (always and 11 in rows):
            raise MemoryError("no room for a matrix")
        return [b"%d" % row for row in rows]

    report, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(32), batch_size=32, batch_timeout=60, workers=1)
    guilty = {11} if always else set()
    assert sorted_ints(sink) == sorted(set(range(32)) - guilty)
    assert [int(payload) for payload in dead.payloads] == sorted(guilty)
    if always:
        headers = headers_of(dead.records[0])
        assert "ran out of memory (MemoryError" in headers["pf-reason"]
        assert "no room for a matrix" in headers["pf-traceback"]
    else:
        assert report.crashes == 1


def test_deaths_between_records_that_fill_the_output_region_lose_no_row(tmp_path):
    """A batch whose results are many times its output region is sent on in pieces, with deaths in between."""
    killers = {97, 330, 531, 777}
    raising = {row - 3 for row in killers}

    def handler(batch):
        rows = rows_of(batch)
        if killers & set(rows):
            os.kill(os.getpid(), signal.SIGKILL)
        if raising & set(rows):
            raise ValueError("one of these")
        return [b"%d " % row * 60 for row in rows]

    _, sink, dead, source = memory_run.run(
        tmp_path, handler, numbers(1000), batch_size=1000, batch_timeout=60, max_batch_bytes=30_000, workers=1
    )
    sent = {int(payload.split()[0]) for payload in sink.payloads}
    assert sent == set(range(1000)) - killers - raising
    assert sorted(map(int, dead.payloads)) == sorted(killers | raising)
    assert source.committed == {0: 1000}


def test_a_death_at_a_second_call_after_records_were_sent_on_loses_no_row(tmp_path):
    died = tmp_path / "died"

    def handler(batch):
        rows = rows_of(batch)
        first = batch.attempts[0] == 0
        batch.retry([first and row % 100 == 7 for row in rows])
        if not first and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [b"%d " % row * 60 for row in rows]

    _, sink, dead, source = memory_run.run(
        tmp_path,
        handler,
        numbers(1000),
        batch_size=1000,
        batch_timeout=60,
        max_batch_bytes=30_000,
        workers=1,
        retry=RetryPolicy(max_attempts=20),
    )
    assert {int(payload.split()[0]) for payload in sink.payloads} == set(range(1000))
    assert dead.payloads == []
    assert source.committed == {0: 1000}


def test_what_a_process_wrote_over_before_it_died_is_said_of_the_rows_that_are_refused(tmp_path):
    """Into the memory of its own batch, from a column on, as a C extension with a wrong length does."""

    def handler(batch):
        if 55 in batch["number"] and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            ctypes.memset(batch["number"].ctypes.data, 0xFF, 4000)
            os.abort()
        return [b"%d" % number for number in batch["number"].tolist()]

    payloads = [b'{"number":%d}' % number for number in range(100)]
    report, sink, dead, _ = memory_run.run(
        tmp_path, handler, payloads, schema=Numbered, decoder="json", batch_size=10, workers=1
    )
    assert report.crashes >= 1
    done = sorted_ints(sink)
    assert set(done) >= set(range(100)) - set(range(50, 60))
    assert len(done) + len(dead.records) == 100
    reasons = [headers_of(record)["pf-reason"] for record in dead.records]
    assert reasons, "nothing was written over"
    assert all(
        "a process that had this batch died before, and may have written over it" in reason for reason in reasons
    )
