"""``python -m pythia_fast replay``: a file through a handler, at a pace."""

import json
from pathlib import Path

import pytest

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.report import RunReport
from tests.support.command_line import HEAD, TWO_HANDLERS, run

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
