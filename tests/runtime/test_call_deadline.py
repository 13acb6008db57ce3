"""What batch_deadline= covers: all that runs the user's code for a call, before the handler is back and after."""

from __future__ import annotations

import threading
import time

import msgspec
import pyarrow as pa
import pytest

from pythia_fast import App, CircuitBreaker, MemoryConsumer, MemoryProducer, RetryPolicy
from pythia_fast.pool import records, rows
from pythia_fast.results.arrow_imports import load_arrow
from tests.support import memory_run

DEADLINE_S = 0.4


class Row(msgspec.Struct):
    id: int


def get_stuck(*_args, **_options):
    time.sleep(3600)


class StuckArray:
    """A column whose values never come."""

    __array__ = get_stuck

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return self._rows


class StuckList(list):
    __len__ = get_stuck


class StuckError(Exception):
    __str__ = get_stuck


class StuckType(type):
    __instancecheck__ = get_stuck


class StuckComparisonError(Exception, metaclass=StuckType):
    pass


class StuckEnd:
    __del__ = get_stuck


def lazy_table(ids):
    def batches():
        get_stuck()
        yield

    return pa.RecordBatchReader.from_batches(pa.schema([("id", pa.int64())]), batches())


def array(ids):
    return {"id": StuckArray(len(ids))}


def length(ids):
    return {"id": StuckList([1])}


def text(ids):
    raise StuckError


def comparison(ids):
    raise ValueError(1)


def end_of_result(ids):
    return {"id": ids, "end": [StuckEnd() for _ in ids]}


def end_of_frame(ids):
    kept = StuckEnd()
    raise ValueError(kept is None)


def headers_of(record) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}


@pytest.mark.parametrize(
    ("stuck", "options"),
    [
        (lazy_table, {}),
        (array, {}),
        (length, {}),
        (text, {}),
        (text, {"on_error": "dead_letter", "batch_size": 1}),
        (comparison, {"retry": RetryPolicy(3, retry_on=StuckComparisonError)}),
        (comparison, {"breaker": CircuitBreaker(5, 0.1, expected=StuckComparisonError)}),
        (end_of_result, {"batch_size": 1}),
        (end_of_frame, {}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "-".join(value) or "plain",
)
def test_what_hangs_behind_the_handler_costs_its_row_alone(tmp_path, stuck, options):
    def handler(batch):
        ids = batch["id"].copy()
        return stuck(ids) if 3 in ids else {"id": ids}

    report, sink, dead, source = memory_run.run(
        tmp_path,
        handler,
        [b'{"id":%d}' % number for number in range(10)],
        **{"schema": Row, "decoder": "json", "batch_size": 10, "batch_timeout": 60, "workers": 1, **options},
        batch_deadline=DEADLINE_S,
        dead_letter_limit=None,
    )
    assert sorted(msgspec.json.decode(payload)["id"] for payload in sink.payloads) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert dead.payloads == [b'{"id":3}']
    headers = headers_of(dead.records[0])
    assert f"took longer than batch_deadline={DEADLINE_S:g} s and was killed by SIGABRT" in headers["pf-reason"]
    assert "get_stuck" in headers["pf-traceback"]
    assert (report.crashes, source.committed) == (3, {0: 10})


def test_the_wait_for_room_in_the_output_does_not_count(tmp_path):
    app, sink = App("test"), MemoryProducer()

    class Answers(memory_run.Events):
        def event(self, text):
            super().event(text)
            if "nobody answers" in text:
                threading.Timer(3 * DEADLINE_S, sink.fail_with, [None]).start()

    @app.batch_handler(
        source=MemoryConsumer(memory_run.numbers(1000)),
        sink=sink,
        decoder="raw",
        batch_size=1000,
        batch_timeout=60,
        max_batch_bytes=30_000,
        batch_deadline=DEADLINE_S,
    )
    def handler(batch):
        return [b"%s " % payload * 60 for payload in batch["payload"].tolist()]

    sink.fail_with("nobody answers")
    report = app.run(workers=1, until="end", state_dir=tmp_path, observer=Answers())
    assert report.seconds > 3 * DEADLINE_S
    assert report.crashes == 0
    assert [int(payload.split()[0]) for payload in sink.payloads] == list(range(1000))


def test_decoding_rows_anew_for_a_call_does_not_count(tmp_path, monkeypatch):
    class SlowMemory:
        def __init__(self, *shape):
            self._memory = part_memory(*shape)

        def decode(self, *some):
            time.sleep(1.5 * DEADLINE_S)
            return self._memory.decode(*some)

    part_memory = rows.PartMemory
    monkeypatch.setattr(rows, "PartMemory", SlowMemory)

    def handler(batch):
        values = batch["payload"].tolist()
        if b"3" in values:
            raise ValueError("three")
        return values

    report, sink, dead, _ = memory_run.run(
        tmp_path, handler, memory_run.numbers(4), batch_size=4, batch_timeout=60, workers=1, batch_deadline=DEADLINE_S
    )
    assert report.crashes == 0
    assert (memory_run.sorted_ints(sink), memory_run.sorted_ints(dead)) == ([0, 1, 2], [3])


def test_what_pyarrow_imports_for_the_first_table_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "load_arrow", lambda: time.sleep(1.5 * DEADLINE_S))

    def handler(batch):
        return pa.table({"value": batch["payload"].tolist()})

    load_arrow()  # here, for the fork
    report, sink, dead, _ = memory_run.run(
        tmp_path, handler, memory_run.numbers(4), batch_size=4, workers=1, batch_deadline=DEADLINE_S
    )
    assert (report.crashes, dead.records) == (0, [])
    assert len(sink.records) == 4


def test_a_chain_of_very_many_causes_is_put_into_words_in_time(tmp_path):
    error = ValueError("the first")
    for _ in range(300_000):
        error, cause = ValueError("bad row"), error
        error.__cause__ = cause

    def handler(batch):
        raise error

    _, _, dead, _ = memory_run.run(tmp_path, handler, [b"0"], workers=1, batch_deadline=3 * DEADLINE_S)
    headers = {name: value.decode() for name, value in dead.records[0].headers}
    assert headers["pf-reason"] == "ValueError: bad row"
    assert "in handler\n" in headers["pf-traceback"]
