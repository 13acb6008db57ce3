"""All that is asked about an app: each source and sink on a thread of its own, so that a silent one delays nobody.

A checkup that does not come to its end in time is told as a problem; what it found until then stays. Its thread is
left to itself, and ends with the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pythia_fast.brokers.base import Sink, Source
from pythia_fast.brokers.checkup import CheckupContext, Finding, ok, problem
from pythia_fast.brokers.client_logs import quieten_clients
from pythia_fast.brokers.file_checkup import check_folder
from pythia_fast.doctor.machine_checkup import Machine, machine_findings, plan_of, version_findings, versions
from pythia_fast.errors import PythiaError
from pythia_fast.options import spell
from pythia_fast.runtime.engine import share_workers

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.registration import Handler

Role = Literal["source", "sink", "dead_letter"]


@dataclass(slots=True)
class Subject:
    """Something that was looked at, and what came of it."""

    where: str  #: ``handler 'score', source: kafka topic orders``
    findings: list[Finding] = field(default_factory=list)


def examine(
    app: App,
    handlers: Sequence[Handler],
    *,
    workers: int | Literal["auto"],
    state_dir: Path,
    timeout_s: float,
) -> list[Subject]:
    """Everything, in the order in which it is told. Raises ConfigError where the workers do not suffice."""
    quieten_clients()
    machine = Machine.here()
    shares = share_workers(handlers, workers)
    whole = Subject("this machine", [*version_findings(versions()), *machine_findings(handlers, shares, machine)])
    folder = Subject(f"state folder {state_dir}", list(check_folder(state_dir, f"state folder {state_dir}")))
    checkups = []
    for handler, share in zip(handlers, shares, strict=True):
        credit = plan_of(handler, share, len(handlers), machine).credit
        ends: tuple[tuple[Role, Source | Sink | None], ...] = (
            ("source", handler.source),
            ("sink", handler.sink),
            ("dead_letter", handler.dead_letter),
        )
        for role, end in ends:
            if end is not None:
                context = CheckupContext(
                    app=app.name,
                    handler=handler.name,
                    role=role,
                    state_dir=state_dir,
                    timeout_s=timeout_s,
                    deadline=time.monotonic() + timeout_s,
                    workers=share,
                    ordering=handler.ordering,
                    batch_size=handler.batch_size,
                    max_batch_bytes=handler.max_batch_bytes,
                    batch_deadline_s=handler.batch_deadline,
                    rows_in_hand=(share * credit + 1) * handler.batch_size,
                    transactional=handler.transactions is not None,
                )
                checkups.append(_Checkup(end, context))
    return [whole, folder, *(checkup.result() for checkup in checkups)]


class _Checkup:
    """One source or sink, asked on a thread of its own from the beginning."""

    def __init__(self, end: Source | Sink, context: CheckupContext) -> None:
        self._end = end
        self._context = context
        self._findings: list[Finding] = []
        role = context.role.replace("_", "-")
        self._where = f"handler {context.handler!r}, {role}: {end.describe()}"
        self._thread = threading.Thread(target=self._run, name=f"checkup of {end.describe()}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for finding in self._end.checkup(self._context):
                self._findings.append(finding)
        except PythiaError as error:
            self._findings.append(problem(str(error), "see there"))
        except Exception as error:  # a client's own, whose kinds nobody has counted
            self._findings.append(
                problem(f"asking ended with {type(error).__name__}: {spell(str(error), 300)}", "see the server's log")
            )

    def result(self) -> Subject:
        """Waits until its time is over."""
        self._thread.join(max(0.0, self._context.deadline - time.monotonic()))
        found = list(self._findings)
        if self._thread.is_alive():
            found.append(
                problem(
                    f"{self._end.describe()} did not answer all questions within {self._context.timeout_s:g} s",
                    "see that the server is up and reachable, or give it longer (--timeout)",
                )
            )
        elif not found:
            found.append(ok("there is nothing to ask"))
        return Subject(self._where, found)
