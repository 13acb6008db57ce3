"""Whole runtimes between streams, run as a user runs them."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pythia_fast import App, Batch, MemoryProducer, RedisStreamsConsumer
from tests.support.redis_server import RedisServerProcess
from tests.support.runtime_process import RuntimeProcess

_numbers = itertools.count()
GROUP = "copy-copy"


class Copying(RuntimeProcess):
    """One runtime of tests/support/redis_app.py."""

    def __init__(self, server: RedisServerProcess, folder: Path, stream: str, *arguments: str, **settings: str) -> None:
        environment = {
            "REDIS_URL": settings.pop("url", server.url),
            "APP_STREAM": stream,
            "APP_TO": f"{stream}-out",
            **{f"APP_{name.upper()}": value for name, value in settings.items()},
        }
        super().__init__(folder, "tests.support.redis_app:app", environment, arguments)


@pytest.fixture
def start(redis: RedisServerProcess, tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def start_one(stream: str, *arguments: str, **settings: str) -> Copying:
            made = Copying(redis, tmp_path / f"run-{next(_numbers)}", stream, *arguments, **settings)
            stack.callback(made.close)
            return made

        yield start_one


def fill(redis: RedisServerProcess, stream: str, count: int) -> None:
    with redis.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(count):
            pipeline.xadd(stream, {"data": b'{"id":%d}' % number})
        pipeline.execute()


def rows(redis: RedisServerProcess, stream: str) -> list[dict[str, int]]:
    with redis.client() as client:
        return [json.loads(fields[b"data"]) for _, fields in client.xrange(f"{stream}-out")]


def pending(redis: RedisServerProcess, stream: str) -> int:
    with redis.client() as client:
        return int(client.xpending(stream, GROUP)["pending"])


def wait_for_rows(redis: RedisServerProcess, stream: str, count: int, running: Copying) -> None:
    deadline = time.monotonic() + 60
    with redis.client() as client:
        while client.xlen(f"{stream}-out") < count:
            assert time.monotonic() < deadline, running.log
            assert running.process.poll() is None, running.log
            time.sleep(0.02)


def test_a_run_until_the_end_leaves_nothing_pending(redis: RedisServerProcess, start: Any) -> None:
    stream = f"run-{next(_numbers)}"
    fill(redis, stream, 20_000)
    report = start(stream, "--until-end").wait()
    assert report["rows"] == 20_000
    assert [row["id"] for row in rows(redis, stream)] == list(range(20_000))
    assert pending(redis, stream) == 0
    with redis.client() as client:
        assert client.xinfo_consumers(stream, GROUP) == [], "its name was unique, and went with it"


def test_sigterm_drains_and_leaves_nothing_pending(redis: RedisServerProcess, start: Any) -> None:
    stream = f"run-{next(_numbers)}"
    fill(redis, stream, 40_000)
    running = start(stream, seconds="0.02")
    wait_for_rows(redis, stream, 1000, running)
    report = running.stop()
    assert 1000 <= report["rows"] < 40_000
    assert pending(redis, stream) == 0
    assert len(rows(redis, stream)) == report["rows"]
    start(stream, "--until-end").wait()
    assert Counter(row["id"] for row in rows(redis, stream)) == Counter(range(40_000))


def test_sigterm_while_it_waits_for_entries(redis: RedisServerProcess, start: Any) -> None:
    stream = f"run-{next(_numbers)}"
    fill(redis, stream, 10)
    running = start(stream)
    wait_for_rows(redis, stream, 10, running)
    assert running.stop()["rows"] == 10
    assert pending(redis, stream) == 0


def test_what_a_killed_runtime_had_is_handled_by_another(redis: RedisServerProcess, start: Any) -> None:
    stream = f"run-{next(_numbers)}"
    fill(redis, stream, 20_000)
    first = start(stream, seconds="0.05")
    wait_for_rows(redis, stream, 1000, first)
    first.kill()
    left = pending(redis, stream)
    assert left > 0
    second = start(stream)
    deadline = time.monotonic() + 90
    while {row["id"] for row in rows(redis, stream)} != set(range(20_000)):
        assert time.monotonic() < deadline, second.log
        time.sleep(0.1)
    second.stop()
    assert pending(redis, stream) == 0
    seen = rows(redis, stream)
    assert len(seen) <= 20_000 + left, "only what was in hand is handled twice"
    assert 1 in {row["deliveries"] for row in seen}


@pytest.mark.parametrize("tombstones", ["skip", "rows"])
def test_entries_without_a_payload_are_acknowledged(redis: RedisServerProcess, tmp_path: Path, tombstones: Any) -> None:
    stream = f"stream-{tombstones}"
    with redis.client() as client:
        for number in range(60):
            client.xadd(stream, {"data": b"%d" % number} if number % 3 else {"key": b"%d" % number, "op": "del"})
    app, sink, dead = App("copy"), MemoryProducer(), MemoryProducer()
    source = RedisStreamsConsumer(stream, url=redis.url)

    @app.batch_handler(source=source, sink=sink, dead_letter=dead, decoder="raw", tombstones=tombstones)
    def copy(batch: Batch[bytes]) -> list[bytes]:
        values = zip(batch.tombstones, batch.headers, batch["payload"], strict=True)
        return [b"deleted %b" % (fields["key"] or b"") if deleted else value for deleted, fields, value in values]

    report = app.run(workers=1, until="end", state_dir=tmp_path)
    skipped = 20 if tombstones == "skip" else 0
    assert (report.rows, report.tombstones_skipped, dead.records) == (60, skipped, [])
    kept = [b"%d" % number for number in range(60) if number % 3]
    deleted = [b"deleted %d" % number for number in range(0, 60, 3)]
    assert sorted(sink.payloads) == sorted(kept + ([] if skipped else deleted))
    assert pending(redis, stream) == 0
