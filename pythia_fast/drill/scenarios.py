"""What happens in each drill, and which promises are looked at beside the account of rows."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import numpy as np

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.drill.injection import POISON, DrillError, Hit, Recovery, read_notes
from pythia_fast.drill.ledger import Keys
from pythia_fast.drill.process import RunProcess
from pythia_fast.drill.receipts import keys_of_letters
from pythia_fast.drill.result import places
from pythia_fast.drill.runner import MORE_ROWS, Drill
from pythia_fast.pool.notes import DIED
from pythia_fast.runtime.dead_letter_form import StoredLetter

ONE_ROW_BATCHES = "with batch_size=1 each row that raises is the guilty one"
OWN_DEADLINE = "or for their own calls took longer than the drill's own deadline"
#: What is in hand when the connections suffer is still settled; the pace before is that of so long.
FELT_AFTER_S, BEFORE_S = 1.0, 1.0
LOST = "kafka: lost "  #: what a run tells of partitions that the group took away without asking
STOPPED_DRAIN_S = 1.0  #: that a run gets which cannot finish anyhow


def handler_fault(drill: Drill) -> None:
    """Batches meet the fault once, one row always; the run must go on to its end."""
    drill.prepare(1)
    drill.wait_for_end(drill.start("run"))
    notes = read_notes(drill.folder)
    hits = [note for note in notes if isinstance(note, Hit)]
    first = {hit.number: hit.t for hit in reversed(hits) if hit.number >= 0}
    back = {note.number: note.t for note in notes if isinstance(note, Recovery)}
    drill.recovered_ms = [(back[number] - first[number]) * 1e3 for number in sorted(first) if number in back]
    if len(first) < drill.fault.once or not (drill.folder / POISON).exists():
        drill.inconclusive.append(
            f"the fault was to come to {drill.fault.once} batches and a row, but came to {len(first)} batches only: "
            f"{ONE_ROW_BATCHES if _has_batches_of_one_row(drill) else MORE_ROWS}"
        )
        return
    gone = set(first) - set(back)
    if gone and not _gives_up_batches(drill):
        drill.broken.append(f"what was in hand is handled again, but {len(gone)} of the batches never were")
    if drill.fault.kills:
        drill.notes.append(f"{len(hits):,} processes ended by it, {len(first)} batches once and one row always")
    else:
        drill.notes.append(f"the handler raised {len(hits):,} times, for {len(first)} batches once and one row always")
    _guilty_rows(drill, hits)


def _has_batches_of_one_row(drill: Drill) -> bool:
    """Whether the handler never has a batch that could raise for another row's sake."""
    return drill.fault.name == "raise" and drill.plan.handler.batch_size == 1


def _guilty_rows(drill: Drill, hits: list[Hit]) -> None:
    """The poisonous row is dead-lettered, and no other for its sake."""
    poison = int((drill.folder / POISON).read_text())
    by_fault = keys_of_letters(letter for letter in drill.letters() if _is_by_fault(letter))
    if poison not in by_fault:
        drill.broken.append(f"the guilty row is dead-lettered, but it is not: {places([poison])}")
    allowed = [poison]
    if _gives_up_batches(drill):
        allowed = [key for hit in hits for key in hit.keys]
        drill.notes.append("on_error gives up a batch as a whole, so its rows may go with the guilty one")
    innocent = _without_slow_ones(drill, hits, np.setdiff1d(by_fault, allowed))
    if len(innocent):
        own = f"; {OWN_DEADLINE} of {drill.batch_deadline:g} s, see --deadline" if _has_own_deadline(drill) else ""
        drill.broken.append(
            f"only the guilty row is dead-lettered, but {len(innocent):,} others were for its sake: "
            f"{places(innocent)}{own}"
        )


def _has_own_deadline(drill: Drill) -> bool:
    """Whether calls are ended by a deadline that is the drill's and not the handler's."""
    return drill.fault.name == "hang" and drill.plan.handler.batch_deadline is None


def _without_slow_ones(drill: Drill, hits: list[Hit], innocent: Keys) -> Keys:
    """But for rows whose own calls took longer than a deadline that is the drill's alone."""
    if not _has_own_deadline(drill):
        return innocent
    slow = np.setdiff1d(innocent, [key for hit in hits for key in hit.keys])
    if len(slow):
        drill.inconclusive.append(
            f"the handler has no batch_deadline, and {len(slow):,} rows that the fault did not come to took longer "
            f"than the drill's own of {drill.batch_deadline:g} s: give a longer one with --deadline: {places(slow)}"
        )
    return np.setdiff1d(innocent, slow)


def _gives_up_batches(drill: Drill) -> bool:
    """Whether the handler asked that rows go with the one that raises."""
    return drill.fault.name == "raise" and drill.plan.handler.on_error == "dead_letter"


def _is_by_fault(letter: StoredLetter) -> bool:
    return letter.reason.startswith(DIED) or letter.error == DrillError.__name__


def parent_kill(drill: Drill) -> None:
    """kill -9 of the runtime, and the next run."""
    drill.prepare(1)
    first = drill.start("first run")
    drill.wait_until(first, lambda: first.rows >= drill.plan.rows // 2, "half of the rows are settled")
    killed_at = time.monotonic()
    first.kill()
    if first.process.returncode != -signal.SIGKILL:
        drill.inconclusive.append(f"the run was over before it could be killed: {MORE_ROWS}")
    left = first.left_behind()
    if left:
        drill.broken.append(f"no process is left behind, but {len(left)} are: {', '.join(map(str, left))}")
    drill.may_repeat = drill.came_uncommitted()
    drill.notes.append(f"killed after {first.rows:,} rows; {_may_come_twice(drill)}")
    second = drill.start("second run")
    drill.wait_until(second, lambda: second.rows > 0 or second.ended, "a row is settled")
    drill.recovered_ms = [(sample.t - killed_at) * 1e3 for sample in second.samples if sample.rows][:1]
    drill.wait_for_end(second)


def _may_come_twice(drill: Drill) -> str:
    return f"{len(drill.may_repeat):,} had come out from the committed position on, and may come twice"


def disk_full(drill: Drill) -> None:
    """The disk of the results is full and has room again; is full for good, and the run is stopped; the next run."""
    drill.prepare(1)
    rows = drill.plan.rows
    first = drill.start(
        "first run", act_at=[rows // 3, rows * 2 // 3], last_for_good=True, drain_timeout=STOPPED_DRAIN_S
    )
    drill.wait_until(first, lambda: len(first.acts) > 0, "the disk is full")
    drill.wait_until(first, lambda: len(first.acts) > 1, "there is room again")
    full, room = first.acts[:2]
    meanwhile = [sample for sample in first.samples if full.t <= sample.t <= room.t]
    if not any(sample.trouble for sample in meanwhile):
        # Batches that the pool has handled wait at the sink, and are not in flight any more.
        if any(sample.batches_in_flight for sample in meanwhile):
            drill.broken.append("that the disk is full is told, but no sentence came meanwhile")
        else:
            drill.inconclusive.append(f"no row waited while the disk was full: {MORE_ROWS}")
    drill.wait_until(first, lambda: _recovered_s(first, room.t) is not None, "rows flow again")
    drill.recovered_ms = [(_recovered_s(first, room.t) or 0.0) * 1e3]
    drill.wait_until(first, lambda: len(first.acts) > 2, "the disk is full again")
    drill.wait_until(first, lambda: bool(first.trouble), "it tells that the disk is full")
    drill.notes.append(f"told: {first.trouble[0]}")
    first.stop()
    drill.wait_for_end(first, ExitCode.DEADLINE)
    drill.may_repeat = drill.came_uncommitted()
    drill.notes.append(f"stopped after {first.rows:,} rows; {_may_come_twice(drill)}")
    second = drill.start("second run", under_fault=False)
    drill.wait_for_end(second)


def _recovered_s(run: RunProcess, since: float) -> float | None:
    """From this moment to the next row that was settled, as far as it told."""
    before = max((sample.rows for sample in run.samples if sample.t <= since), default=0)
    return next((sample.t - since for sample in run.samples if sample.t > since and sample.rows > before), None)


def outage(drill: Drill) -> None:
    """The connections to the brokers suffer for some seconds, and the run goes on by itself."""
    drill.prepare(1)
    run = drill.start("run", act_at=[drill.plan.rows // 4])
    drill.wait_until(run, lambda: len(run.acts) > 1, "the connections are as before")
    begun, restored = run.acts[:2]
    before, meanwhile = _pace(run, begun.t - BEFORE_S, begun.t), _pace(run, begun.t + FELT_AFTER_S, restored.t)
    drill.notes.append(
        f"{restored.connections:,} connections hit within {restored.t - begun.t:.1f} s; "
        f"{meanwhile:,.0f} rows/s meanwhile, {before:,.0f} before"
    )
    if not restored.connections:
        drill.inconclusive.append("the run had no connections to the brokers that could be hit")
    elif meanwhile > before / 2:
        drill.inconclusive.append(f"the fault was not felt, for rows flowed on as before: {MORE_ROWS}")
    _finish(drill, [run])
    drill.broken += [f"no partition is lost, but: {told.text}" for told in run.told if LOST in told.text]
    came = _recovered_s(run, restored.t)
    drill.recovered_ms = [came * 1e3] if came is not None else []


def _pace(run: RunProcess, begin: float, end: float) -> float:
    """Rows a second that the run settled between these moments."""
    rows = [max((sample.rows for sample in run.samples if sample.t <= at), default=0) for at in (begin, end)]
    return (rows[1] - rows[0]) / (end - begin)


def _finish(drill: Drill, runs: list[RunProcess]) -> None:
    """Wait until every row came out, then ask the runs to stop."""
    drill.wait_until(runs[0], drill.everything_came, "every row comes out")
    for run in runs:
        run.stop()
        drill.wait_for_end(run)


def rebalance(drill: Drill) -> None:
    """A second member of the group comes and goes."""
    drill.prepare(2)
    first = drill.start("first run", run=0)
    drill.wait_until(first, lambda: first.rows >= drill.plan.rows // 8, "an eighth of the rows is settled")
    second = drill.start("second run", run=1)
    drill.wait_until(second, lambda: second.rows >= drill.plan.rows // 32, "it gets a thirty-second of the rows")
    second.stop()
    drill.wait_for_end(second)
    _finish(drill, [first])
    assert drill.results is not None
    drill.results.read_to_end(drill.plan.patience_s)
    drill.recovered_ms = drill.results.handovers_ms()
    drill.notes.append(
        f"{second.rows:,} of the rows went to the second run; partitions changed hands {len(drill.recovered_ms)} times"
    )


SCENARIOS: dict[str, Callable[[Drill], None]] = {
    **dict.fromkeys(("sigsegv", "kill", "hang", "oom", "raise"), handler_fault),
    **dict.fromkeys(("broker-cut", "slow-broker"), outage),
    "rebalance": rebalance,
    "disk-full": disk_full,
    "parent-kill": parent_kill,
}
