"""An app whose pool processes meet their end at a chosen moment, and a script that runs it.

``CRASH_FAULT``: how a process ends (FAULTS). ``CRASH_MOMENT``: when (MOMENTS). ``CRASH_ORDERING``, ``CRASH_METHOD``: of
the handler and of the pool. ``CRASH_FOLDER``: where its state, what it sent and its report go.

In the handler the guilty row ends every process that has it in hand; at all other moments one process ends, once.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pythia_fast import App, Batch, FileProducer, MemoryConsumer
from pythia_fast.brokers.memory import MemoryMessage
from pythia_fast.errors import PythiaError
from pythia_fast.pool import process, records

ROWS = 240
LANES = 4
GUILTY = 101
MOMENTS = ("importing", "setup", "handler", "writing", "before completion", "after completion", "teardown")
FAULTS = ("segv", "abort", "exit", "kill", "raise", "hang", "memory")
DEADLINE_S = 2.0

FAULT = os.environ["CRASH_FAULT"]
MOMENT = os.environ["CRASH_MOMENT"]
FOLDER = Path(os.environ["CRASH_FOLDER"])
RUNTIME = os.getpid() if __name__ == "__main__" else int(os.environ["CRASH_RUNTIME"])


def fail() -> None:
    """End this process, raise, or do not come back."""
    if FAULT == "raise":
        raise ValueError("guilty")
    if FAULT == "memory":
        use_up_memory()
    if FAULT == "hang":
        time.sleep(3600)
    if FAULT == "exit":
        os._exit(7)
    os.kill(os.getpid(), {"segv": signal.SIGSEGV, "abort": signal.SIGABRT, "kill": signal.SIGKILL}[FAULT])
    time.sleep(60)  # a signal to oneself may come a moment later


def use_up_memory() -> None:
    """Take more than this process may have: the kernel refuses it, and MemoryError is raised."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (16 << 20), hard))
    bytearray(1 << 30)


def fail_once(moment: str) -> None:
    """Fail if this is the moment, in the first process that comes here."""
    if moment != MOMENT or os.getpid() == RUNTIME:
        return
    try:
        os.close(os.open(FOLDER / "failed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    fail()


def before(name: str, moment: str, owner: Any) -> None:
    """Have a function of the pool process fail before it does its work."""
    original = getattr(owner, name)

    def failing(*arguments: Any, **named: Any) -> Any:
        fail_once(moment)
        return original(*arguments, **named)

    setattr(owner, name, failing)


class FailingArena:
    """The arena of a pool process, with a completion that fails."""

    def __init__(self, arena: Any) -> None:
        self._arena = arena

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arena, name)

    def complete(self, *arguments: Any) -> None:
        fail_once("before completion")
        self._arena.complete(*arguments)
        fail_once("after completion")


original_handle = process._handle
process._handle = lambda keeper, arena, *rest: original_handle(keeper, FailingArena(arena), *rest)
before("_write", "writing", records.RecordWriter)
if os.getpid() != RUNTIME:
    fail_once("importing")

app = App("crash")


@app.batch_handler(
    source=MemoryConsumer(
        [MemoryMessage(b"%d" % row, key=b"%d" % (row % LANES), partition=row % LANES) for row in range(ROWS)],
        partitions=LANES,
    ),
    sink=FileProducer(FOLDER / "sent"),
    dead_letter=FileProducer(FOLDER / "dead"),
    decoder="raw",
    batch_size=16,
    ordering=os.environ["CRASH_ORDERING"],  # type: ignore[arg-type]
    batch_deadline=DEADLINE_S if (FAULT, MOMENT) == ("hang", "handler") else None,
    # Short only where the run ends by it: a slow machine cannot make anything else of it.
    setup_deadline=DEADLINE_S if FAULT == "hang" and MOMENT in ("importing", "setup") else 300.0,
)
class Send:
    """Sends each row."""

    def setup(self) -> None:
        fail_once("setup")

    def __call__(self, batch: Batch[Any]) -> list[bytes]:
        payloads = batch["payload"].tolist()
        if MOMENT == "handler" and b"%d" % GUILTY in payloads:
            fail()
        return payloads

    def teardown(self) -> None:
        fail_once("teardown")


def main() -> int:
    """Run it and write down what came of it."""
    result: dict[str, Any] = {"error": "", "events": []}

    class Remember:
        def started(self, info: object) -> None:
            pass

        def sample(self, snapshot: object) -> None:
            pass

        def event(self, text: str) -> None:
            result["events"].append(text)

        def finished(self, report: Any) -> None:
            result.update(rows=report.rows, crashes=report.crashes, dead_lettered=report.dead_lettered)

    try:
        app.run(
            workers=2,
            until="end",
            state_dir=FOLDER / "state",
            observer=Remember(),
            start_method=os.environ["CRASH_METHOD"],  # type: ignore[arg-type]
        )
    except PythiaError as error:
        result["error"] = f"{type(error).__name__}: {error}"
    (FOLDER / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    os.environ["CRASH_RUNTIME"] = str(os.getpid())
    sys.exit(main())
