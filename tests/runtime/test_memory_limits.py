"""What a process that grows costs, and what is said of limits on its memory."""

from __future__ import annotations

import mmap
import os
import signal
import time

import pytest

from pythia_fast import RetryPolicy
from pythia_fast._ext.part_memory import PartMemory
from pythia_fast.errors import ConfigError, PoolError
from pythia_fast.pool import rows as rows_module
from pythia_fast.pool.limits import own_memory_mb
from tests.support import memory_run
from tests.support.memory_run import numbers, sorted_ints

LEAKED = 20 << 20  #: bytes of each call


def rows_of(batch) -> list[int]:
    return [int(payload) for payload in batch["payload"].tolist()]


def headers_of(record) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}


def test_a_process_that_leaks_makes_room_before_its_limit_hurts(tmp_path):
    leak = []
    limit = int(own_memory_mb()) + 100

    def handler(batch):
        # Pages of its own, and not what a test before this one has left in the heap that the process is forked with.
        leak.append(mmap.mmap(-1, LEAKED, flags=mmap.MAP_PRIVATE))
        leak[-1].write(b"x" * LEAKED)
        time.sleep(0.11)  # the limit is looked at every tenth of a second
        return [b"%d" % row for row in rows_of(batch)]

    report, sink, dead, _ = memory_run.run(
        tmp_path, handler, numbers(300), batch_size=20, batch_timeout=60, workers=1, max_memory_mb=limit
    )
    assert sorted_ints(sink) == list(range(300))
    assert dead.records == []
    assert report.recycled >= 1
    assert report.crashes == 0


def test_memory_that_a_process_takes_for_a_moment_is_in_the_report(tmp_path):
    """A process that grows and dies between two looks at the memory of all."""

    def handler(batch):
        rows = rows_of(batch)
        if 5 in rows and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            held = bytearray(b"x" * (300 << 20))
            os.kill(os.getpid(), signal.SIGKILL)
            del held
        return [b"%d" % row for row in rows]

    report, sink, _, _ = memory_run.run(tmp_path, handler, numbers(10), workers=1, max_batch_bytes=100_000)
    assert sorted_ints(sink) == list(range(10))
    assert report.peak_rss_mb > own_memory_mb() / 2 + 300


def test_a_process_that_has_no_memory_for_parts_of_a_batch_leaves_them_to_the_next_one(tmp_path, monkeypatch):
    class FullInTheFirstProcess:
        def __init__(self, *shape) -> None:
            self._memory = PartMemory(*shape)

        def decode(self, *arguments):
            first = tmp_path / "first"
            if not first.exists():
                first.write_text(str(os.getpid()))
            if first.read_text() == str(os.getpid()):
                raise MemoryError("no bytes for a batch")
            return self._memory.decode(*arguments)

    def handler(batch):
        rows = rows_of(batch)
        if 7 in rows:
            raise ValueError("seven")
        return [b"%d" % row for row in rows]

    monkeypatch.setattr(rows_module, "PartMemory", FullInTheFirstProcess)
    report, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(20), batch_size=20, batch_timeout=60, workers=1)
    assert dead.payloads == [b"7"]
    assert "ValueError: seven" in headers_of(dead.records[0])["pf-reason"]
    assert sorted_ints(sink) == sorted(set(range(20)) - {7})
    assert report.crashes == 1


def test_a_row_on_which_the_process_grows_without_end_is_given_up(tmp_path):
    limit = int(own_memory_mb()) + 50

    def handler(batch):
        rows = rows_of(batch)
        held = []
        while 9 in rows:
            held.append(bytearray(os.urandom(1 << 20)) * 10)
            time.sleep(0.01)
        return [b"%d" % row for row in rows]

    _, sink, dead, _ = memory_run.run(
        tmp_path, handler, numbers(20), batch_size=10, batch_timeout=60, max_memory_mb=limit
    )
    assert dead.payloads == [b"9"]
    assert "grew beyond 1.5 x max_memory_mb" in headers_of(dead.records[0])["pf-reason"]
    assert sorted_ints(sink) == sorted(set(range(20)) - {9})


def test_a_memory_limit_below_what_setup_takes_ends_the_run(tmp_path):
    class Handler:
        def setup(self) -> None:
            self.model = b"x" * 200_000_000

        def __call__(self, batch):
            return None

    with pytest.raises(
        ConfigError,
        match=r"^handler 'handler': max_memory_mb=100 is less than what a process of this handler has after",
    ):
        memory_run.run(tmp_path, Handler, numbers(10), max_memory_mb=100)


def test_an_option_that_setup_itself_gets_wrong_is_told_with_its_place(tmp_path):
    class Handler:
        def setup(self) -> None:
            RetryPolicy(max_attempts=-1)

        def __call__(self, batch):
            return None

    with pytest.raises(PoolError, match=r"(?s)could not start:\nTraceback.*in setup\n.*ConfigError: .*max_attempts"):
        memory_run.run(tmp_path, Handler, numbers(10))
