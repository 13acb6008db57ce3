"""For tests of drills: a drill as a user does it, in a process of its own, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from pythia_fast.cli.drill import code_of
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.drill.result import DrillResult
from tests.support.command_line import processes_in, run

HEAD = """
import numpy as np
import msgspec
from pythia_fast import App, Batch, FileConsumer, FileProducer, KafkaConsumer, RetryPolicy

class Order(msgspec.Struct):
    qty: int

app = App("orders")
"""

ECHO = (
    HEAD
    + """
@app.batch_handler(source=KafkaConsumer(topic="orders"), sink=FileProducer("never-made.ndjson"), schema=Order)
def score(batch: Batch[Order]):
    return {"twice": batch["qty"] * 2}
"""
)


def orders(folder: Path, count: int = 4000) -> Path:
    """Messages for the apps here."""
    path = folder / "orders.ndjson"
    path.write_text("".join(f'{{"qty":{qty}}}\n' for qty in range(count)))
    return path


def drilled(folder: Path, *arguments: str) -> list[DrillResult]:
    """``drill ARGUMENTS --json`` in this folder; nothing may be left running, and the exit code must fit."""
    finished = run(folder, "drill", *arguments, "--json", "--quiet")
    assert finished.returncode in (ExitCode.DONE, ExitCode.FAILED, ExitCode.INCONCLUSIVE), finished.stderr
    results = msgspec.convert(json.loads(finished.stdout), list[DrillResult])
    assert finished.returncode == code_of(results)
    assert processes_in(folder) == []
    return results


def drilled_app(folder: Path, source: str, *arguments: str) -> DrillResult:
    """A drill of the app with this source, which is given some orders."""
    (folder / "shop.py").write_text(source)
    (result,) = drilled(folder, *arguments, "--app", "shop:app", "--input", str(orders(folder)))
    return result
