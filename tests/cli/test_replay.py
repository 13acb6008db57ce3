"""``python -m pythia_fast replay``: a file through a handler, at a pace."""

import json
from pathlib import Path

import msgspec
import pytest

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.report import RunReport
from pythia_fast.runtime.dead_letter_form import DeadLetter, stored_letter
from tests.support.command_line import ENVIRONMENT, HEAD, TWO_HANDLERS, run, running

LETTER = DeadLetter(
    payload=b'{"price":1.5,"qty":2}',
    key=b"k",
    headers=b"",
    topic="orders",
    partition=0,
    offset=3,
    timestamp_ms=1_767_225_600_000,
    reason="ValueError",
    error="ValueError",
    traceback="",
    attempts=1,
)

ONE_HANDLER = (
    HEAD
    + """
@app.batch_handler(
    source=KafkaConsumer(topic="orders", consumer_group="g"), sink=FileProducer(path="scored.ndjson"), schema=Order
)
def score(batch: Batch[Order]):
    return {"revenue": batch["price"] * batch["qty"]}
"""
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    lines = [json.dumps({"price": 1.5, "qty": qty, "ts": 1_767_225_600_000 + 20 * qty}) for qty in range(10)]
    (tmp_path / "orders.ndjson").write_text("\n".join(lines) + "\n")
    (tmp_path / "shop.py").write_text(ONE_HANDLER)
    return tmp_path


@pytest.mark.parametrize(
    ("speed", "least_s"),
    [("max", 0.0), ("1x", 0.18), ("2x", 0.09), ("100/s", 0.09)],
)
def test_every_row_is_replayed_at_the_pace(project: Path, speed: str, least_s: float) -> None:
    finished = run(project, "replay", "orders.ndjson", "--app", "shop:app", "--speed", speed, "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert report.rows == 10
    assert report.seconds >= least_s * 0.9
    assert len((project / "scored.ndjson").read_text().splitlines()) == 10
    assert list((project / ".pythia" / "orders").iterdir()) == []


def test_a_replay_can_be_repeated_and_can_drop_results(project: Path) -> None:
    for _ in range(2):
        finished = run(project, "replay", "orders.ndjson", "--app", "shop.py:app", "--no-sink", "--report", "run.json")
        assert finished.returncode == ExitCode.DONE, finished.stderr
        assert RunReport.from_json((project / "run.json").read_bytes()).rows == 10
    assert not (project / "scored.ndjson").exists()


def test_a_handler_of_transactions_is_replayed_without_them(project: Path) -> None:
    old, new = 'sink=FileProducer(path="scored.ndjson")', 'sink=KafkaProducer("scored"), transactional=True'
    assert old in ONE_HANDLER
    text = ONE_HANDLER.replace(old, new).replace("\n@app", "\nfrom pythia_fast import KafkaProducer\n\n@app", 1)
    (project / "shop.py").write_text(text)
    finished = run(project, "replay", "orders.ndjson", "--app", "shop:app", "--no-sink", "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert RunReport.from_json((project / "run.json").read_bytes()).rows == 10


def test_two_replays_at_once_have_a_folder_each(project: Path) -> None:
    with (project / "orders.ndjson").open("a") as file:
        file.write('{"price":"high","qty":1}\n')
    arguments = ("replay", "orders.ndjson", "--app", "shop:app", "--no-sink", "--workers", "1")
    with running(project, *arguments) as first, running(project, *arguments) as second:
        for process in (first, second):
            _, err = process.communicate(timeout=60)
            assert process.returncode == ExitCode.DONE, err
    folders = list((project / ".pythia" / "orders").iterdir())
    assert len(folders) == 2
    for folder in folders:
        (letter,) = (folder / "dead-letters" / "score.ndjson").read_text().splitlines()
        assert "high" in letter


def test_dead_letters_are_kept_and_told(project: Path) -> None:
    with (project / "orders.ndjson").open("a") as file:
        file.write('{"price":"high","qty":1}\n')
    finished = run(project, "replay", "orders.ndjson", "--app", "shop:app", "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.rows, report.refused, report.dead_lettered) == (11, 1, 1)
    (folder,) = (project / ".pythia" / "orders").iterdir()
    assert str(folder.relative_to(project)) in finished.stderr
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"high" in kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speed", "fast"], "speed 'fast': write max, 2x"),
        (["--speed", "2x", "--time-field", "when"], "no field 'when'; it has price, qty, ts"),
        (["--handler", "scores"], "has no handler 'scores'; did you mean 'score'?"),
    ],
)
def test_wrong_usage_is_told(project: Path, arguments: list[str], message: str) -> None:
    finished = run(project, "replay", "orders.ndjson", "--app", "shop:app", *arguments)
    assert finished.returncode == ExitCode.USAGE
    assert message in finished.stderr


def test_several_handlers_need_a_name(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    finished = run(project, "replay", "orders.ndjson", "--app", "shop:app")
    assert finished.returncode == ExitCode.USAGE
    assert "choose with --handler; there are: score, count" in finished.stderr


def test_an_empty_file_is_no_rows(project: Path) -> None:
    (project / "orders.ndjson").write_bytes(b"")
    finished = run(project, "replay", "orders.ndjson", "--app", "shop:app", "--speed", "2x", "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert RunReport.from_json((project / "run.json").read_bytes()).rows == 0


#: Raises for some messages until it is mended; what it returns holds all that a message came with.
POISONED = (
    HEAD
    + """
import os
from pythia_fast import MemoryMessage

MENDED = "MENDED" in os.environ
source = MemoryConsumer([
    MemoryMessage(
        b'{"price":1,"qty":7}', b"k\\xff", [("trace", b"\\x00\\xff"), ("empty", None)], timestamp_ms=1767225600123
    ),
    b'{"price":2,"qty":7}',
    b'{"price":3,"qty":1}',
])

@app.batch_handler(source=source, sink=FileProducer(path="scored.ndjson"), DEAD schema=Order)
def score(batch: Batch[Order]):
    rows = list(zip(batch["price"].tolist(), batch["qty"].tolist(), batch.keys, batch.headers, batch.timestamps))
    if not MENDED and any(qty == 7 for _, qty, *_ in rows):
        raise ValueError("no sevens")
    return [repr((price, qty, key, headers, str(stamp))) for price, qty, key, headers, stamp in rows]
"""
)
DEAD = 'dead_letter=FileProducer(path="dead", format="FORMAT"),'


@pytest.mark.parametrize(
    ("dead_letter", "file"),
    [
        ("", ".pythia/orders/dead-letters/score.ndjson"),
        (DEAD.replace("FORMAT", "ndjson"), "dead"),
        (DEAD.replace("FORMAT", "msgpack-frames"), "dead"),
    ],
    ids=["state folder", "ndjson", "msgpack-frames"],
)
def test_dead_letters_are_handled_once_the_handler_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_letter: str, file: str
) -> None:
    (tmp_path / "shop.py").write_text(POISONED.replace("DEAD", dead_letter))
    finished = run(tmp_path, "run", "shop:app", "--until-end", "--workers", "1")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    scored = tmp_path / "scored.ndjson"
    assert len(scored.read_text().splitlines()) == 1

    # Not mended yet: new letters, in the very file that is read where it has a place of its own; they are not read.
    again = run(tmp_path, "replay", file, "--app", "shop:app", "--workers", "1", "--report", "run.json")
    assert again.returncode == ExitCode.DONE, again.stderr
    report = RunReport.from_json((tmp_path / "run.json").read_bytes())
    assert (report.rows, report.dead_lettered) == (2, 2)
    scored.unlink()

    monkeypatch.setitem(ENVIRONMENT, "MENDED", "1")
    mended = run(tmp_path, "replay", file, "--app", "shop:app", "--workers", "1")
    assert mended.returncode == ExitCode.DONE, mended.stderr
    assert f"{file} holds dead letters: sending the messages in them" in mended.stderr
    first = "(1.0, 7, b'k\\xff', {'trace': b'\\x00\\xff', 'empty': None}, '2026-01-01T00:00:00.123')"
    second = "(2.0, 7, None, {}, 'NaT')"
    assert scored.read_text().splitlines() == [first, second] * (2 if dead_letter else 1)


def test_dead_letters_can_be_sent_as_they_are(project: Path) -> None:
    letter = stored_letter(LETTER, "orders", "score", "2026-01-01T00:00:00Z")
    (project / "dead.ndjson").write_bytes(msgspec.json.encode(letter) + b"\n")
    arguments = ("replay", "dead.ndjson", "--app", "shop:app", "--report", "run.json")
    finished = run(project, *arguments, "--no-dead-letters")
    assert RunReport.from_json((project / "run.json").read_bytes()).refused == 1, finished.stderr
    finished = run(project, *arguments, "--speed", "100/s")
    assert RunReport.from_json((project / "run.json").read_bytes()).refused == 0, finished.stderr


def test_results_that_a_sink_refused_are_left_out_and_counted(project: Path) -> None:
    letters = [LETTER, LETTER._replace(payload=b'{"revenue":1}', partition=-1, offset=-1)]
    lines = [
        msgspec.json.encode(stored_letter(letter, "orders", "score", "2026-01-01T00:00:00Z")) for letter in letters
    ]
    (project / "dead.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    finished = run(project, "replay", "dead.ndjson", "--app", "shop:app", "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert RunReport.from_json((project / "run.json").read_bytes()).rows == 1
    assert "dead letters left out, because they hold results that a sink refused, not messages: 1\n" in finished.stderr


def test_a_file_that_holds_no_dead_letters_is_told(project: Path) -> None:
    finished = run(project, "replay", "orders.ndjson", "--app", "shop:app", "--dead-letters")
    assert finished.returncode == ExitCode.UNREACHABLE
    assert "error: line 1 of orders.ndjson is not a dead letter: " in finished.stderr


def test_a_file_that_ends_inside_a_dead_letter_is_told(project: Path) -> None:
    line = msgspec.json.encode(stored_letter(LETTER, "orders", "score", "2026-01-01T00:00:00Z"))
    (project / "dead.ndjson").write_bytes(line + b"\n" + line[:50])
    finished = run(project, "replay", "dead.ndjson", "--app", "shop:app")
    assert finished.returncode == ExitCode.UNREACHABLE
    assert "line 2 of dead.ndjson is not a dead letter" in finished.stderr
    assert "Traceback" not in finished.stderr
