"""``record`` and what becomes of its files: read by FileConsumer, replayed to handlers at the pace of their times."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from pythia_fast.brokers.framing import FramedRecord, Place, decode_headers, frame_record, iterate_records
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.report import RunReport
from tests.support.command_line import HEAD, processes_in, run, running

APP = (
    HEAD
    + """
from pythia_fast import MemoryMessage

source = MemoryConsumer([
    MemoryMessage(b'{"price":1,"qty":7}', b"k\\xff", [("a", b"1"), ("a", None)], timestamp_ms=1767225600000),
    MemoryMessage(None, b"gone", timestamp_ms=1767225600100),
    MemoryMessage(b'{"price":2,"qty":8}', timestamp_ms=1767225600400),
], topic="orders")

@app.batch_handler(source=source, sink=FileProducer(path="scored.ndjson"), schema=Order)
def score(batch: Batch[Order]):
    return [repr(row) for row in zip(batch["price"].tolist(), batch.keys, batch.headers, map(str, batch.timestamps))]

@app.batch_handler(
    source=FileConsumer(path="orders.rec", format="records"), sink=FileProducer(path="again.ndjson"), schema=Order
)
def again(batch: Batch[Order]):
    return [repr(row) for row in zip(batch["price"].tolist(), batch.keys, batch.headers, map(str, batch.timestamps))]
"""
)
ROWS = [
    "(1.0, b'k\\xff', {'a': None}, '2026-01-01T00:00:00.000')",
    "(2.0, None, {}, '2026-01-01T00:00:00.400')",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def records_in(path: Path) -> list[FramedRecord]:
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        found += iterate_records(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def recorded(project: Path) -> None:
    finished = run(project, "record", "shop:app", "orders.rec", "--handler", "score", "--until-end")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert "recorded 3 messages of memory" in finished.stdout


def test_a_recording_keeps_all_of_a_message(project: Path) -> None:
    recorded(project)
    first, null, last = records_in(project / "orders.rec")
    assert (first.payload, first.key) == (b'{"price":1,"qty":7}', b"k\xff")
    assert decode_headers(first.headers) == [("a", b"1"), ("a", None)]
    assert first.place == Place(1767225600000, 0, 0, b"orders")
    assert (null.payload, null.key, null.place) == (None, b"gone", Place(1767225600100, 1, 0, b"orders"))
    assert (last.payload, last.key, last.headers) == (b'{"price":2,"qty":8}', None, b"")
    assert processes_in(project) == []


def test_a_recording_is_a_source(project: Path) -> None:
    recorded(project)
    whole = (project / "orders.rec").read_bytes()
    (project / "orders.rec").write_bytes(whole + whole[:30])  # what a kill leaves of a record
    finished = run(project, "run", "shop:app", "--handler", "again", "--until-end", "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert (project / "again.ndjson").read_text().splitlines() == ROWS
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.rows, report.refused) == (3, 1)  # a null payload is no order
    assert "ends within a record: 30 bytes" in finished.stderr


@pytest.mark.parametrize(("speed", "least_s"), [("max", 0.0), ("1x", 0.4), ("4x", 0.1), ("20/s", 0.05)])
def test_a_replay_keeps_to_the_recorded_times(project: Path, speed: str, least_s: float) -> None:
    recorded(project)
    arguments = ("--app", "shop:app", "--handler", "score", "--speed", speed, "--report", "run.json")
    finished = run(project, "replay", "orders.rec", *arguments)
    assert finished.returncode == ExitCode.DONE, finished.stderr
    how = {"max": "as fast as they are taken", "20/s": "at 20 a second"}.get(speed, f"at {speed[0]} times the speed")
    assert f"replaying orders.rec: recorded messages to handler score, {how}" in finished.stderr
    assert RunReport.from_json((project / "run.json").read_bytes()).seconds >= least_s * 0.9
    assert (project / "scored.ndjson").read_text().splitlines() == ROWS


def test_a_replay_goes_to_a_file_as_it_is(project: Path) -> None:
    recorded(project)
    finished = run(project, "replay", "orders.rec", "--to", "file:copy.rec?format=records")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    before, after = records_in(project / "orders.rec"), records_in(project / "copy.rec")
    assert [record[:3] for record in before] == [record[:3] for record in after]
    assert [r.place and r.place.timestamp_ms for r in after] == [r.place and r.place.timestamp_ms for r in before]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "orders.rec"], "give --app MODULE:APP, whose handler gets the messages, or --to TARGET"),
        (["replay", "orders.rec", "--app", "a:b", "--to", "file:x"], "one of the two"),
        (["replay", "orders.rec", "--to", "file:x", "--no-sink"], "--no-sink belongs to --app"),
        (["replay", "orders.rec", "--to", "kafak://h/t"], "did you mean 'kafka'"),
        (["replay", "orders.rec", "--to", "file:x", "--time-field", "ts"], "--time-field is for JSON lines"),
        (["replay", "timeless.rec", "--to", "file:x", "--speed", "2x"], "have no times, so there is no speed to keep"),
        (["record", "file:a.ndjson", "text"], "text holds something else than a recording, which stays as it is"),
        (["record", "file:a.ndjson", "."], ". is no plain file"),
        (["record", "file:a.ndjson", "x", "--handler", "score"], "--handler chooses among the handlers of MODULE:APP"),
        (["record", "shop:app", "x"], "choose with --handler; there are: score, again"),
        (["record", "file:a.ndjson", "x", "--max-messages", "0"], "is not a number of rows from 1"),
        (["record", "file:a.ndjson", "x", "--max-mesages", "5"], "did you mean --max-messages?"),
    ],
)
def test_wrong_usage_is_told(project: Path, arguments: list[str], message: str) -> None:
    recorded(project)
    (project / "text").write_text("hello, this is no recording at all\n")
    (project / "a.ndjson").write_text("{}\n")
    framed = frame_record(b"x")
    (project / "timeless.rec").write_bytes(len(framed).to_bytes(4, "little") + framed)
    finished = run(project, *arguments)
    assert finished.returncode == ExitCode.USAGE, finished.stderr
    assert message in finished.stderr
    assert (project / "text").read_text() == "hello, this is no recording at all\n"


def test_it_stops_after_so_many_messages_and_goes_on_there(project: Path) -> None:
    (project / "orders.ndjson").write_text("".join(f'{{"n":{n}}}\n' for n in range(1000)))
    for end in (300, 600):
        arguments = ("--max-messages", "300", "--report", "run.json")
        finished = run(project, "record", "file:orders.ndjson", "o.rec", *arguments)
        assert finished.returncode == ExitCode.DONE, finished.stderr
        assert [json.loads(record.payload or b"")["n"] for record in records_in(project / "o.rec")] == list(range(end))
    assert "o.rec has " in finished.stderr


def test_it_stops_after_some_time_and_when_it_is_asked_to(project: Path) -> None:
    (project / "orders.ndjson").write_text("{}\n" * 10)
    began = time.monotonic()
    finished = run(project, "record", "file:orders.ndjson?follow=true", "a.rec", "--duration", "1")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert time.monotonic() - began >= 1
    assert len(records_in(project / "a.rec")) == 10
    with running(project, "record", "file:orders.ndjson?follow=true", "b.rec") as process:
        deadline = time.monotonic() + 60
        while not (project / "b.rec").exists() or not (project / "b.rec").stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.DONE, err
    assert "recorded 10 messages of file" in out
    assert len(records_in(project / "b.rec")) == 10


def test_a_message_that_is_too_large_is_told(project: Path) -> None:
    large = 5 << 20
    (project / "orders.ndjson").write_text("a\n" + "b" * large + "\nc\n")
    finished = run(project, "record", "file:orders.ndjson", "a.rec", "--until-end", "--max-message-bytes", str(4 << 20))
    assert finished.returncode == ExitCode.FAILED
    assert "1 messages were not recorded (larger than --max-message-bytes" in finished.stderr
    assert [record.payload for record in records_in(project / "a.rec")] == [b"a", b"c"]
    finished = run(project, "record", "file:orders.ndjson", "b.rec", "--until-end")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert [len(record.payload or b"") for record in records_in(project / "b.rec")] == [1, large, 1]


def test_dead_letters_as_messages_are_replayed(project: Path) -> None:
    dead = 'sink=FileProducer(path="scored.ndjson"), dead_letter=FileProducer(path="dead.rec", format="records"),'
    text = APP.replace('sink=FileProducer(path="scored.ndjson"),', dead)
    (project / "shop.py").write_text(text)
    finished = run(project, "run", "shop:app", "--handler", "score", "--until-end")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    (letter,) = records_in(project / "dead.rec")
    assert (letter.payload, letter.key, letter.place) == (None, b"gone", Place(1767225600100, 1, 0, b"orders"))
    assert dict(decode_headers(letter.headers))["pf-reason"] == b"the payload is null"
    again = run(project, "replay", "dead.rec", "--to", "file:again.rec?format=records")
    assert again.returncode == ExitCode.DONE, again.stderr
    assert [(r.payload, r.key) for r in records_in(project / "again.rec")] == [(None, b"gone")]
    listed = run(project, "dlq", "list", "--app", "shop:app", "--handler", "score")
    assert listed.returncode == ExitCode.DONE, listed.stderr
    assert "the payload is null" in listed.stdout
    shown = run(project, "dlq", "show", "--app", "shop:app", "--handler", "score", "--json")
    assert json.loads(shown.stdout)["offset"] == 1
