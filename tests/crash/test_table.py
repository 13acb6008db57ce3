"""The crash table: fault x moment x ordering x start method, each in a runtime of its own.

What must come of it is the same in every cell: no row is lost, none is sent twice, lanes keep their order, only the
guilty row is dead-lettered, and no process is left behind. By default each fault and each moment meets every ordering
and every start method at least once; ``PYTHIA_FAST_CRASH_TABLE=full`` runs all cells (`make crash`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import processes_in
from tests.support.kafka_libraries import ROOT

FAULTS = ("segv", "abort", "exit", "kill", "raise", "hang", "memory")
MOMENTS = ("importing", "setup", "handler", "writing", "before completion", "after completion", "teardown")
USERS_CODE = ("importing", "setup", "handler", "teardown")
ORDERINGS = ("unordered", "partition", "key")
METHODS = ("fork", "forkserver", "spawn")
ROWS, LANES, GUILTY = 240, 4, 101
ENDS = {
    "segv": "SIGSEGV",
    "abort": "SIGABRT",
    "kill": "SIGKILL",
    "exit": "exit code 7",
    "hang": "batch_deadline=2 s",
    "memory": "ran out of memory (MemoryError",
}
#: What a run ends with whose processes meet these while they start.
UNABLE = {"raise": "ValueError: guilty", "memory": "MemoryError", "hang": "was not up after setup_deadline=2 s"}


def table() -> list[tuple[str, str, str, str]]:
    """The cells to run.

    A pool that is forked imports nothing; an import that fails does so in any ordering. Only the user's code raises.
    What the kernel does for want of memory is "kill". A process that hangs is ended where there is a deadline.
    """
    cells = [
        cell
        for cell in product(FAULTS, MOMENTS, ORDERINGS, METHODS)
        if (cell[1] != "importing" or (cell[3] != "fork" and cell[2] == "unordered"))
        and (cell[0] not in ("raise", "hang") or cell[1] in USERS_CODE)
        and (cell[0], cell[1], cell[3]) != ("hang", "importing", "forkserver")
    ]
    if os.environ.get("PYTHIA_FAST_CRASH_TABLE") == "full":
        return cells
    place = {name: index for names in (FAULTS, MOMENTS, ORDERINGS, METHODS) for index, name in enumerate(names)}
    return [cell for cell in cells if (place[cell[0]] + place[cell[1]] + place[cell[2]] + place[cell[3]]) % 3 == 0]


def run(folder: Path, fault: str, moment: str, ordering: str, method: str) -> dict[str, Any]:
    """One run of tests/support/crash_app.py in a folder of its own; what it wrote down."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CRASH_FAULT": fault,
        "CRASH_MOMENT": moment,
        "CRASH_ORDERING": ordering,
        "CRASH_METHOD": method,
        "CRASH_FOLDER": str(folder),
    }
    command = [sys.executable, str(ROOT / "tests" / "support" / "crash_app.py")]
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert processes_in(folder) == []
    return dict(json.loads((folder / "result.json").read_text()))


@pytest.mark.parametrize(("fault", "moment", "ordering", "method"), table())
def test_a_process_that_ends(tmp_path: Path, fault: str, moment: str, ordering: str, method: str) -> None:
    result = run(tmp_path, fault, moment, ordering, method)
    if moment in ("importing", "setup") and (fault in UNABLE or (moment, method) == ("importing", "forkserver")):
        # Nothing was read yet: one that cannot start, or a parent of the pool that cannot, ends the run.
        assert result["error"].startswith("PoolError: "), result
        assert UNABLE.get(fault, "the pool's parent process") in result["error"]
        return
    assert result["error"] == "", result
    sent = [int(line) for line in (tmp_path / "sent").read_text().split()]
    guilty = {GUILTY} if moment == "handler" else set()
    letters = [json.loads(line) for line in (tmp_path / "dead").read_text().splitlines()]
    assert sorted(sent) == sorted(set(range(ROWS)) - guilty)
    assert [int(letter["payload"]) for letter in letters] == sorted(guilty)
    assert (result["rows"], result["dead_lettered"]) == (ROWS, len(guilty))
    if ordering != "unordered":
        for lane in range(LANES):
            of_lane = [row for row in sent if row % LANES == lane]
            assert of_lane == sorted(of_lane)
    if fault == "raise" or moment == "teardown":
        assert result["crashes"] == 0
        assert moment != "teardown" or any("teardown()" in event for event in result["events"])
    else:
        # With the batch of 16 rows in hand, then twice with the guilty one alone. Before the run, none counts.
        crashes = 3 if guilty else 0 if moment in ("importing", "setup") else 1
        # A machine that stands still for the deadline may end one more that does not hang.
        assert result["crashes"] == crashes or (fault == "hang" and result["crashes"] > crashes)
        assert any(ENDS[fault] in event for event in result["events"])
    if guilty:
        (letter,) = letters
        assert {**UNABLE, **ENDS}[fault] in letter["reason"]
        assert letter["attempts"] >= 1
        assert letter["handler"] == "Send"
