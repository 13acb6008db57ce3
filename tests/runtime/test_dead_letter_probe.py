"""dead_letter_limit= where rows of the batch that is tried wait for another attempt, in whole runs."""

from __future__ import annotations

import msgspec
import pytest

from pythia_fast import App, Batch, DeadLetterLimit, MemoryConsumer, MemoryProducer, RetryPolicy
from pythia_fast.errors import HandlerError
from pythia_fast.runtime.flow import PROBE_ROWS
from tests.support.memory_run import Events

PROBES = 3
BATCH_ROWS = 64
#: Batches that a handler of one process may have in hand: every slot of its arena.
SLOTS = 4 + 4 + 32
#: Rows that may wait in each of them.
WAITING_ROWS = 256


class Row(msgspec.Struct):
    id: int


def declared(rows: int, handler, **options) -> tuple[App, MemoryProducer, MemoryProducer]:
    """An app of one handler of so many rows, where it sends its results, and its dead letters."""
    app, sink, dead = App("test"), MemoryProducer(), MemoryProducer()
    source = MemoryConsumer([b'{"id":%d}' % i for i in range(rows)])
    app.batch_handler(
        source=source, sink=sink, dead_letter=dead, schema=Row, batch_size=BATCH_ROWS, name="handler", **options
    )(handler)
    return app, sink, dead


def test_rows_that_ask_for_another_attempt_in_vain_do_not_empty_the_source(tmp_path):
    """The few rows that are done at once are not the verdict."""

    def handler(batch: Batch[Row]):
        batch.retry(batch["id"] % 20 != 0)
        return {"id": batch["id"]}

    events = Events()
    app, _, dead = declared(
        20_000,
        handler,
        retry=RetryPolicy(max_attempts=2, backoff=0.02),
        dead_letter_limit=DeadLetterLimit(min_rows=200, pause=0.01, max_pause=0.01, probes=PROBES),
    )
    with pytest.raises(HandlerError, match=r"got nowhere: 6[01] of 64 rows that were tried were given up"):
        app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert "handler: reading goes on" not in events.lines
    assert 100 < len(dead.payloads) <= 200 + WAITING_ROWS * SLOTS + PROBES * PROBE_ROWS


@pytest.mark.parametrize(("ordering", "attempts"), [("partition", 3), ("unordered", 30)])
def test_a_probe_whose_rows_all_wait_while_others_do_ends(tmp_path, ordering, attempts):
    """It was merged with those others, and known no more: nothing was read from then on."""
    rows = WAITING_ROWS * SLOTS + 1000

    def handler(batch: Batch[Row]):
        ids = batch["id"]
        bad = ids < 1000
        batch.reject(bad & (ids % 10 < 7), reason="a bad deploy")
        last_of_its_batch = ids % BATCH_ROWS == BATCH_ROWS - 1
        batch.retry((last_of_its_batch & (batch.attempts < attempts - 1)) | (~bad & (batch.attempts < 1)))
        return {"id": ids}

    events = Events()
    app, sink, dead = declared(
        rows,
        handler,
        ordering=ordering,
        retry=RetryPolicy(max_attempts=100, backoff=0.01, max_backoff=0.01),
        dead_letter_limit=DeadLetterLimit(min_rows=500, count_rejected=True, pause=0.05),
    )
    report = app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert "handler: reading goes on" in events.lines
    assert (report.ending, report.rows, len(dead.payloads), len(sink.payloads)) == ("done", rows, 700, rows - 700)
