"""``python -m pythia_fast demo``, with few rows."""

from pathlib import Path

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.report import RunReport
from tests.support.command_line import run


def test_the_demo_generates_scores_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "out [new]"
    arguments = ("demo", "--rows", "200000", "--output", out.name)
    finished = run(tmp_path, *arguments)
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert f"plot: {out.name}/throughput.png" in finished.stderr
    assert "demo: done: the sources ended" in finished.stdout
    report = RunReport.from_json((out / "report.json").read_bytes())
    assert (report.rows, report.refused, report.dead_lettered, report.crashes) == (200_000, 0, 0, 0)
    assert report.bytes == (out / "orders-200000-seed1.ndjson").stat().st_size - 200_000
    assert (out / "throughput.png").read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in out.iterdir()}
    assert names == {"orders-200000-seed1.ndjson", "report.json", "throughput.png"}

    again = run(tmp_path, *arguments)
    assert again.returncode == ExitCode.DONE, again.stderr
    assert "generated before" in again.stderr
    assert RunReport.from_json((out / "report.json").read_bytes()).rows == 200_000


def test_a_quiet_demo_prints_nothing(tmp_path: Path) -> None:
    finished = run(tmp_path, "demo", "--rows", "1000", "--output", "out", "--quiet", "--workers", "1")
    assert (finished.returncode, finished.stdout, finished.stderr) == (ExitCode.DONE, "", "")
