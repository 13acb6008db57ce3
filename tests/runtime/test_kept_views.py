"""Handlers that keep views beyond their call: no batch to come is affected."""

from __future__ import annotations

import contextlib
import resource
import threading
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from pythia_fast import HandlerError
from tests.support.memory_run import Events, numbers, run, sorted_ints

ROWS = 2000


@pytest.mark.parametrize("mark", ["reject", "retry"])
@pytest.mark.parametrize("batch_size", [1, 40])
def test_marks_of_a_batch_whose_view_is_kept_mark_no_rows_of_the_next_ones(tmp_path, mark, batch_size):
    """The slots are used again and again, at another address each time a view of theirs is kept."""

    class Keeps:
        def __call__(self, batch):
            self.last = batch["payload"]
            rows = [int(payload) for payload in batch["payload"].tolist()]
            marked = [row % 50 == 7 and batch.attempts[at] == 0 for at, row in enumerate(rows)]
            if any(marked):
                batch.reject(marked, reason="it is one") if mark == "reject" else batch.retry(marked)
            return [b"%d" % row for row in rows]

    report, sink, dead, source = run(tmp_path, Keeps, numbers(ROWS), batch_size=batch_size)
    rejected = [row for row in range(ROWS) if row % 50 == 7 and mark == "reject"]
    assert sorted_ints(dead) == rejected
    assert sorted_ints(sink) == sorted(set(range(ROWS)) - set(rejected))
    assert report.retried == (ROWS // 50 if mark == "retry" else 0)
    assert source.committed == {0: ROWS}


class Row(msgspec.Struct):
    i: int


def test_an_arrow_stream_that_is_read_in_a_later_call_gives_its_own_rows(tmp_path):
    class Keeps:
        """Gives back, for each batch, what a stream over an earlier one says."""

        def __init__(self):
            self.streams = []

        def __call__(self, batch):
            self.streams.append(pa.RecordBatchReader.from_stream(batch))
            if len(self.streams) < 30:
                return None
            return [b"%d" % i for i in self.streams.pop(0).read_all()["i"].to_pylist()]

    events = Events()
    messages = [b'{"i":%d}' % i for i in range(ROWS)]
    options = {"workers": 1, "decoder": "json", "schema": Row, "batch_size": 20, "output_rows": "any"}
    report, sink, _, _ = run(tmp_path, Keeps, messages, observer=events, **options)
    assert report.rows == ROWS
    assert sorted_ints(sink) == list(range(ROWS - 29 * 20))
    assert any("'i'" in line or " i " in line for line in events.lines), events.lines


def test_a_thread_that_reads_on_when_its_call_is_over_gets_an_error_and_no_other_batch(tmp_path):
    class LeavesAThread:
        """Its thread has looked up what it reads before the call ends, and reads it after that."""

        def __init__(self):
            self.left = []

        def __call__(self, batch):
            wrong = [read() for read in self.left]
            self.left = [lambda memory=batch._memory: late_read(memory)]
            return [b"read" if any(wrong) else b"refused"] * len(batch)

    def late_read(memory):
        seen = []

        def read():
            with contextlib.suppress(HandlerError):
                seen.append(np.frombuffer(memory.values(0, 1), np.int64)[0])

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        return seen

    messages = [b'{"i":%d}' % i for i in range(100)]
    _, sink, _, _ = run(tmp_path, LeavesAThread, messages, workers=1, decoder="json", schema=Row, batch_size=10)
    assert set(sink.payloads) == {b"refused"}


def test_views_that_take_up_the_address_space_cost_their_process_and_no_row(tmp_path, capfd):
    class Keeps:
        def setup(self):
            self.kept = []
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 60 * 2**20,) * 2)

        def __call__(self, batch):
            self.kept.append(batch["i"])
            return {"i": batch["i"]}

    class Text(Row):
        text: str

    events = Events()
    messages = [b'{"i":%d,"text":"%s"}' % (i, b"x" * 200) for i in range(20_000)]
    options = {"workers": 1, "decoder": "json", "schema": Text, "batch_size": 200, "max_batch_bytes": 1 << 20}
    report, sink, dead, _ = run(tmp_path, Keeps, messages, observer=events, **options)
    assert sorted(msgspec.json.decode(payload)["i"] for payload in sink.payloads) == list(range(20_000))
    assert dead.records == []
    assert report.crashes > 0
    assert any("ran out of memory" in line for line in events.lines), events.lines
    err = capfd.readouterr().err
    assert "MemoryError: no room for one more copy of a batch whose views the handler keeps ('i')" in err
