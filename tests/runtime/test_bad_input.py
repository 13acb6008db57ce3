"""Bad input through a whole run: each kind is a dead letter that says what was wrong, its neighbours go on."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import pytest

from pythia_fast import App, FileConsumer, MemoryConsumer, MemoryProducer

GOOD = b'{"id":1,"price":2.5,"name":"a"}'


class Order(msgspec.Struct):
    id: int
    price: float
    name: str
    level: Annotated[int, np.uint8] = 0


def run(tmp_path, source, **options):
    app = App("bad")
    sink, dead = MemoryProducer(), MemoryProducer()
    app.batch_handler(source=source, sink=sink, dead_letter=dead, schema=Order, name="orders", **options)(
        lambda batch: {"id": batch["id"]}
    )
    return app.run(workers=1, until="end", state_dir=tmp_path / "state"), sink, dead


BAD = {
    "truncated": (b'{"id":1,"price":2.', "ends inside"),
    "malformed": (b'{"id":1,,"price":2}', "byte 8"),
    "not an object": (b"[1,2]", "array"),
    "trailing bytes": (GOOD + b"x", "byte 31"),
    "a wrong type": (b'{"id":"1","price":2,"name":"a"}', "id"),
    "null for a number": (b'{"id":null,"price":2,"name":"a"}', "null"),
    "an integer beyond 64 bits": (b'{"id":123456789012345678901234,"price":2,"name":"a"}', "range"),
    "an integer beyond its column": (b'{"id":1,"price":2,"name":"a","level":256}', "level"),
    "a missing field": (b'{"id":1,"price":2}', "name"),
    "invalid UTF-8": (b'{"id":1,"price":2,"name":"\xff"}', "UTF-8"),
    "a lone surrogate": (b'{"id":1,"price":2,"name":"\\ud800"}', "byte"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, "byte order mark"),
    "an empty payload": (b"", "empty"),
    "a null value": (None, "null"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_payload_is_a_dead_letter_with_its_reason(tmp_path, kind):
    payload, reason = BAD[kind]
    source = MemoryConsumer([GOOD, payload, GOOD])
    report, sink, dead = run(tmp_path, source)
    assert dead.payloads == [payload]
    assert reason in repr(dead.records[0].headers)
    assert len(sink.records) == 2
    assert (report.rows, report.refused, report.dead_lettered) == (3, 1, 1)
    assert source.committed == {0: 3}


def test_all_of_them_at_once_and_nothing_else(tmp_path):
    payloads = [payload for payload, _ in BAD.values()]
    mixed = [part for payload in payloads for part in (GOOD, payload)]
    report, sink, dead = run(tmp_path, MemoryConsumer(mixed), batch_size=4)
    assert sorted(dead.payloads, key=repr) == sorted(payloads, key=repr)
    assert len(sink.records) == len(payloads)
    assert report.refused == len(payloads)


def test_a_batch_of_bad_rows_only(tmp_path):
    report, sink, dead = run(tmp_path, MemoryConsumer([b"x"] * 5000), batch_size=512, dead_letter_limit=None)
    assert len(dead.records) == 5000
    assert sink.records == []
    assert report.rows == 5000


def test_a_payload_of_64_megabytes_costs_itself_only(tmp_path):
    big = b'{"id":2,"price":1,"name":"' + b"n" * (64 << 20) + b'"}'
    source = MemoryConsumer([GOOD, big, GOOD])
    _, sink, dead = run(tmp_path, source)
    assert len(sink.records) == 2
    assert dead.payloads == [big]
    assert source.committed == {0: 3}


def test_a_file_without_a_last_newline_gives_its_last_row(tmp_path):
    path = tmp_path / "orders.ndjson"
    path.write_bytes(GOOD + b"\n" + GOOD)
    report, sink, _ = run(tmp_path, FileConsumer(path=path))
    assert len(sink.records) == 2
    assert report.rows == 2
