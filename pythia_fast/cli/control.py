"""``status``, ``pause``, ``resume``: of runs that go on, asked through the sockets in their state folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.figures import in_flight
from pythia_fast.cli.run import StateDir
from pythia_fast.cli.target import load_app
from pythia_fast.errors import ConfigError, PoolError

if TYPE_CHECKING:
    from pythia_fast.observer import Snapshot
    from pythia_fast.runtime.control import Request

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:APP", help="whose runs in this folder are meant; or give --state-dir", show_default=False
    ),
]
Handlers = Annotated[
    list[str] | None, typer.Option("--handler", metavar="NAME", help="this handler only; may be given again")
]


def status(
    target: Target = None,
    state_dir: StateDir = None,
    json: Annotated[bool, typer.Option("--json", help="for machines: a list with an object for each run")] = False,
) -> int:
    """Print how the runs of an app stand that go on in this folder.

    \b
    Examples:
      python -m pythia_fast status orders:app
      python -m pythia_fast status --state-dir /var/lib/orders --json
    """
    from msgspec import convert, to_builtins
    from msgspec.json import encode

    from pythia_fast.observer import Snapshot
    from pythia_fast.runtime.control import Request

    answers = ask_all(folder_of(target, state_dir), Request("status"))
    if json:
        print(encode([{"pid": pid, **to_builtins(found)} for pid, found in answers.items()]).decode())
        return ExitCode.DONE
    for pid, found in answers.items():
        print("\n".join(status_lines(pid, convert(found["snapshot"], Snapshot), found["app"])))
    return ExitCode.DONE


def pause(target: Target = None, handler: Handlers = None, state_dir: StateDir = None) -> int:
    """Have runs read nothing more, until ``resume``. What they have read is finished and committed.

    They stay members of their groups meanwhile, and hold their partitions. A run that is started anew reads.

    \b
    Examples:
      python -m pythia_fast pause orders:app
      python -m pythia_fast pause orders:app --handler score
    """
    return order("pause", target, handler, state_dir)


def resume(target: Target = None, handler: Handlers = None, state_dir: StateDir = None) -> int:
    """Have runs that were paused by hand read again.

    \b
    Examples:
      python -m pythia_fast resume orders:app
    """
    return order("resume", target, handler, state_dir)


def order(do: str, target: str | None, handlers: list[str] | None, state_dir: Path | None) -> int:
    """Have it done by every run."""
    from pythia_fast.runtime.control import Request

    answers = ask_all(folder_of(target, state_dir), Request(do, handlers or []))
    for pid, changed in answers.items():
        names = ", ".join(changed)
        done = "paused" if do == "pause" else "reads again"
        print(f"process {pid}: {names} {done}" if changed else f"process {pid}: as it was")
    return ExitCode.DONE


def folder_of(target: str | None, state_dir: Path | None) -> Path:
    """The state folder that is meant. Raises ConfigError, AppImportError."""
    if state_dir is not None:
        return state_dir
    if target is None:
        raise ConfigError("say whose runs are meant: MODULE:APP, or --state-dir DIR")
    return Path(".pythia") / load_app(target).name


def ask_all(folder: Path, request: Request) -> dict[int, Any]:
    """Process -> what it answered. Raises PoolError where no run answers, or one refuses."""
    from pythia_fast.runtime.control import ask, remove_stale, running

    if folder.is_dir():
        remove_stale(folder)
    answers: dict[int, Any] = {}
    for pid in running(folder):
        try:
            answer = ask(folder, pid, request)
        except OSError as error:
            raise PoolError(f"process {pid}, which runs in {folder}, does not answer: {error}") from None
        if answer.refused:
            raise ConfigError(answer.refused)
        answers[pid] = answer.result
    if not answers:
        raise PoolError(f"nothing runs with its state in {folder} (--state-dir)")
    return answers


def status_lines(pid: int, snapshot: Snapshot, app: str) -> list[str]:
    """A run for people."""
    rate = snapshot.rows / snapshot.seconds if snapshot.seconds else 0.0
    rows = f"{snapshot.rows:,} rows, {rate:,.0f} rows/s on average, {in_flight(snapshot, ', ')}"
    lost = f"{snapshot.dead_lettered:,} dead-lettered, {snapshot.crashes:,} crashes"
    lines = [f"{app}: process {pid}, {snapshot.seconds:,.0f} s: {rows}, {lost}"]
    for flow in snapshot.flow:
        circuit = f", circuit {flow.circuit}" if flow.circuit else ""
        oldest = snapshot.oldest_incomplete_s.get(flow.handler, 0.0)
        lines.append(f"  {flow.handler}: {flow.state}{circuit}, oldest row in hand {oldest:.1f} s")
    return lines + [f"  {sentence}" for sentence in snapshot.trouble]
