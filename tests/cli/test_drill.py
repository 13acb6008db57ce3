"""``python -m pythia_fast drill``: how it is called, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pythia_fast.cli.drill import code_of
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.drill.faults import FAULTS
from pythia_fast.drill.result import DrillResult
from tests.support.command_line import ENVIRONMENT, TWO_HANDLERS, run
from tests.support.drill import ECHO

PASS = DrillResult(drill="kill", passed=True)
FAIL = DrillResult(drill="kill", passed=False, broken=["it is so"])
INCONCLUSIVE = DrillResult(drill="kill", passed=False, inconclusive=["too few rows"])
ERROR = DrillResult(drill="kill", passed=False, error="no broker", error_code=ExitCode.UNREACHABLE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(ECHO)
    (tmp_path / "two.py").write_text(TWO_HANDLERS)
    (tmp_path / "stops.py").write_text(ECHO.replace("schema=Order)", 'schema=Order, on_error="stop")'))
    (tmp_path / "orders.ndjson").write_text('{"qty":1}\n{"qty":2}\n')
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sigsev"], "drill: FAULT='sigsev'; did you mean 'sigsegv'?"),
        (["everything"], "drill: FAULT='everything'; there are: all, broker-cut, disk-full"),
        (["kill", "--app", "shop:app"], "handler 'score' reads kafka topic orders, which a drill leaves alone"),
        (["kill", "--app", "two:app"], "choose with --handler; there are: score, count"),
        (["kill", "--app", "shop:app", "--handler", "scores"], "has no handler 'scores'; did you mean 'score'?"),
        (["kill", "--app", "shop:app", "--input", "none"], "cannot read none: No such file"),
        (["rebalance"], "drill rebalance: it needs brokers, on which it makes topics of its own: give --bootstrap"),
        (["raise", "--app", "stops:app", "--input", "orders.ndjson"], "has on_error='stop'"),
        (["kill", "--rows", "0"], "'0' is not a number of rows"),
        (["hang", "--deadline", "0"], "'--deadline': it is 0; write a number of seconds above that"),
        (["kill", "--patience", "0"], "'--patience': it is 0; write a number of seconds above that"),
        (["kill", "--input-format", "csv"], "--input-format"),
        (["kill", "--bootstrap", "x"], "did you mean --bootstrap-servers?"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(project: Path, arguments: list[str], message: str) -> None:
    finished = run(project, "drill", *arguments)
    assert finished.returncode == ExitCode.USAGE, finished.stderr
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""


@pytest.mark.parametrize("app", ["shop:app", "pythia_fast.demo.orders:app"])
def test_brokers_are_those_of_the_environment_where_no_others_are_given(project: Path, app: str) -> None:
    arguments = ("drill", "broker-cut", "--app", app, "--input", "orders.ndjson")
    finished = run(project, *arguments, environment={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert finished.returncode == ExitCode.UNREACHABLE, finished.stderr
    assert "drill: topics of its own at 127.0.0.1:1, of KAFKA_BOOTSTRAP_SERVERS" in finished.stderr
    assert finished.stdout.startswith("drill broker-cut: ERROR  Kafka at 127.0.0.1:1: ")


def test_brokers_of_the_environment_are_left_alone_where_the_source_has_others(project: Path) -> None:
    (project / "own.py").write_text(ECHO.replace('topic="orders"', 'topic="orders", bootstrap_servers="127.0.0.1:2"'))
    arguments = ("drill", "broker-cut", "--app", "own:app", "--input", "orders.ndjson")
    finished = run(project, *arguments, environment={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert finished.returncode == ExitCode.USAGE, finished.stderr
    assert "give --bootstrap-servers HOST:PORT" in finished.stderr


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([PASS, PASS], ExitCode.DONE),
        ([PASS, INCONCLUSIVE], ExitCode.INCONCLUSIVE),
        ([INCONCLUSIVE, ERROR, PASS], ExitCode.UNREACHABLE),
        ([INCONCLUSIVE, FAIL, ERROR, PASS], ExitCode.FAILED),
    ],
)
def test_the_worst_drill_counts(results: list[DrillResult], code: ExitCode) -> None:
    assert code_of(results) == code


ONLY_TWO = """
import sys
from pythia_fast.cli.main import main
from pythia_fast.drill import faults

faults.FAULTS = {name: faults.FAULTS[name] for name in ("broker-cut", "raise")}
sys.exit(main(sys.argv[1:]))
"""


def test_a_drill_that_cannot_begin_costs_no_other(project: Path) -> None:
    arguments = ["drill", "all", "--rows", "3000", "--bootstrap-servers", "127.0.0.1:1", "--json", "--quiet"]
    line = [sys.executable, "-c", ONLY_TWO, *arguments]
    finished = subprocess.run(line, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert finished.returncode == ExitCode.UNREACHABLE, finished.stderr
    assert finished.stderr == ""
    cut, raised = json.loads(finished.stdout)
    assert (cut["drill"], cut["passed"], cut["error_code"]) == ("broker-cut", False, ExitCode.UNREACHABLE)
    assert cut["error"].startswith("Kafka at 127.0.0.1:1: ")
    assert (raised["drill"], raised["passed"], raised["rows_out"], raised["error"]) == ("raise", True, 2999, "")
    assert [path.name for path in (project / "drill-output").iterdir()] == ["orders-3000-seed1.ndjson"]


def test_a_drill_without_rows_enough_is_inconclusive(project: Path) -> None:
    finished = run(project, "drill", "kill", "--app", "shop:app", "--input", "orders.ndjson", "--rows", "3")
    assert finished.returncode == ExitCode.INCONCLUSIVE, finished.stdout
    assert finished.stdout.startswith("drill kill: INCONCLUSIVE  rows in 3  rows out 3  ")
    assert "  inconclusive: the fault was to come to 3 batches and a row, but came to " in finished.stdout


def test_that_large_samples_are_repeated_less_often_is_told(project: Path) -> None:
    (project / "large.ndjson").write_text('{"qty":1,"note":"' + "x" * 1_000_000 + '"}\n')
    given = ["--app", "shop:app", "--input", "large.ndjson", "--bootstrap-servers", "127.0.0.1:1"]
    finished = run(project, "drill", "broker-cut", *given)
    assert finished.returncode == ExitCode.UNREACHABLE, finished.stderr
    told = "drill: 63 rows, because the samples are repeated to 64 MB at most; --rows asks for more"
    assert told in " ".join(finished.stderr.split())


@pytest.mark.parametrize("given", [[], ["--app", "shop:app", "--input", "orders.ndjson", "--rows", "200000"]])
def test_a_folder_that_has_no_room_is_told(project: Path, given: list[str]) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
    limited += "from pythia_fast.cli.main import main; sys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", limited, "drill", "kill", *given]
    finished = subprocess.run(line, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert finished.returncode == ExitCode.USAGE, finished.stderr
    told = " ".join((finished.stdout + finished.stderr).split())
    assert "cannot write what a drill works with to " in told
    assert ": File too large; choose another folder with --output" in told
    assert "Traceback" not in told
    assert [path.name for path in project.glob("drill-output/kill-*")] == []


def test_an_app_that_cannot_be_imported(project: Path) -> None:
    finished = run(project, "drill", "kill", "--app", "shops:app")
    assert finished.returncode == ExitCode.IMPORT
    assert "did you mean shop.py?" in finished.stderr


def test_the_help_has_every_fault_and_examples(project: Path) -> None:
    finished = run(project, "drill", "--help")
    assert finished.returncode == ExitCode.DONE
    for text in (*FAULTS, "Examples:", "drill broker-cut --bootstrap-servers localhost:9092"):
        assert text in finished.stdout


def test_a_drill_that_passes_is_told_on_one_line(project: Path) -> None:
    finished = run(project, "drill", "raise", "--app", "two:app", "--handler", "count", "--input", "orders.ndjson")
    assert finished.returncode == ExitCode.FAILED, "the orders of this app have a price, these have none"
    (project / "priced.ndjson").write_text('{"qty":1,"price":1.5}\n{"qty":3,"price":2.5}\n')
    finished = run(project, "drill", "raise", "--app", "two:app", "--handler", "count", "--input", "priced.ndjson")
    assert finished.returncode == ExitCode.DONE, finished.stdout
    first, second = finished.stdout.splitlines()
    assert first.startswith("drill raise: PASS  rows in 2,000  rows out 1,999  dead-lettered 1  lost 0  duplicated 0  ")
    assert "recovered in " in first
    assert second.startswith("  the handler raised ")
