"""pool/rows.py in whole runs: what a faulty row, exception or result costs, and that nothing is sent twice."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import msgspec
import numpy as np
import pytest

from pythia_fast import App, Batch, RetryPolicy
from pythia_fast.brokers.memory import MemoryConsumer, MemoryProducer
from pythia_fast.errors import HandlerError
from pythia_fast.pool.records import RecordWriter
from tests.support import memory_run
from tests.support.memory_run import numbers, sorted_ints

FAR = np.datetime64(300_000, "Y")

#: What a result holds for the faulty row, and for any other row i.
VALUES = {
    "object": (lambda i: object(), "column 'v', row {}: TypeError: object has no JSON or MessagePack form"),
    "text": (lambda i: "\ud800", "column 'v', row {}: "),
    "datetime": (lambda i: FAR, "column 'v', row {}: the datetime lies outside the years 1 to 9999"),
    "large": (lambda i: "x" * 2_000_000, "row {}: its record takes 2000"),
}


def run(tmp_path, handler, messages, **options):
    """With batches that are full but for the last, so that it is known which rows are together."""
    return memory_run.run(tmp_path, handler, messages, batch_timeout=60, **options)


def numbers_of(batch) -> list[int]:
    return [int(payload) for payload in batch["payload"].tolist()]


def result_of(rows, faulty, kind, pad=""):
    """A result for these numbers in which the faulty ones cannot be sent on."""
    bad, _ = VALUES[kind]
    values = [bad(i) if i in faulty else np.datetime64(i, "Y") if kind == "datetime" else f"{i}{pad}" for i in rows]
    return {"i": np.array(rows), "v": np.array(values, "datetime64[Y]") if kind == "datetime" else values}


def sent_numbers(sink) -> list[int]:
    return sorted(msgspec.json.decode(payload)["i"] for payload in sink.payloads)


# -- values that cannot be sent on


@pytest.mark.parametrize("pad", ["", "x" * 5000], ids=["fits the region", "larger than the region"])
@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_cannot_be_sent_costs_its_row_alone(tmp_path, kind, pad):
    calls = tmp_path / "calls"

    def handler(batch):
        with calls.open("a") as file:
            file.write(".")
        return result_of(numbers_of(batch), {7, 55, 63}, kind, pad)

    report, sink, dead, source = run(tmp_path, handler, numbers(200), batch_size=64, max_batch_bytes=100_000)
    assert sorted_ints(dead) == [7, 55, 63]
    assert sent_numbers(sink) == sorted(set(range(200)) - {7, 55, 63})
    assert (report.rows, report.dead_lettered, report.crashes) == (200, 3, 0)
    assert source.committed == {0: 200}
    assert len(calls.read_text()) == report.batches, "the handler was called again for a value that it returned"
    for record in dead.records:
        # Rows with the same fault share a note, which names the first of them.
        assert any(VALUES[kind][1].format(row) in repr(record.headers) for row in (7, 55))
        assert "OutputValueError" in repr(record.headers)


def test_the_reason_names_the_row_of_the_batch_beside_rows_given_back(tmp_path):
    seen = tmp_path / "seen"

    def handler(batch):
        rows = np.array(numbers_of(batch))
        batch.reject(rows < 5, reason="too small")
        if not seen.exists():
            seen.touch()
            batch.retry((rows >= 5) & (rows < 8))
        return result_of(rows.tolist(), {2, 6, 9, 10}, "object")

    report, sink, dead, _ = run(tmp_path, handler, numbers(20), batch_size=20, workers=1)
    assert sent_numbers(sink) == [5, 7, 8, *range(11, 20)]
    reasons = {int(record.payload): dict(record.headers)["pf-reason"] for record in dead.records}
    assert sorted(reasons) == [0, 1, 2, 3, 4, 6, 9, 10]
    assert {reasons[i] for i in range(5)} == {b"too small"}
    assert reasons[6].startswith(b"column 'v', row 1: ")  # of the three that were handled again
    assert reasons[9] == reasons[10]
    assert reasons[9].startswith(b"column 'v', row 9: ")
    assert reasons[9].endswith(b"(and 1 more rows of the batch)")
    assert (report.rejected, report.retried, report.dead_lettered) == (5, 3, 8)


def test_a_batch_of_nothing_but_faulty_rows(tmp_path):
    report, sink, dead, _ = run(
        tmp_path, lambda batch: [object() for _ in range(len(batch))], numbers(5000), batch_size=5000
    )
    assert sorted_ints(dead) == list(range(5000))
    assert sink.records == []
    assert report.dead_lettered == 5000


@pytest.mark.parametrize("size", [1, 1000], ids=["fits the region", "larger than the region"])
@pytest.mark.parametrize("bad", [object(), "x" * 200_000], ids=["object", "large"])
def test_rows_of_a_result_of_another_length_are_found_by_halves_and_sent_once(tmp_path, bad, size):
    """Which row a record is of is not known, so nothing of a result may leave before all of it can."""

    def explode(batch):
        return [
            value
            for i in numbers_of(batch)
            for value in (f"{i} " * size, bad if i in (40, 99, 100) else f"{i}", f"{i} " * size)
        ]

    options = {"batch_size": 100, "max_batch_bytes": 100_000, "output_rows": "any"}
    _, sink, dead, _ = run(tmp_path, explode, numbers(250), **options)
    assert sorted_ints(dead) == [40, 99, 100]
    assert Counter(int(payload.split()[0]) for payload in sink.payloads) == {
        i: 3 for i in range(250) if i not in (40, 99, 100)
    }


def test_records_of_an_earlier_attempt_survive_a_later_one_that_fails(tmp_path):
    def handler(batch):
        rows = np.array(numbers_of(batch))
        if batch.attempts[0]:
            return [f"{i} ".encode() * 20_000 if i < 9 else object() for i in rows.tolist()]
        batch.retry(rows >= 5)
        return [b"%d" % i for i in rows.tolist()]

    options = {"batch_size": 10, "max_batch_bytes": 100_000, "output_rows": "any", "workers": 1}
    _, sink, dead, _ = run(tmp_path, handler, numbers(10), **options)
    assert sorted_ints(dead) == [9]
    assert sorted(int(payload.split()[0]) for payload in sink.payloads) == list(range(9))


@pytest.mark.parametrize("output_rows", ["same", "any"])
@pytest.mark.parametrize("pad", ["", "x" * 5000], ids=["fits the region", "larger than the region"])
def test_on_error_dead_letter_gives_up_the_batch_of_such_a_value_and_sends_nothing_of_it(tmp_path, pad, output_rows):
    def handler(batch):
        return result_of(numbers_of(batch), {60}, "object", pad)

    options = {"batch_size": 64, "max_batch_bytes": 100_000, "on_error": "dead_letter", "output_rows": output_rows}
    _, sink, dead, _ = run(tmp_path, handler, numbers(200), **options)
    assert sorted_ints(dead) == list(range(64))
    assert sent_numbers(sink) == list(range(64, 200))


@pytest.mark.parametrize("pad", ["", "x" * 5000], ids=["fits the region", "larger than the region"])
def test_on_error_stop_ends_the_run_at_such_a_value(tmp_path, pad):
    sink, dead, source = MemoryProducer(), MemoryProducer(), MemoryConsumer(numbers(64))
    app = App("test")
    app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        name="h",
        on_error="stop",
        max_batch_bytes=100_000,
        batch_timeout=60,
    )(lambda batch: result_of(numbers_of(batch), {60}, "object", pad))
    with pytest.raises(HandlerError, match="column 'v', row 60"):
        app.run(workers=1, until="end", state_dir=tmp_path, drain_timeout=0.2)
    assert (sink.records, dead.records) == ([], [])
    assert source.committed.get(0, 0) == 0


# -- results that are wrong as a whole


WRONG_RESULTS = pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda rows: {"a": np.arange(rows), "b": np.arange(rows - 1)}, "'a' has [0-9]+, 'b' has [0-9]+"),
        (lambda rows: {"a": np.arange(rows - 1)}, '[0-9]+ rows? and returned [0-9]+; .*output_rows="any"'),
        (lambda rows: [b""] * (rows + 1), '[0-9]+ rows? and returned [0-9]+; .*output_rows="any"'),
        (lambda rows: 42, "cannot return int"),
        (lambda rows: {"a": 1.0}, "one float"),
        (lambda rows: {"a": np.zeros(rows, np.complex128)}, "dtype complex128"),
    ],
    ids=["unequal columns", "too short", "too long", "no table", "no array", "no such dtype"],
)


@WRONG_RESULTS
def test_a_wrong_result_costs_the_rows_of_its_call(tmp_path, result, message):
    def handler(batch):
        rows = batch["payload"].tolist()
        if b"50" in rows:
            raise ValueError("searched by halves")
        return result(len(rows)) if b"17" in rows or b"60" in rows else rows

    report, sink, dead, source = run(tmp_path, handler, numbers(100), batch_size=32)
    given_up = set(map(int, dead.payloads))
    # The batch of 17, whole; of that of 50, which is searched by halves, the rows behind it, with which 60 is tried.
    assert given_up == {*range(32), *range(50, 64)}
    assert sorted_ints(sink) == sorted(set(range(100)) - given_up)
    assert (report.crashes, source.committed) == (0, {0: 100})
    for record in dead.records:
        headers = dict(record.headers)
        if record.payload != b"50":
            assert headers["pf-error"] == b"ResultError"
            assert re.search(message, headers["pf-reason"].decode())


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize("mark", [lambda batch, rows: batch.reject(rows, reason="bad"), Batch.retry])
def test_numbers_instead_of_a_mask_cost_the_rows_of_their_call(tmp_path, mark, kind):
    def handler(batch):
        rows = np.array(list(map(int, batch["payload"].tolist())))
        if 17 in rows:
            mark(batch, (rows == 17).astype(kind))
        return batch.raw

    _, sink, dead, source = run(tmp_path, handler, numbers(100), batch_size=32)
    assert sorted(map(int, dead.payloads)) == list(range(32))
    assert sorted_ints(sink) == list(range(32, 100))
    assert source.committed == {0: 100}
    assert {dict(record.headers)["pf-error"] for record in dead.records} == {b"MarkError"}


@pytest.mark.parametrize("rows", [[True] + [False] * 4, [0, 10], [0, -11]], ids=["mask", "index", "negative"])
@pytest.mark.parametrize("mark", [lambda batch, rows: batch.reject(rows, reason="bad"), Batch.retry])
def test_marks_that_do_not_fit_are_not_tried_on_halves(tmp_path, mark, rows):
    def handler(batch):
        if len(batch) < 32:
            mark(batch, rows)
        return batch.raw

    _, sink, dead, source = run(tmp_path, handler, numbers(42), batch_size=32)
    assert sorted(map(int, dead.payloads)) == list(range(32, 42))
    assert sorted_ints(sink) == list(range(32))
    assert source.committed == {0: 42}
    assert {dict(record.headers)["pf-error"] for record in dead.records} == {b"MarkIndexError"}


@WRONG_RESULTS
@pytest.mark.parametrize("on_error", ["dead_letter", "stop"])
def test_a_wrong_result_follows_on_error(tmp_path, on_error, result, message):
    sink, dead, source = MemoryProducer(), MemoryProducer(), MemoryConsumer(numbers(10))
    app = App("test")
    app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        name="h",
        on_error=on_error,
        batch_size=10,
        batch_timeout=60,
    )(lambda batch: result(len(batch)))
    if on_error == "stop":
        with pytest.raises(HandlerError, match=message):
            app.run(workers=1, until="end", state_dir=tmp_path, drain_timeout=0.2)
        assert (sink.records, dead.records) == ([], [])
        assert source.committed.get(0, 0) == 0
    else:
        app.run(workers=1, until="end", state_dir=tmp_path, drain_timeout=0.2)
        assert (sink.records, sorted_ints(dead)) == ([], list(range(10)))
        assert source.committed == {0: 10}


def test_a_handler_that_filters_says_so(tmp_path):
    _, sink, dead, _ = run(
        tmp_path, lambda batch: batch["payload"].tolist()[::2], numbers(100), batch_size=10, output_rows="any"
    )
    assert sorted_ints(sink) == list(range(0, 100, 2))
    assert dead.records == []


# -- exceptions of every kind


def recurse():
    return recurse()


EXCEPTIONS = [SystemExit(3), SystemExit(), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]


@pytest.mark.parametrize("error", [*EXCEPTIONS, recurse], ids=lambda error: repr(error)[:20])
def test_whatever_a_handler_raises_costs_the_rows_that_raise(tmp_path, error):
    def handler(batch):
        rows = batch["payload"].tolist()
        if b"17" in rows or b"77" in rows:
            if isinstance(error, BaseException):
                raise error
            error()
        return rows

    report, sink, dead, source = run(tmp_path, handler, numbers(100), batch_size=32)
    assert sorted_ints(dead) == [17, 77]
    assert sorted_ints(sink) == sorted(set(range(100)) - {17, 77})
    assert (report.crashes, source.committed) == (0, {0: 100})
    name = "RecursionError" if error is recurse else type(error).__name__
    for record in dead.records:
        headers = dict(record.headers)
        assert headers["pf-error"].decode() == name
        assert headers["pf-reason"].decode().rpartition(".")[2].startswith(name)


def test_on_error_stop_names_an_exit(tmp_path):
    def handler(batch):
        raise SystemExit("enough")

    with pytest.raises(HandlerError, match="SystemExit: enough"):
        run(tmp_path, handler, numbers(10), on_error="stop", workers=1)


# -- writing fails


def later_writes_fail(monkeypatch):
    """Have each write of a result's records fail but the first one."""
    write = RecordWriter._write

    def first(writer, slot, records, start, region):
        if start > 0:
            raise TypeError("it cannot be written")
        return write(writer, slot, records, start, region)

    monkeypatch.setattr(RecordWriter, "_write", first)


@pytest.mark.parametrize("output_rows", ["same", "any"])
@pytest.mark.parametrize("on_error", ["isolate", "dead_letter"])
def test_no_record_is_sent_twice_where_writing_fails_after_some_were_sent(tmp_path, monkeypatch, output_rows, on_error):
    def handler(batch):
        with (tmp_path / "calls").open("a") as file:
            file.write(".")
        return [b"%d " % number * 400 for number in numbers_of(batch)]

    later_writes_fail(monkeypatch)
    options = {"output_rows": output_rows, "on_error": on_error, "retry": RetryPolicy(retry_on=(Exception,))}
    _, sink, dead, source = run(tmp_path, handler, numbers(200), batch_size=200, max_batch_bytes=20_000, **options)
    sent = [int(payload.split()[0]) for payload in sink.payloads]
    assert sent == list(range(len(sent)))
    assert 0 < len(sent) < 200
    assert (tmp_path / "calls").read_text() == "."
    alone = output_rows == "same" and on_error == "isolate"
    assert sorted_ints(dead) == list(range(len(sent) if alone else 0, 200))
    assert source.committed == {0: 200}


def test_what_was_written_before_writing_fails_is_not_sent_where_the_rows_are_handled_again(tmp_path, monkeypatch):
    later_writes_fail(monkeypatch)
    _, sink, dead, _ = run(
        tmp_path, lambda batch: [None if i == 5 else b"%d" % i for i in numbers_of(batch)], numbers(20), batch_size=20
    )
    assert sorted_ints(sink) == sorted(set(range(20)) - {5})
    assert sorted_ints(dead) == [5]
