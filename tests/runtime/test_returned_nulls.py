"""Columns of Optional numbers that a handler returns as the batch has them, in whole runs: their nulls are sent on."""

from __future__ import annotations

import datetime
from typing import Annotated

import msgspec
import numpy as np
import pytest

from pythia_fast import App, Batch, MemoryConsumer, MemoryProducer
from tests.support import memory_run


class Inner(msgspec.Struct):
    count: int | None = None


class Reading(msgspec.Struct):
    id: int
    count: int | None = None
    small: Annotated[int, np.uint8] | None = None
    price: float | None = None
    ok: bool | None = None
    at: datetime.datetime | None = None
    inner: Inner | None = None


FULL = b'{"id":%d,"count":7,"small":8,"price":0.5,"ok":true,"at":"2026-01-01T00:00:00Z","inner":{"count":9}}'
NAMES = ("count", "small", "price", "ok", "at", "inner.count")


def payloads(count: int) -> list[bytes]:
    return [FULL % row if row % 3 else b'{"id":%d}' % row for row in range(count)]


def expected(row: int) -> dict[str, object]:
    values = (7, 8, 0.5, True, "2026-01-01T00:00:00Z", 9) if row % 3 else (None,) * 6
    return {"id": row, **dict(zip(NAMES, values, strict=True))}


def returned(batch: Batch[Reading]) -> dict[str, object]:
    return {name: batch[name] for name in ("id", *NAMES)}


def returned_without_some(batch: Batch[Reading]) -> dict[str, object]:
    batch.reject(batch["id"] % 10 == 0, reason="tenth")
    return returned(batch)


@pytest.mark.parametrize(
    ("handler", "rows"),
    [(returned, range(300)), (returned_without_some, [row for row in range(300) if row % 10])],
    ids=["all", "some"],
)
def test_nulls_are_sent_on(tmp_path, handler, rows):
    _, sink, _, _ = memory_run.run(tmp_path, handler, payloads(300), decoder="json", schema=Reading, batch_size=64)
    sent = sorted((msgspec.json.decode(payload) for payload in sink.payloads), key=lambda record: record["id"])
    assert sent == [expected(row) for row in rows]


def test_what_is_computed_has_the_values_that_it_has(tmp_path):
    _, sink, _, _ = memory_run.run(
        tmp_path, lambda batch: {"count": batch["count"] + 1}, payloads(3), decoder="json", schema=Reading
    )
    assert sink.payloads == [b'{"count":1}', b'{"count":8}', b'{"count":8}']


def test_a_column_without_nulls_is_not_copied():
    batch = Batch.decode([FULL % 1], Reading)
    column = batch["count"]
    assert batch.with_nulls({"count": column})["count"] is column


def test_a_trial_returns_what_the_handler_returned():
    app = App("test")
    app.batch_handler(source=MemoryConsumer([]), sink=MemoryProducer(), schema=Reading)(returned)
    trial = app.test(returned, payloads(3))
    assert trial.returned["count"].tolist() == [0, 7, 7]
    assert not trial.failed
