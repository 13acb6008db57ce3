"""Rows that wait to be handled again wait together, and keep neither room nor positions for the rows beside them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import defaultdict

import numpy as np
import pytest

from pythia_fast import App, MemoryConsumer, RetryPolicy
from pythia_fast.brokers.memory import MemoryMessage, MemoryProducer
from tests.support import memory_run
from tests.support.memory_run import sorted_ints

ROWS = 4000
KEYS = 50


def keyed(rows: int, *, by_partition: bool) -> list[MemoryMessage]:
    """Rows of KEYS keys; by_partition: each is of the partition that has the key's number."""
    return [
        MemoryMessage(
            b"%d" % row, key=b"k%d" % (row % KEYS), headers=[("row", b"%d" % row)], partition=row % KEYS * by_partition
        )
        for row in range(rows)
    ]


@pytest.mark.parametrize("ordering", ["unordered", "key", "partition"])
def test_rows_that_wait_for_long_hold_back_no_row_of_another_lane(tmp_path, ordering):
    """One row of each batch waits for an hour. There are more batches than slots, and all other rows are handled."""
    app, sink, dead = App("test"), MemoryProducer(), MemoryProducer()
    by_partition = ordering == "partition"
    source = MemoryConsumer(
        keyed(ROWS, by_partition=by_partition), partitions=KEYS if by_partition else 1, keep_open=True
    )

    @app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        batch_size=5,
        ordering=ordering,
        retry=RetryPolicy(max_attempts=5, backoff=3600, max_backoff=3600, jitter=0.0),
    )
    def handler(batch):
        rows = [int(payload) for payload in batch["payload"].tolist()]
        batch.retry([row % KEYS == 7 for row in rows])
        return [b"%d" % row for row in rows]

    others = [row for row in range(ROWS) if row % KEYS != 7]
    seen: list[int] = []

    def stop() -> None:
        deadline = time.monotonic() + 60
        while len(seen) < len(others) and time.monotonic() < deadline:
            time.sleep(0.02)
            seen[:] = sorted_ints(sink)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    report = app.run(workers=2, until="forever", state_dir=tmp_path / "state", drain_timeout=0.5)
    thread.join()
    assert seen == others
    assert dead.records == []
    assert (report.rows, report.unfinished) == (len(others), ROWS - len(others))
    if by_partition:
        assert source.committed == {partition: ROWS // KEYS * (partition != 7) for partition in range(KEYS)}
    else:
        assert source.committed == {0: 7}


@pytest.mark.parametrize("ordering", ["unordered", "key"])
def test_rows_that_wait_fill_slots_however_small_batches_are(tmp_path, ordering):
    """Three hundred rows, each of its own key and batch, wait for an hour; all that come behind are handled."""
    app, sink, dead = App("test"), MemoryProducer(), MemoryProducer()
    source = MemoryConsumer([MemoryMessage(b"%d" % row, key=b"k%d" % row) for row in range(400)], keep_open=True)
    policy = RetryPolicy(max_attempts=5, backoff=3600, max_backoff=3600, jitter=0.0)

    @app.batch_handler(
        source=source, sink=sink, dead_letter=dead, decoder="raw", batch_size=1, ordering=ordering, retry=policy
    )
    def handler(batch):
        assert len(batch) == 1
        batch.retry([int(payload) < 300 for payload in batch["payload"].tolist()])
        return batch["payload"].tolist()

    seen: list[int] = []

    def stop() -> None:
        deadline = time.monotonic() + 60
        while len(seen) < 100 and time.monotonic() < deadline:
            time.sleep(0.02)
            seen[:] = sorted_ints(sink)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    report = app.run(workers=2, until="forever", state_dir=tmp_path / "state")
    thread.join()
    assert seen == list(range(300, 400))
    assert (dead.records, report.unfinished, source.committed) == ([], 300, {0: 0})


@pytest.mark.parametrize("kills", [0, 6], ids=["nobody dies", "processes die"])
@pytest.mark.parametrize("ordering", ["unordered", "key", "partition"])
def test_rows_of_many_batches_that_wait_are_handled_once_more_each_and_in_the_order_of_their_lane(
    tmp_path, ordering, kills
):
    """Rows are told apart by payload, key and headers, all of which move from slot to slot with them."""
    by_partition = ordering == "partition"
    rows = 3000
    mark = tmp_path / "deaths"
    mark.mkdir()
    wanted = {row: random.Random(row).choice([0, 0, 0, 0, 0, 0, 0, 1, 2, 3]) for row in range(rows)}

    def die_at(row: int) -> None:
        """Once for each of some rows."""
        if kills and row % (rows // kills) == 11:
            try:
                (mark / str(row)).touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    def handler(batch):
        numbers = [int(payload) for payload in batch["payload"].tolist()]
        for row, key, headers in zip(numbers, batch.keys, batch.headers, strict=True):
            assert (key, dict(headers)) == (b"k%d" % (row % KEYS), {"row": b"%d" % row})
            die_at(row)
        batch.retry(batch.attempts < np.array([wanted[row] for row in numbers]))
        return [b"%d" % row for row in numbers]

    report, sink, dead, source = memory_run.run(
        tmp_path / "state",
        handler,
        keyed(rows, by_partition=by_partition),
        partitions=KEYS if by_partition else 1,
        batch_size=10,
        max_batch_bytes=4096,
        ordering=ordering,
        retry=RetryPolicy(max_attempts=10, backoff=0.05, max_backoff=0.2, jitter=0.5),
    )
    assert dead.records == []
    assert sorted_ints(sink) == list(range(rows))
    assert report.crashes == kills
    assert report.rows == rows
    assert source.committed == (dict.fromkeys(range(KEYS), rows // KEYS) if by_partition else {0: rows})
    if ordering != "unordered":
        lanes = defaultdict(list)
        for row in map(int, sink.payloads):
            lanes[row % KEYS].append(row)
        assert {lane: sorted(found) for lane, found in lanes.items()} == lanes
