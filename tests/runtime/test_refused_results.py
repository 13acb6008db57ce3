"""dead_letter_limit= where the handler's results are what a sink refuses for good, in whole runs."""

from __future__ import annotations

import pytest

from pythia_fast import App, DeadLetterLimit, MemoryConsumer, MemoryProducer
from pythia_fast.errors import HandlerError
from pythia_fast.runtime.flow import PROBE_ROWS
from tests.support.memory_run import echo, numbers

ROWS, BATCH_ROWS, PROBES = 20_000, 100, 3
#: Rows that a handler of two processes may have in hand: every slot of its arena.
IN_HAND = BATCH_ROWS * (2 * 4 + 4)
LIMIT = DeadLetterLimit(min_rows=200, pause=0.01, max_pause=0.01, probes=PROBES)


def declared(handler, refused, **options) -> tuple[App, MemoryConsumer, MemoryProducer]:
    """An app whose sink refuses what ``refused`` says, its source and its dead letters."""
    app, sink, dead = App("test"), MemoryProducer(), MemoryProducer()
    source = MemoryConsumer(numbers(ROWS))
    sink.refuse(lambda record: "too large for the broker" if refused(record.payload) else None)
    options = {"decoder": "raw", "batch_size": BATCH_ROWS, "dead_letter_limit": LIMIT, **options}
    app.batch_handler(source=source, sink=sink, dead_letter=dead, name="handler", **options)(handler)
    return app, source, dead


def one_for_all(batch):
    """One record for all rows of the batch."""
    return [b"%d" % len(batch)]


def larger_than_the_region(batch):
    """Results that leave the output region in several turns."""
    return [b"%0500d" % int(payload) for payload in batch["payload"].tolist()]


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (echo, {}),
        (one_for_all, {"output_rows": "any"}),
        (larger_than_the_region, {"max_batch_bytes": 4096}),
    ],
    ids=["a record a row", "a record a batch", "spilled"],
)
def test_results_that_the_sink_refuses_do_not_empty_the_source(tmp_path, handler, options):
    app, source, dead = declared(handler, lambda payload: True, **options)
    with pytest.raises(HandlerError, match=r"got nowhere: \d+ of \d+ rows that were tried were given up"):
        app.run(workers=2, until="end", state_dir=tmp_path)
    assert source.committed[0] <= 200 + IN_HAND + PROBES * PROBE_ROWS
    assert 0 < len(dead.records) <= source.committed[0]


def test_a_few_results_that_the_sink_refuses_do_not_pause_it(tmp_path):
    app, source, dead = declared(echo, lambda payload: int(payload) % 3 == 0)
    report = app.run(workers=2, until="end", state_dir=tmp_path)
    assert (report.ending, report.rows, report.pauses) == ("done", ROWS, 0)
    assert len(dead.records) == report.dead_lettered == -(-ROWS // 3)
    assert source.committed == {0: ROWS}


def test_rows_that_are_rejected_and_results_that_are_refused_count_together(tmp_path):
    """A third of the rows each: together they are more than half."""

    def handler(batch):
        batch.reject([int(payload) % 3 == 0 for payload in batch["payload"].tolist()], reason="a bad deploy")
        return echo(batch)

    limit = DeadLetterLimit(min_rows=200, count_rejected=True, pause=0.01, max_pause=0.01, probes=PROBES)
    app, source, _ = declared(handler, lambda payload: int(payload) % 3 == 1, dead_letter_limit=limit)
    with pytest.raises(HandlerError, match="got nowhere"):
        app.run(workers=2, until="end", state_dir=tmp_path)
    assert source.committed[0] < ROWS
