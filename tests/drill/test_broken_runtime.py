"""A drill of a runtime that breaks its promises must fail, and say what is wrong.

The apps break the runtime when they are imported: each takes something away that a promise rests on.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.drill import ECHO, HEAD, drilled_app

DROPS_A_BATCH = (
    ECHO
    + """
from pythia_fast.brokers.base import Delivery
from pythia_fast.brokers.file_sink import FilePublisher

publish = FilePublisher.publish

def dropping(self, records, count, ticket):
    if ticket == 5:
        self._delivered.append(Delivery(ticket))
    else:
        publish(self, records, count, ticket)

FilePublisher.publish = dropping
"""
)

WRITES_A_BATCH_TWICE = (
    ECHO
    + """
from pythia_fast.brokers.file_sink import FilePublisher

write = FilePublisher._write

def twice(self, batches):
    if any(batch.ticket == 5 for batch in batches):
        write(self, batches)
    return write(self, batches)

FilePublisher._write = twice
"""
)

FORGETS_WHAT_IS_DONE = (
    ECHO
    + """
from pythia_fast._ext.journal import Journal
from pythia_fast.pool import rows

class Forgetful:
    def __init__(self, *arguments):
        self._journal = Journal(*arguments)

    def __getattr__(self, name):
        return getattr(self._journal, name)

    def read(self):
        return self._journal.read()._replace(rows_done=0, suspect_end=0)

rows.Journal = Forgetful
"""
)

DELIVERS_BEFORE_IT_WRITES = (
    ECHO
    + """
from pythia_fast.brokers.base import Delivery
from pythia_fast.brokers.file_sink import FilePublisher

write, turn = FilePublisher._write, FilePublisher._turn

def late(self, batches):
    kept = self.__dict__.setdefault("kept", [])
    kept += [batch._replace(records=memoryview(bytes(batch.records))) for batch in batches]
    if len(kept) > 100:
        write(self, kept[:-100])
        del kept[:-100]
    return [Delivery(batch.ticket) for batch in batches]

def turn_and_write(self):
    goes_on = turn(self)
    if not goes_on and self.__dict__.get("kept"):
        write(self, self.kept)
    return goes_on

FilePublisher._write, FilePublisher._turn = late, turn_and_write
"""
)

CONVICTS_THE_INNOCENT = (
    ECHO
    + """
from pythia_fast.pool.rows import RowKeeper

def all_of_them(self, held, rows, given, attempt, call):
    held.outcome.fail(rows, call(rows) or ValueError(), given)

RowKeeper._isolate = all_of_them
"""
)

GOES_BACK_BEHIND_WHAT_IS_COMMITTED = (
    ECHO
    + """
from pythia_fast.brokers import checkpointed_reader

def forgetful(*arguments, **options):
    checkpoint = make(*arguments, **options)
    for entry in checkpoint.files:
        entry.position, entry.tail = 0, None
    return checkpoint

make, checkpointed_reader.Checkpoint = checkpointed_reader.Checkpoint, forgetful
"""
)

ENDS_AT_A_DEATH = (
    ECHO
    + """
from pythia_fast.errors import PoolError
from pythia_fast.runtime.completion import Completion

def refuse(self):
    if self._deaths:
        raise PoolError("one died")

Completion._bury = refuse
"""
)

STAYS_WITHOUT_SUCCESSOR = (
    ECHO
    + """
from pythia_fast.runtime.completion import Completion

Completion._bury = lambda self: None
"""
)


def test_rows_that_a_sink_drops_are_lost(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, DROPS_A_BATCH, "raise")
    assert not result.passed
    assert 0 < result.lost == 4000 - result.rows_out - result.dead_lettered
    assert any("nothing is lost, but" in sentence and "partition 0 offset" in sentence for sentence in result.broken)
    assert (tmp_path / result.folder / "results.ndjson").exists()


def test_rows_that_are_written_again_are_duplicated(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, WRITES_A_BATCH_TWICE, "raise")
    assert not result.passed
    assert result.duplicated > 0
    assert (result.lost, result.rows_out) == (0, 3999 + result.duplicated)
    assert any(sentence.startswith("nothing comes twice, but") for sentence in result.broken)


def test_work_that_is_done_again_after_a_death_is_duplicated_or_never_ends(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, FORGETS_WHAT_IS_DONE, "sigsegv", "--patience", "10")
    assert not result.passed


def test_rows_that_count_as_out_before_they_are_are_lost_with_the_runtime(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, DELIVERS_BEFORE_IT_WRITES, "parent-kill")
    assert not result.passed
    assert result.lost > 0
    assert len(result.broken) == 1
    quiet = drilled_app(tmp_path, DELIVERS_BEFORE_IT_WRITES, "raise")
    assert quiet.passed, "nothing is lost where the runtime is not killed"


def test_rows_that_were_committed_and_come_again_are_duplicated(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, GOES_BACK_BEHIND_WHAT_IS_COMMITTED, "parent-kill")
    assert (result.lost, result.passed) == (0, False)
    (sentence,) = result.broken
    assert sentence.startswith("nothing before the committed position comes twice, but ")
    assert "partition 0 offset 0;" in sentence


def test_rows_that_are_given_up_with_the_guilty_one_are_innocent(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, CONVICTS_THE_INNOCENT, "raise")
    assert not result.passed
    assert any("only the guilty row is dead-lettered, but" in sentence for sentence in result.broken)


def test_a_run_that_ends_with_a_death_fails_with_what_it_said(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, ENDS_AT_A_DEATH, "kill")
    assert not result.passed
    assert result.lost > 0
    assert any("exit code 1" in sentence and "error: one died" in sentence for sentence in result.broken)


def test_a_run_that_stands_still_is_given_up(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, STAYS_WITHOUT_SUCCESSOR, "kill", "--patience", "2")
    assert not result.passed
    assert any("no row was settled for 2 seconds" in sentence for sentence in result.broken)


def test_a_fault_that_did_not_come_is_no_success(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, ECHO, "sigsegv", "--rows", "3")
    assert result.verdict == "INCONCLUSIVE"
    assert (result.rows_out, result.lost, result.broken) == (3, 0, [])
    (sentence,) = result.inconclusive
    assert "give more rows with --rows" in sentence
    assert (tmp_path / result.folder / "results.ndjson").exists()


def test_an_app_that_fails_by_itself_fails_the_drill(tmp_path: Path) -> None:
    wrong = (
        HEAD
        + """
@app.batch_handler(source=KafkaConsumer(topic="orders"), sink=FileProducer("out"), schema=Order)
def score(batch: Batch[Order]):
    return {"too short": batch["qty"][:1]}
"""
    )
    result = drilled_app(tmp_path, wrong, "kill")
    assert not result.passed
    (sentence,) = result.broken
    assert "became dead letters" in sentence
    assert "the columns of a result must be equally long" in sentence
