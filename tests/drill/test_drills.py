"""Each drill that needs no broker, done for real: to the demo, and to apps of users."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.support.drill import ECHO, HEAD, drilled, drilled_app

ROWS = 40_000
HANDLER_FAULTS = {"sigsegv": 3, "kill": 3, "hang": 1, "oom": 2, "raise": 3}


@pytest.mark.parametrize("fault", HANDLER_FAULTS)
def test_a_fault_of_the_handler_costs_one_row(tmp_path: Path, fault: str) -> None:
    (result,) = drilled(tmp_path, fault, "--rows", str(ROWS), "--deadline", "0.5")
    assert result.broken == []
    assert (result.rows_in, result.rows_out, result.dead_lettered) == (ROWS, ROWS - 1, 1)
    assert (result.lost, result.duplicated) == (0, 0)
    assert len(result.recovered_ms) == HANDLER_FAULTS[fault]
    assert all(0 < value < 10_000 for value in result.recovered_ms)
    if fault == "hang":
        assert result.recovered_ms[0] >= 500
    assert [path.name for path in (tmp_path / "drill-output").iterdir()] == [f"orders-{ROWS}-seed1.ndjson"]


def test_parent_kill_loses_nothing(tmp_path: Path) -> None:
    (result,) = drilled(tmp_path, "parent-kill", "--rows", str(ROWS))
    assert result.broken == []
    assert (result.rows_in, result.lost, result.dead_lettered) == (ROWS, 0, 0)
    assert result.rows_out == ROWS + result.duplicated
    assert result.duplicated <= result.may_duplicate < ROWS // 2
    assert len(result.recovered_ms) == 1


def test_disk_full_is_told_and_waited_out(tmp_path: Path) -> None:
    (result,) = drilled(tmp_path, "disk-full", "--rows", str(ROWS))
    assert result.broken == []
    assert (result.rows_in, result.lost, result.dead_lettered) == (ROWS, 0, 0)
    assert "File too large; trying again" in result.notes[0]
    assert result.notes[1].endswith(
        f" {result.may_duplicate:,} had come out from the committed position on, and may come twice"
    )
    assert len(result.recovered_ms) == 1


WAITS = (
    HEAD
    + """
retry = RetryPolicy(max_attempts=3, backoff=3.0)

@app.batch_handler(source=KafkaConsumer(topic="orders"), sink=FileProducer("out"), schema=Order, retry=retry)
def score(batch: Batch[Order]):
    batch.retry((batch["qty"] % 1000 == 8) & (batch.attempts < 2))
    return {"twice": batch["qty"] * 2}
"""
)
IS_SLOW = (
    HEAD
    + """
import time
from pathlib import Path

@app.batch_handler(source=KafkaConsumer(topic="orders"), sink=FileProducer("out"), schema=Order)
def score(batch: Batch[Order]):
    if not Path("slept").exists():
        Path("slept").touch()
        time.sleep(4)
    return {"twice": batch["qty"] * 2}
"""
)


@pytest.mark.parametrize(
    ("fault", "app"),
    [("parent-kill", WAITS), ("parent-kill", IS_SLOW), ("disk-full", WAITS)],
    ids=["killed, waits", "killed, slow", "disk full, waits"],
)
def test_what_lies_behind_a_row_that_waits_or_is_slow_may_come_twice(tmp_path: Path, fault: str, app: str) -> None:
    """It holds the committed position back for as long as it is not done."""
    result = drilled_app(tmp_path, app, fault, "--rows", "20000")
    assert (result.broken, result.inconclusive) == ([], [])
    assert result.passed
    assert (result.lost, result.dead_lettered) == (0, 0)
    assert 0 < result.duplicated == result.may_duplicate


@pytest.mark.parametrize("fault", ["sigsegv", "raise"])
def test_an_app_of_a_user_is_drilled_with_the_messages_he_gives(tmp_path: Path, fault: str) -> None:
    result = drilled_app(tmp_path, ECHO, fault)
    assert result.broken == []
    assert (result.rows_in, result.rows_out, result.dead_lettered) == (4000, 3999, 1)
    assert not (tmp_path / "never-made.ndjson").exists()
    assert not (tmp_path / ".pythia").exists()


def test_an_app_whose_import_starts_threads_is_drilled_in_interpreters_of_its_own(tmp_path: Path) -> None:
    threads = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    result = drilled_app(tmp_path, ECHO + threads, "kill")
    assert result.broken == []
    assert (result.rows_out, result.dead_lettered) == (3999, 1)
    assert len(result.recovered_ms) == 3


def test_batches_that_wait_for_a_backoff_are_known_to_be_handled_again(tmp_path: Path) -> None:
    retrying = ECHO.replace("schema=Order", "schema=Order, retry=RetryPolicy(3, backoff=0.2, retry_on=Exception)")
    result = drilled_app(tmp_path, retrying, "raise")
    assert result.broken == []
    assert len(result.recovered_ms) == 3


def test_what_the_app_rejects_itself_is_dead_lettered_beside_the_guilty_row(tmp_path: Path) -> None:
    rejecting = (
        HEAD
        + """
@app.batch_handler(source=KafkaConsumer(topic="orders"), sink=FileProducer("out"), schema=Order, ordering="partition")
class Score:
    def setup(self):
        self.factor = 2

    def __call__(self, batch: list[Order]):
        return [{"twice": order.qty * self.factor} if order.qty % 100 else object() for order in batch]
"""
    )
    result = drilled_app(tmp_path, rejecting, "sigsegv", "--workers", "1")
    assert result.broken == []
    assert result.rows_in == 4000
    assert result.dead_lettered in (40, 41)
    assert result.rows_out == 4000 - result.dead_lettered


def test_a_handler_that_gives_up_whole_batches_may_do_so(tmp_path: Path) -> None:
    whole = ECHO.replace("schema=Order)", 'schema=Order, on_error="dead_letter")')
    result = drilled_app(tmp_path, whole, "raise")
    assert result.broken == []
    assert result.dead_lettered > 1
    assert result.rows_out + result.dead_lettered == 4000


@pytest.mark.parametrize("most", [1, 2])
def test_processes_that_leave_after_a_batch_or_two_meet_the_fault(tmp_path: Path, most: int) -> None:
    leaving = ECHO.replace("schema=Order)", f"schema=Order, max_batches_per_process={most})")
    result = drilled_app(tmp_path, leaving, "kill")
    assert (result.broken, result.inconclusive) == ([], [])
    assert (result.rows_out, result.dead_lettered) == (3999, 1)
    assert len(result.recovered_ms) == 3


TAKES_SECONDS = (
    HEAD
    + """
import time

@app.batch_handler(source=KafkaConsumer(topic="orders"), sink=FileProducer("out"), schema=Order)
def score(batch: Batch[Order]):
    if (batch["qty"] == 3900).any():  # when the fault has come to all that it comes to
        time.sleep(2.5)
    return {"twice": batch["qty"] * 2}
"""
)


def test_a_call_that_takes_longer_than_the_drills_own_deadline_is_no_broken_promise(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, TAKES_SECONDS, "hang", "--deadline", "1")
    assert (result.broken, result.verdict) == ([], "INCONCLUSIVE")
    assert (result.rows_out, result.dead_lettered) == (3998, 2)
    (sentence,) = result.inconclusive
    assert sentence.startswith("the handler has no batch_deadline, and 1 rows that the fault did not come to took ")
    assert "longer than the drill's own of 1 s: give a longer one with --deadline" in sentence
    (own,) = drilled(tmp_path, "hang", "--deadline", "4", "--app", "shop:app", "--input", "orders.ndjson")
    assert own.passed


def test_a_handler_of_single_rows_cannot_raise_for_another_row(tmp_path: Path) -> None:
    single = ECHO.replace("schema=Order)", "schema=Order, batch_size=1)")
    result = drilled_app(tmp_path, single, "raise", "--rows", "500")
    assert result.broken == []
    (sentence,) = result.inconclusive
    assert sentence.endswith("came to 0 batches only: with batch_size=1 each row that raises is the guilty one")
    assert (result.rows_out, result.dead_lettered) == (500, 0)


def test_files_of_the_app_itself_are_its_messages(tmp_path: Path) -> None:
    reading = ECHO.replace('KafkaConsumer(topic="orders")', 'FileConsumer("orders-*.ndjson")')
    (tmp_path / "shop.py").write_text(reading)
    (tmp_path / "orders-1.ndjson").write_text('{"qty":1}\n{"qty":2}\n')
    (result,) = drilled(tmp_path, "kill", "--app", "shop:app", "--rows", "3001", "--keep")
    assert result.broken == []
    assert (result.rows_in, result.rows_out) == (3001, 3000)
    assert {"input", "results.ndjson", "dead-letters-0.ndjson", "run.log"} <= {
        path.name for path in (tmp_path / result.folder).iterdir()
    }
    assert not (tmp_path / ".pythia").exists()


def test_what_a_drill_keeps_is_its_users_alone(tmp_path: Path) -> None:
    result = drilled_app(tmp_path, ECHO, "kill", "--keep")
    folder = tmp_path / result.folder
    kept = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert {"input", "results.ndjson", "run.log", "run-settings.json", "hits", "poison"} <= set(kept)
    assert {name: oct(mode) for name, mode in kept.items() if mode & 0o077} == {}


def test_a_handler_that_retries_gives_up_the_guilty_row_alone(tmp_path: Path) -> None:
    retrying = ECHO.replace("schema=Order)", "schema=Order, retry=RetryPolicy(max_attempts=3, retry_on=(Exception,)))")
    result = drilled_app(tmp_path, retrying, "raise")
    assert result.broken == []
    assert (result.rows_out, result.dead_lettered) == (3999, 1)
