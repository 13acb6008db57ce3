"""examples/orders.py runs as its docstring says."""

import json
import shutil
from pathlib import Path

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.report import RunReport
from tests.support.command_line import run

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "orders.py"


def test_orders(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "examples")
    demo = run(tmp_path, "demo", "--rows", "100000", "--quiet")
    assert demo.returncode == ExitCode.DONE, demo.stderr
    finished = run(tmp_path, "run", "examples/orders.py:app", "--until-end", "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    report = RunReport.from_json((tmp_path / "run.json").read_bytes())
    assert report.rows == 100_000
    assert 0 < report.rejected < 1_000
    scored = [json.loads(line) for line in (tmp_path / "demo-output" / "scored.ndjson").read_text().splitlines()]
    assert len(scored) == report.rows - report.rejected
    assert len({row["order_id"] for row in scored}) == len(scored)
    assert all(0 < row["score"] < 18 for row in scored)
