"""Runs of an app of benchmarks/apps over a Kafka topic, each in a group of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

from pythia_fast.report import RunReport
from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parent.parent
WORKERS = 2

groups = (f"bench-{number}" for number in count())


def start_app(app: str, broker: KafkaBroker, folder: Path, *options: str, **settings: str) -> subprocess.Popen[bytes]:
    """``run`` of ``MODULE:app`` of benchmarks/apps; what its processes measure they leave in the folder.

    ``settings``: what the app reads from its environment.
    """
    folder.mkdir()
    environment = {
        **os.environ,
        **settings,
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "CONSUMER_GROUP": next(groups),
        "BENCH_RESULTS": str(folder),
    }
    command = [sys.executable, "-m", "pythia_fast", "run", f"benchmarks.apps.{app}"]
    command += ["--workers", str(WORKERS), "--state-dir", str(folder / "state"), "--quiet", *options]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def run_app(app: str, broker: KafkaBroker, folder: Path, rows: int, **settings: str) -> tuple[float, RunReport]:
    """One run over a whole topic of so many rows: seconds from the first batch to the last, and its report."""
    report_path = folder.parent / f"{folder.name}.json"
    with start_app(app, broker, folder, "--until-end", "--report", str(report_path), **settings) as process:
        try:
            assert process.wait(300) == 0
        finally:
            process.kill()
    report = RunReport.from_json(report_path.read_bytes())
    assert (report.rows, report.dead_lettered) == (rows, 0)
    seen = [result for result in results(folder) if result["rows"]]
    assert sum(result["rows"] for result in seen) == rows
    nanoseconds = max(result["last_ns"] for result in seen) - min(result["first_ns"] for result in seen)
    return nanoseconds / 1e9, report


def results(folder: Path) -> list[dict[str, Any]]:
    """What the pool processes left."""
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]
