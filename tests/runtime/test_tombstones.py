"""Null payloads in whole runs: skipped, or rows that are handled, retried, rejected and given up as any other."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pythia_fast import App, Batch, DeadLetterLimit, JsonSchema, MemoryConsumer, Protobuf, RetryPolicy
from pythia_fast._ext.intake import SPOOLED_HEAD
from pythia_fast.brokers.memory import MemoryMessage, MemoryProducer
from pythia_fast.cli.progress import _losses
from pythia_fast.cli.summary import summary_tables
from pythia_fast.errors import HandlerError
from pythia_fast.results.forwarding import WITH_TIME, HandOn
from tests.runtime.test_registry_formats import OrderPb, jsons, protobufs, registry
from tests.support import memory_run
from tests.support.memory_run import Events

__all__ = ["registry"]  # the fixture


class Row(msgspec.Struct):
    n: int = -1
    name: str | None = None


def messages(count: int, every: int, partitions: int = 1) -> list[MemoryMessage]:
    """Message n has the key n and, unless it is the ``every``-th, n as its payload."""
    return [
        MemoryMessage(
            None if n % every == 0 else b'{"n":%d}' % n, key=b"%d" % n, partition=n % partitions, timestamp_ms=n
        )
        for n in range(count)
    ]


def keys_of(batch: Batch[Row]) -> dict[str, Any]:
    """What a handler saw, a record a row."""
    return {"n": batch["n"], "key": [key.decode() for key in batch.keys], "deleted": batch.tombstones}


def seen(sink: MemoryProducer) -> list[tuple[int, int, bool]]:
    """(key, n, whether it was a tombstone), in the order of keys."""
    rows = [msgspec.json.decode(payload) for payload in sink.payloads]
    return sorted((int(row["key"]), row["n"], row["deleted"]) for row in rows)


def run(tmp_path: Path, handler: Any, sent: list[Any], **options: Any) -> Any:
    options = {"decoder": "json", "schema": Row, "batch_size": 64} | options
    return memory_run.run(tmp_path, handler, sent, **options)


# -- skip


@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
def test_those_that_are_skipped_are_counted_and_passed_by_the_position(tmp_path, ordering):
    sent = messages(1000, 3, partitions=2)
    report, sink, dead, source = run(tmp_path, keys_of, sent, partitions=2, ordering=ordering, tombstones="skip")
    assert seen(sink) == [(n, n, False) for n in range(1000) if n % 3]
    assert dead.records == []
    assert (report.rows, report.tombstones_skipped, report.refused, report.dead_lettered) == (1000, 334, 0, 0)
    assert report.handlers[0].tombstones_skipped == 334
    assert report.unfinished == 0
    assert source.committed == {0: 500, 1: 500}


def test_ten_thousand_of_them_pause_nothing(tmp_path):
    events = Events()
    report, sink, dead, source = run(
        tmp_path, keys_of, [None] * 10_000, tombstones="skip", observer=events, dead_letter_limit=0.0
    )
    assert (report.rows, report.tombstones_skipped, report.pauses, report.ending) == (10_000, 10_000, 0, "done")
    assert (sink.records, dead.records) == ([], [])
    assert source.committed == {0: 10_000}
    assert not [line for line in events.lines if "paused" in line]


def test_unless_they_are_skipped_they_pause_the_run(tmp_path):
    limit = DeadLetterLimit(pause=0.01, max_pause=0.01, probes=2)
    app, source = App("test"), MemoryConsumer([None] * 10_000)
    options = {"schema": Row, "batch_size": 64, "dead_letter_limit": limit}
    app.batch_handler(source=source, name="h", **options)(lambda batch: None)
    with pytest.raises(HandlerError, match="the last one: the payload is null"):
        app.run(workers=1, until="end", state_dir=tmp_path)


def test_a_pause_does_not_end_by_those_that_are_skipped(tmp_path):
    """Many rows are bad, more than are in hand at once; then probes of 64 rows are skipped, or bad again."""
    limit = DeadLetterLimit(min_rows=1000, pause=0.01, max_pause=0.01, probes=3)
    sent = [b"bad"] * 3000 + ([None] * 128 + [b"bad"] * 64) * 20
    app, source, events = App("test"), MemoryConsumer(sent), Events()
    options = {
        "schema": Row,
        "batch_size": 64,
        "dead_letter_limit": limit,
        "tombstones": "skip",
    }
    app.batch_handler(source=source, name="h", **options)(lambda batch: None)
    with pytest.raises(HandlerError, match="3 batches were tried"):
        app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert source.committed[0] < len(sent)
    assert not [line for line in events.lines if "reading goes on" in line]


def test_bad_messages_among_them_are_dead_letters(tmp_path):
    sent = [b"bad" if n % 5 == 0 else None if n % 3 == 0 else b'{"n":%d}' % n for n in range(300)]
    report, _, dead, source = run(tmp_path, keys_of_any, sent, tombstones="skip")
    assert (report.refused, report.dead_lettered, report.tombstones_skipped) == (60, 60, 80)
    assert {record.payload for record in dead.records} == {b"bad"}
    assert source.committed == {0: 300}


def keys_of_any(batch: Batch[Row]) -> None:
    assert not batch.tombstones.any()
    assert (batch["n"] >= 0).all()


def test_one_whose_key_is_too_large_for_a_batch_is_skipped_too(tmp_path):
    sent = [MemoryMessage(None, key=b"k" * 2000), MemoryMessage(b"xyz", key=b"k" * 2000), None, b"{}"]
    report, _, dead, _ = run(tmp_path, lambda batch: None, sent, tombstones="skip", max_batch_bytes=1000)
    assert report.tombstones_skipped == 2
    assert [record.payload for record in dead.records] == [b"xyz"]
    assert list(tmp_path.glob("spool/**/oversize*")) == []
    assert SPOOLED_HEAD > 2000  # else the letter would hold a part only


def test_rows_beside_them_wait_for_their_retry(tmp_path):
    def handler(batch: Batch[Row]) -> dict[str, Any]:
        batch.retry((batch["n"] % 10 == 1) & (batch.attempts == 0))
        return keys_of(batch)

    policy = RetryPolicy(max_attempts=3, backoff=0.05, jitter=0.0)
    report, sink, dead, source = run(tmp_path, handler, messages(500, 3), tombstones="skip", retry=policy)
    assert seen(sink) == [(n, n, False) for n in range(500) if n % 3]
    assert (report.rows, report.tombstones_skipped, report.retried) == (500, 167, 34)
    assert (dead.records, source.committed) == ([], {0: 500})


def test_a_death_beside_them_costs_its_row_alone(tmp_path):
    def handler(batch: Batch[Row]) -> dict[str, Any]:
        if 100 in batch["n"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return keys_of(batch)

    report, sink, dead, _ = run(tmp_path, handler, messages(300, 3), tombstones="skip")
    assert seen(sink) == [(n, n, False) for n in range(300) if n % 3 and n != 100]
    assert [record.key for record in dead.records] == [b"100"]
    assert (report.rows, report.tombstones_skipped, report.dead_lettered) == (300, 100, 1)


def test_the_figures_tell_of_them(tmp_path):
    events = Events()
    report, *_ = run(tmp_path, keys_of, messages(30, 3), tombstones="skip", observer=events)
    cells = dict(zip(*(column._cells for column in summary_tables(report)[0].columns), strict=True))
    assert cells["tombstones skipped"] == "10"
    assert "refused by the decoder" in cells
    shown = msgspec.structs.replace(events.snapshots[-1], tombstones_skipped=10)
    assert _losses(shown).startswith("tombstones skipped 10")


# -- rows


@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
def test_as_rows_they_are_handled_with_their_keys(tmp_path, ordering):
    report, sink, dead, source = run(tmp_path, keys_of, messages(1000, 3), ordering=ordering, tombstones="rows")
    assert seen(sink) == [(n, -1 if n % 3 == 0 else n, n % 3 == 0) for n in range(1000)]
    assert (report.rows, report.tombstones_skipped, report.refused) == (1000, 0, 0)
    assert (dead.records, source.committed) == ([], {0: 1000})


def test_those_that_are_rejected_are_letters_with_a_null_payload(tmp_path):
    def handler(batch: Batch[Row]) -> None:
        batch.reject(batch.tombstones, reason="deleted")

    _, _, dead, _ = run(tmp_path, handler, messages(90, 3), tombstones="rows")
    assert sorted(int(record.key) for record in dead.records) == list(range(0, 90, 3))
    assert {record.payload for record in dead.records} == {None}
    assert {dict(record.headers)["pf-reason"] for record in dead.records} == {b"deleted"}


def test_those_that_raise_or_kill_are_found(tmp_path):
    def handler(batch: Batch[Row]) -> dict[str, Any]:
        keys = list(batch.keys)
        if b"30" in keys:
            raise ValueError("thirty")
        if b"60" in keys:
            os.kill(os.getpid(), signal.SIGKILL)
        return keys_of(batch)

    report, sink, dead, source = run(tmp_path, handler, messages(90, 3), tombstones="rows")
    assert seen(sink) == [(n, -1 if n % 3 == 0 else n, n % 3 == 0) for n in range(90) if n not in (30, 60)]
    assert sorted((record.key, record.payload) for record in dead.records) == [(b"30", None), (b"60", None)]
    assert (report.rows, report.dead_lettered, source.committed) == (90, 2, {0: 90})


@pytest.mark.parametrize("backoff", [0.0, 0.05])
def test_those_that_are_retried_come_back_as_they_were(tmp_path, backoff):
    def handler(batch: Batch[Row]) -> dict[str, Any]:
        batch.retry(batch.tombstones & (batch.attempts == 0))
        assert [row.n for row in batch.rows()] == batch["n"].tolist()
        assert [raw is None for raw in batch.raw] == batch.tombstones.tolist()
        return keys_of(batch)

    policy = RetryPolicy(max_attempts=3, backoff=backoff, jitter=0.0)
    report, sink, dead, source = run(tmp_path, handler, messages(300, 3), tombstones="rows", retry=policy)
    assert seen(sink) == [(n, -1 if n % 3 == 0 else n, n % 3 == 0) for n in range(300)]
    assert (report.retried, dead.records, source.committed) == (100, [], {0: 300})


class Wide(msgspec.Struct):
    text: str = "w" * 5000


def test_defaults_that_find_no_room_together_are_handled_in_parts(tmp_path):
    def handler(batch: Batch[Wide]) -> dict[str, Any]:
        assert set(batch["text"].tolist()) <= {"w" * 5000}
        return {"n": batch["text"].lengths, "key": [key.decode() for key in batch.keys], "deleted": batch.tombstones}

    options = {"schema": Wide, "max_batch_bytes": 20_000, "batch_size": 50}
    _, sink, dead, _ = run(tmp_path, handler, messages(50, 1), tombstones="rows", **options)
    assert seen(sink) == [(n, 5000, True) for n in range(50)]
    assert dead.records == []


def test_handed_on_they_stay_null(tmp_path):
    _, sink, _, _ = run(tmp_path, HandOn(WITH_TIME), messages(30, 3), tombstones="rows")
    found = sorted((int(record.key), record.payload) for record in sink.records)
    assert found == [(n, None if n % 3 == 0 else b'{"n":%d}' % n) for n in range(30)]


def list_of_rows(rows: list[Row]) -> list[bytes]:
    return [b"%d" % row.n for row in rows]


def list_of_bytes(rows: list[bytes]) -> list[bytes]:
    return [b"null" if row is None else row for row in rows]


@pytest.mark.parametrize(
    ("handler", "options", "sent"),
    [
        (list_of_rows, {}, [b"-1", b"-1", b"5"]),
        (list_of_bytes, {"schema": None, "decoder": "raw"}, [b"5", b"null", b"null"]),
    ],
    ids=["Structs", "bytes"],
)
def test_a_handler_of_a_list_gets_an_object_of_each(tmp_path, handler, options, sent):
    _, sink, _, _ = run(tmp_path, handler, [None, b"5" if options else b'{"n":5}', None], tombstones="rows", **options)
    assert sorted(sink.payloads) == sent


# -- behind a registry


def of_objects(orders: list[Any]) -> list[bytes]:
    """Rows of dicts or of messages."""
    return [
        b"null" if order is None else b"%d" % (order["order_id"] if isinstance(order, dict) else order.order_id)
        for order in orders
    ]


def of_columns(batch: Batch[Any]) -> list[bytes]:
    return [b"null" if null else b"%d" % n for null, n in zip(batch.tombstones, batch["order_id"], strict=True)]


class Order(msgspec.Struct):
    order_id: int | None
    note: str = ""


@pytest.mark.parametrize("path", ["protobuf", "dicts", "columns"])
@pytest.mark.parametrize("tombstones", ["skip", "rows"])
def test_behind_a_registry(tmp_path, registry, path, tombstones):
    decoder: Any = Protobuf(OrderPb, registry=registry.url) if path == "protobuf" else JsonSchema(registry=registry.url)
    sent = [payload for row in (protobufs if path == "protobuf" else jsons)(20) for payload in (row, None)]
    handler = annotated(of_columns if path == "columns" else of_objects, path)
    options = {"decoder": decoder, "schema": Order if path == "columns" else None, "tombstones": tombstones}
    report, sink, dead, _ = run(tmp_path, handler, sent, **options)
    numbers = sorted(b"%d" % n for n in range(20))
    assert sorted(sink.payloads) == sorted(numbers + ([b"null"] * 20 if tombstones == "rows" else []))
    assert (report.tombstones_skipped, dead.records) == (20 if tombstones == "skip" else 0, [])


def annotated(function: Any, path: str) -> Any:
    """The function as a handler of the rows that this way gives."""

    def handler(rows):
        return function(rows)

    handler.__annotations__["rows"] = {"protobuf": list[OrderPb], "dicts": list[dict], "columns": Batch[Order]}[path]
    return handler


# -- a tombstone is done with at once


def test_one_that_comes_alone_is_committed_without_another_message(tmp_path):
    app, source = App("test"), MemoryConsumer([], keep_open=True)
    app.batch_handler(source=source, schema=Row, tombstones="skip", name="h")(lambda batch: None)

    class Sender(Events):
        def started(self, info):
            source.send(None, key=b"k")

        def sample(self, snapshot):
            if snapshot.tombstones_skipped:
                source.end()

    began = time.monotonic()
    report = app.run(workers=1, until="end", state_dir=tmp_path, observer=Sender())
    assert (report.tombstones_skipped, source.committed) == (1, {0: 1})
    assert time.monotonic() - began < 30
