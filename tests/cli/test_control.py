"""``python -m pythia_fast status``, ``pause``, ``resume``: a run asked from outside."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.command_line import HEAD, run, running

FOLLOWS = (
    HEAD
    + """
@app.batch_handler(source=FileConsumer(path="a.ndjson", follow=True), sink=FileProducer(path="a.out"), schema=Order,
                   batch_timeout=0.01)
def first(batch: Batch[Order]):
    return {"qty": batch["qty"]}

@app.batch_handler(source=FileConsumer(path="b.ndjson", follow=True), sink=FileProducer(path="b.out"), schema=Order,
                   batch_timeout=0.01)
def second(batch: Batch[Order]):
    return {"qty": batch["qty"]}
"""
)


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def add(path: Path, rows: int) -> None:
    with path.open("a") as file:
        file.writelines(f'{{"price":1,"qty":{i}}}\n' for i in range(rows))


def rows_out(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "live.py").write_text(FOLLOWS)
    for name in ("a.ndjson", "b.ndjson"):
        add(tmp_path / name, 10)
    return tmp_path


@pytest.fixture
def live(project: Path) -> Iterator[int]:
    """The process of a run that goes on; stopped at the end, when nothing of it may be left."""
    with running(project, "run", "live:app", "--workers", "2", "--quiet") as process:
        wait_for(lambda: rows_out(project / "a.out") == rows_out(project / "b.out") == 10)
        yield process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == ExitCode.DONE
    assert not list((project / ".pythia" / "orders").glob("control-*"))


def flow_of(project: Path) -> dict[str, str]:
    (found,) = json.loads(run(project, "status", "live:app", "--json").stdout)
    return {handler: state for handler, state, _circuit in found["snapshot"]["flow"]}


def test_a_handler_is_paused_and_resumed_while_the_other_goes_on(project: Path, live: int) -> None:
    paused = run(project, "pause", "live:app", "--handler", "first")
    assert (paused.returncode, paused.stdout) == (ExitCode.DONE, f"process {live}: first paused\n"), paused.stderr
    wait_for(lambda: flow_of(project) == {"first": "paused", "second": "open"})
    add(project / "a.ndjson", 5)
    add(project / "b.ndjson", 5)
    wait_for(lambda: rows_out(project / "b.out") == 15)
    told = run(project, "status", "live:app").stdout
    assert f"orders: process {live}, " in told
    assert "  first: paused, oldest row in hand" in told
    assert "first: reading is paused: by hand; `python -m pythia_fast resume` ends it" in told
    assert rows_out(project / "a.out") == 10
    assert run(project, "pause", "live:app", "--handler", "first").stdout == f"process {live}: as it was\n"
    resumed = run(project, "resume", "--state-dir", ".pythia/orders")
    assert (resumed.returncode, resumed.stdout) == (ExitCode.DONE, f"process {live}: first reads again\n")
    wait_for(lambda: rows_out(project / "a.out") == 15)
    assert flow_of(project) == {"first": "open", "second": "open"}


def test_a_run_that_is_paused_by_hand_drains_when_it_is_stopped(project: Path, live: int) -> None:
    assert run(project, "pause", "live:app").stdout == f"process {live}: first, second paused\n"
    wait_for(lambda: set(flow_of(project).values()) == {"paused"})


@pytest.mark.usefixtures("live")
def test_a_handler_that_does_not_run_is_named(project: Path) -> None:
    refused = run(project, "pause", "live:app", "--handler", "frist")
    assert refused.returncode == ExitCode.USAGE
    assert "no handler 'frist' runs here; did you mean 'first'?" in refused.stderr


def test_where_nothing_runs_that_is_said(project: Path) -> None:
    for command in ("status", "pause", "resume"):
        refused = run(project, command, "live:app")
        assert refused.returncode == ExitCode.FAILED
        assert "nothing runs with its state in .pythia/orders (--state-dir)" in refused.stderr
        assert run(project, command).returncode == ExitCode.USAGE
