"""One drill from its folder to its result; what happens in between is the scenario's (scenarios.py)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from pythia_fast.brokers.checkpoint import checkpoint_path, stored_positions
from pythia_fast.cli.exit_codes import ExitCode, code_of_error
from pythia_fast.drill import receipts
from pythia_fast.drill.faults import Fault
from pythia_fast.drill.interrupts import Interrupts
from pythia_fast.drill.ledger import Account, Keys, balance, keys_of
from pythia_fast.drill.process import RunProcess
from pythia_fast.drill.result import DrillResult, handler_that_fails, promises_broken
from pythia_fast.drill.rows import batch_size_for, repeated, write_input, written_to
from pythia_fast.drill.settings import FILE_GROUP, FileEnds, InputFormat, KafkaEnds, Settings
from pythia_fast.drill.topics import DrillTopics, Results
from pythia_fast.errors import PythiaError
from pythia_fast.private import PRIVATE_FOLDER_MODE, private_opener
from pythia_fast.registration import Handler
from pythia_fast.runtime.dead_letter_form import StoredLetter

#: Called again and again with the rows that are settled.
Show = Callable[[int], None]

LOG_LINES = 8  #: of a run that failed, in the report
READ_RESULTS_S = 60.0
SLOW_BYTES_PER_S, SLOWEST_BYTES_PER_S = 64_000.0, 500.0
NO_ROWS: Keys = np.empty(0, np.int64)
SIZED = 1000  #: payloads that are measured
MORE_ROWS = "give more rows with --rows"


class TooSoonError(PythiaError):
    """A run was over before the fault had come to it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all drills of one command have in common."""

    target: str
    handler: Handler
    payloads: Sequence[bytes]
    rows: int
    input_format: InputFormat
    workers: int | Literal["auto"]
    batch_deadline: float  #: where the handler has none
    patience_s: float  #: without a row, before a run is given up
    kafka_options: Mapping[str, str] | None  #: librdkafka's, bootstrap.servers among them; None: no broker was given


@dataclass
class Drill:
    """One drill while it goes on."""

    plan: Plan
    fault: Fault
    folder: Path
    show: Show
    interrupts: Interrupts
    inputs: Keys = field(default_factory=NO_ROWS.copy)
    topics: DrillTopics | None = None
    results: Results | None = None
    runs: list[RunProcess] = field(default_factory=list)
    recovered_ms: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    inconclusive: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  #: sentences about what could not be removed
    may_repeat: Keys = field(default_factory=NO_ROWS.copy)  #: rows that the next run reads again
    letter_files: dict[Path, receipts.LetterFile] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        return batch_size_for(self.plan.handler, self.plan.rows)

    @property
    def rate_limit(self) -> float | None:
        """Rows a second, so that the fault comes in the middle of a run that takes some seconds."""
        limits = [self.plan.handler.rate_limit, self.plan.rows / self.fault.pace_s if self.fault.pace_s else None]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def slow_bytes_per_s(self) -> float:
        """What a slow connection carries: a tenth of what the rows take, so that they feel it."""
        size = sum(map(len, self.plan.payloads[:SIZED])) / min(SIZED, len(self.plan.payloads))
        return min(SLOW_BYTES_PER_S, max(SLOWEST_BYTES_PER_S, size * (self.rate_limit or 0.0) / 10))

    @property
    def batch_deadline(self) -> float:
        """Of the handler while it is drilled."""
        return self.plan.handler.batch_deadline or self.plan.batch_deadline

    @property
    def output(self) -> Path:
        return self.folder / "results.ndjson"

    def letters_path(self, run: int) -> Path:
        """Where that run's dead letters go."""
        return self.folder / f"dead-letters-{run}.ndjson"

    # -- runs ------------------------------------------------------------------------------------

    def prepare(self, runs: int) -> None:
        """Have the rows where the runs read them; ``runs`` at a time at most."""
        if self.fault.kafka:
            assert self.plan.kafka_options is not None
            self.topics = DrillTopics(self.plan.kafka_options, runs)
            with self.interrupts.held_back():
                self.topics.make()
            self.topics.await_leaders()
            self.inputs = self.topics.fill(repeated(self.plan.payloads, self.plan.rows))
            self.results = Results(self.topics)
        else:
            with written_to(self.folder):
                self.inputs = write_input(self._input, self.plan.payloads, self.plan.rows, self.plan.input_format)
                # A sink that makes its file makes it for readers; this one holds what the app made of payloads.
                open(self.output, "xb", opener=private_opener).close()

    @property
    def _input(self) -> Path:
        return self.folder / "input"

    def start(
        self,
        name: str,
        *,
        run: int = 0,
        under_fault: bool = True,
        act_at: Sequence[int] = (),
        last_for_good: bool = False,
        drain_timeout: float = 30.0,
    ) -> RunProcess:
        """Run the app. Runs of the same number go on where the one before ended."""
        fault = self.fault
        settings = Settings(
            target=self.plan.target,
            handler=self.plan.handler.name,
            fault=fault.name if under_fault else "",
            folder=str(self.folder),
            state_dir=str(self._state_dir(run)),
            dead_letters=str(self.letters_path(run)),
            ends=self._ends(run),
            workers=self.plan.workers,
            batch_size=self.batch_size,
            batch_deadline=self.batch_deadline if fault.name == "hang" else None,
            rate_limit=self.rate_limit,
            drain_timeout=drain_timeout,
            slow_bytes_per_s=self.slow_bytes_per_s,
            act_at=list(act_at),
            last_for_good=last_for_good,
        )
        with self.interrupts.held_back(), written_to(self.folder):
            started = RunProcess(settings, self.folder, name)
            self.runs.append(started)
        return started

    def _state_dir(self, run: int) -> Path:
        return self.folder / f"state-{run}"

    def _ends(self, run: int) -> FileEnds | KafkaEnds:
        if self.topics is not None:
            return self.topics.ends(run)
        return FileEnds(str(self._input), self.plan.input_format, str(self.output))

    def tick(self) -> None:
        """Between two looks at what goes on."""
        if self.results is not None:
            self.results.read()
            self.show(min(len(self.results.receipts), self.plan.rows))
        else:
            self.show(min(sum(run.rows for run in self.runs), self.plan.rows))

    def wait_until(self, run: RunProcess, done: Callable[[], bool], what: str) -> None:
        """Raises PythiaError when the run fails, or settles no row for too long, before that; TooSoonError when it is
        done with all rows."""
        if run.wait_until(done, self.plan.patience_s, self.tick):
            return
        if run.ended and run.process.returncode == ExitCode.DONE:
            raise TooSoonError(f"{run.name} was done with all rows before {what}: {MORE_ROWS}")
        raise PythiaError(f"{run.name} did not come to it that {what}: {how_it_stands(run)}")

    def wait_for_end(self, run: RunProcess, expected: ExitCode = ExitCode.DONE) -> None:
        """The run ends by itself, and as it should."""
        code = run.wait(self.plan.patience_s, self.tick)
        if code != expected:
            self.broken.append(f"{run.name} ends with exit code {int(expected)}, but {how_it_stands(run)}")

    # -- what came of it -------------------------------------------------------------------------

    def letters(self) -> list[StoredLetter]:
        """Of all runs."""
        for path in sorted(self.folder.glob("dead-letters-*.ndjson")):
            self.letter_files.setdefault(path, receipts.LetterFile(path))
        return [letter for file in self.letter_files.values() for letter in file.letters()]

    def _came(self) -> tuple[Keys, Keys]:
        """Of each result and each dead letter, as far as they came."""
        out = self.results.keys if self.results is not None else receipts.receipts_in_file(self.output)
        return out, receipts.keys_of_letters(self.letters())

    def account(self) -> Account:
        """Of every row, as far as it came."""
        return balance(self.inputs, *self._came())

    def came_uncommitted(self) -> Keys:
        """Rows that came and lie at or behind the position that the run on files, which is over, has committed: the
        next one reads them again. One row that waits or is slow holds that position back, for as long as it does.

        Raises SourceError for a position that cannot be read.
        """
        stored = stored_positions(checkpoint_path(self._state_dir(0), FILE_GROUP))
        committed = keys_of(0, np.array([entry.position for entry in stored] or [0]))
        came: Keys = np.unique(np.concatenate(self._came()))
        again: Keys = came[came >= committed.min()]
        return again

    def everything_came(self) -> bool:
        """Every row is out or dead-lettered."""
        came = len(self.results.receipts) if self.results is not None else 0
        letters = receipts.keys_of_letters(self.letters())
        return came + len(letters) >= len(self.inputs) and self.account().settled

    def close(self) -> None:
        """Nothing of it is left but the folder; whatever fails, the rest is done."""
        with ExitStack() as stack:  # from the last to the first: topics go when nobody uses them any more
            stack.callback(self._remove_topics)
            if self.results is not None:
                stack.callback(self.results.close)
            for run in self.runs:
                stack.callback(run.close)

    def _remove_topics(self) -> None:
        if self.topics is not None:
            self.left += self.topics.remove()


def how_it_stands(run: RunProcess) -> str:
    """Whether the run goes on, what it settled, what it waits for and what it said last."""
    stands = f"it ended with exit code {run.process.returncode}" if run.ended else "it goes on"
    said = [line for line in run.log.splitlines() if line.strip()][-LOG_LINES:]
    parts = [f"{stands} after {run.rows:,} rows", *(f"it waits: {sentence}" for sentence in run.trouble)]
    return "; ".join(parts) + "".join(f"\n    {line}" for line in said)


def run_drill(
    plan: Plan,
    fault: Fault,
    folder: Path,
    show: Show,
    scenario: Callable[[Drill], None],
    *,
    keep: bool = False,
    tell: Callable[[str], None],
) -> DrillResult:
    """Have the scenario played, and count. The folder is made, and removed when all went well unless ``keep``, or when
    the drill cannot even begin: no broker, say.

    SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once nothing of the drill is left. ``tell``: takes a line where
    there is no result that could have it.
    """
    with written_to(folder):
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True)
    drill = Drill(plan, fault, folder.resolve(), show, Interrupts())
    try:
        with drill.interrupts.handled():
            return play_and_count(drill, folder, scenario, keep, tell)
    except BaseException:
        for sentence in drill.left:
            tell(f"drill {fault.name}: {sentence}")
        raise


def play_and_count(
    drill: Drill, folder: Path, scenario: Callable[[Drill], None], keep: bool, tell: Callable[[str], None]
) -> DrillResult:
    """See ``run_drill``; ``folder`` is the drill's, as it was given."""
    begun = time.monotonic()
    account = balance(NO_ROWS, NO_ROWS, NO_ROWS)
    stopped: PythiaError | None = None
    passed = False
    try:
        with drill.interrupts.let_through():
            play(drill, scenario)
            account = drill.account()
            drill.broken += promises_broken(account, drill.may_repeat)
            failures = [letter.reason for letter in drill.letters() if letter.error]
            drill.broken += handler_that_fails(failures, account.rows_in)
            passed = not drill.broken and not drill.inconclusive
    except PythiaError as error:
        stopped = error
    except KeyboardInterrupt:
        tell(f"drill {drill.fault.name}: it is stopped; its runs are ended, and what it made at brokers is removed")
        raise
    finally:
        drill.close()
        kept = bool(drill.runs) and (keep or not passed)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return DrillResult(
        drill=drill.fault.name,
        passed=passed,
        rows_in=account.rows_in,
        rows_out=account.rows_out,
        dead_lettered=account.dead_lettered,
        lost=len(account.lost),
        duplicated=len(account.duplicated),
        may_duplicate=len(drill.may_repeat),
        recovered_ms=drill.recovered_ms,
        seconds=time.monotonic() - begun,
        broken=drill.broken,
        inconclusive=drill.inconclusive,
        error="" if stopped is None else str(stopped),
        error_code=0 if stopped is None else code_of_error(stopped),
        notes=[*drill.notes, *drill.left],
        folder=str(folder) if kept else "",
    )


def play(drill: Drill, scenario: Callable[[Drill], None]) -> None:
    """From the beginning to the end of all runs. Raises PythiaError when none began, or results cannot be read."""
    try:
        scenario(drill)
    except PythiaError as error:
        if not drill.runs:
            raise
        (drill.inconclusive if isinstance(error, TooSoonError) else drill.broken).append(str(error))
    for run in drill.runs:
        run.close()
    if drill.results is not None:
        drill.results.read_to_end(READ_RESULTS_S)
