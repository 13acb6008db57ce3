"""For tests of the command line: apps to run, and the command in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

import pythia_fast

#: The commands run in other folders, and find the package that is under test.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(pythia_fast.__file__).parent.parent)}

HEAD = """
import msgspec
from pythia_fast import App, Batch, FileConsumer, FileProducer, KafkaConsumer, MemoryConsumer

class Order(msgspec.Struct):
    price: float
    qty: int

app = App("orders")
"""

TWO_HANDLERS = (
    HEAD
    + """
@app.batch_handler(source=FileConsumer(path="orders.ndjson"), sink=FileProducer(path="scored.ndjson"), schema=Order)
def score(batch: Batch[Order]):
    batch.reject(batch["qty"] == 3, reason="odd")
    return {"revenue": batch["price"] * batch["qty"]}

@app.batch_handler(source=FileConsumer(path="orders.ndjson"), schema=Order)
def count(batch: Batch[Order]) -> None:
    pass
"""
)


def command(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "pythia_fast", *arguments]


def run(
    project: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in this folder and wait for its end; ``environment``: variables besides those of this process."""
    variables = {**ENVIRONMENT, **(environment or {})}
    return subprocess.run(
        command(*arguments), cwd=project, env=variables, capture_output=True, text=True, check=False, timeout=100
    )


@contextlib.contextmanager
def running(project: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running in this folder; killed with its pool if it still is at the end."""
    with subprocess.Popen(
        command(*arguments),
        cwd=project,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes that work in this folder: what a command that ended may not leave behind."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder:
                found.append(" ".join(process.cmdline()))
    return found


def start_in_shell(redirected: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Have a shell start this with its streams redirected so; to its end."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
