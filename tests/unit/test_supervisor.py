"""How deaths are told, and when restarting stops."""

from __future__ import annotations

import signal
from typing import ClassVar

import pytest

from pythia_fast.dead_letter_limit import DeadLetterLimit
from pythia_fast.errors import ConfigError, PoolError
from pythia_fast.pool import supervisor as supervisor_module
from pythia_fast.pool.messages import BootFailed, Died, Launched, TeardownFailed
from pythia_fast.pool.obituary import Obituary, describe_status
from pythia_fast.pool.restart_budget import DEATHS_IN_VAIN, ROWS_IN_A_ROW
from pythia_fast.pool.supervisor import Supervisor
from pythia_fast.runtime.completion import Counts
from pythia_fast.runtime.shutdown import StopRequest


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "ended with exit code 0"),
        (7, "ended with exit code 7"),
        (4, "ended with exit code 4"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGKILL, "was killed by SIGKILL, likely by the kernel for want of memory or by hand"),
        (-99, "was killed by signal 99"),
    ],
)
def test_a_status_reads_as_a_sentence(status, text):
    assert describe_status(status) == text


class FakeNursery:
    pid = 1

    def __init__(self):
        self.packets = []
        self.launched = []

    def launch(self, pool, worker):
        self.launched.append((pool, worker))

    def ping(self, now):
        return 0.0

    def signal(self, pid, number):
        raise AssertionError("nobody is to be ended")

    def children_ended_unseen(self):
        return False

    def receive(self, timeout):
        packets, self.packets = self.packets, []
        return packets


class FakeRun:
    class handler:  # noqa: N801 - stands for an attribute
        name, spares, batch_deadline, setup_deadline, max_memory_mb = "score", 0, None, None, None
        dead_letter_limit = DeadLetterLimit()

    class arena:  # noqa: N801
        n_workers, n_spares = 2, 0

        @staticmethod
        def worker_facts(worker):
            class Facts:
                booted = worker == 0

            return Facts

        @staticmethod
        def stop_worker(worker):
            pass

        returned: ClassVar[list[int]] = []

        @classmethod
        def return_taken(cls, worker):
            cls.returned.append(worker)

    pool, workers, started = 0, 2, True

    def __init__(self):
        self.deaths = []
        self.counts = Counts()
        self.found = ("nothing", False)

    def found_by_death(self, worker):
        return self.found

    def died(self, worker, obituary):
        self.deaths.append((worker, obituary))


def no_other_nursery():
    raise PoolError("none is to be made")


def make():
    nursery, run, lines = FakeNursery(), FakeRun(), []
    return nursery, run, lines, Supervisor(nursery, [run], lines.append, no_other_nursery)


def test_a_process_that_dies_before_the_run_has_begun_is_not_taken_for_one_that_is_up():
    nursery, run, _, supervisor = make()
    run.started = False
    run.arena.returned.clear()
    nursery.packets = [Launched(0, 1, 4711), Died(0, 1, 4711, -11)]
    supervisor.serve(0)
    assert (run.deaths, run.arena.returned, nursery.launched) == ([], [1], [(0, 1)])


def test_a_death_is_told_and_handed_to_its_handler():
    nursery, run, lines, supervisor = make()
    nursery.packets = [Launched(0, 0, 4711), Died(0, 0, 4711, -11, "stacks")]
    supervisor.serve(0)
    assert run.deaths == [(0, Obituary("was killed by SIGSEGV", "stacks"))]
    assert lines == ["score: process 0 (pid 4711) was killed by SIGSEGV; its batches are handled again"]
    assert supervisor.processes() == [("nursery", 1)]


def test_the_successor_of_one_that_was_not_up_waits_a_little(monkeypatch):
    monkeypatch.setattr(supervisor_module, "FIRST_SETUP_WAIT_S", 1000.0)
    monkeypatch.setattr(supervisor_module, "LONGEST_SETUP_WAIT_S", 2000.0)
    now = 0.0
    monkeypatch.setattr(supervisor_module.time, "monotonic", lambda: now)
    nursery, _, lines, supervisor = make()
    nursery.packets = [Launched(0, 1, 4711), Died(0, 1, 4711, 3)]
    supervisor.serve(0)
    assert lines == ["score: process 1 (pid 4711) ended with exit code 3; it was not up yet; another one is made"]
    supervisor.launch(0, 1)  # as the completion thread does once it has handed on what the place held
    now = 999.0
    supervisor.serve(0)
    assert nursery.launched == []
    now = 1000.0
    supervisor.serve(0)
    assert nursery.launched == [(0, 1)]


def test_a_death_before_the_run_begins_is_replaced_at_once():
    nursery, run, _, supervisor = make()
    run.started = False
    nursery.packets = [Died(0, 0, 10, -9)]
    supervisor.serve(0)
    assert nursery.launched == [(0, 0)]
    assert run.deaths == []


def die(supervisor, nursery, times, pool=0):
    for _ in range(times):
        nursery.packets = [Died(pool, 0, 10, -9)]
        supervisor.serve(0)


def in_vain(run):
    return [obituary.in_vain for _, obituary in run.deaths]


def test_deaths_that_get_nowhere_are_told_to_the_handlers_run():
    nursery, run, _, supervisor = make()
    die(supervisor, nursery, DEATHS_IN_VAIN)
    assert not any(in_vain(run))
    die(supervisor, nursery, 1)
    assert in_vain(run)[-1].startswith("21 of its processes died within 60 s and no row was settled between (the last")


def test_why_the_last_one_could_not_start_is_told_of_those_that_get_nowhere():
    nursery, run, _, supervisor = make()
    cause = "SyntaxError: invalid syntax in /srv/orders.py, line 2"
    for _ in range(DEATHS_IN_VAIN + 1):
        nursery.packets = [BootFailed(0, 1, 10, "...\nSyntaxError: invalid syntax", cause), Died(0, 1, 10, 3)]
        supervisor.serve(0)
    assert in_vain(run)[-1].endswith(f"no row was settled between (the last could not start: {cause})")


def test_a_traceback_that_comes_again_is_told_in_a_line_with_a_count():
    nursery, _, lines, supervisor = make()
    frames = 'Traceback (most recent call last):\n  File "/srv/orders.py", line 9, in setup\n    connect({port})\n'
    for port in (4001, 4002):
        cause = f"OSError: no answer from port {port}"
        nursery.packets = [BootFailed(0, 1, port, frames + cause, cause), Died(0, 1, port, 3)]
        supervisor.serve(0)
    other = frames.replace("line 9", "line 8") + "OSError: no"
    nursery.packets = [BootFailed(0, 1, 4003, other, "OSError: no"), Died(0, 1, 4003, 3)]
    supervisor.serve(0)
    again = "could not start, 2 by now at the same place; another one is made: OSError: no answer from port 4002"
    assert lines == [
        f"score: process 1 (pid 4001) could not start; another one is made:\n{frames}OSError: no answer from port 4001",
        f"score: process 1 (pid 4002) {again}",
        f"score: process 1 (pid 4003) could not start; another one is made:\n{other}",
    ]


def test_deaths_that_get_nowhere_before_the_run_has_begun_end_it():
    nursery, run, _, supervisor = make()
    run.started = False
    die(supervisor, nursery, DEATHS_IN_VAIN)
    with pytest.raises(PoolError, match=r"handler 'score': 21 of its processes died .*restarting does not help"):
        die(supervisor, nursery, 1)


def test_rows_that_are_settled_fill_the_budget_again():
    nursery, run, _, supervisor = make()
    for rows in range(DEATHS_IN_VAIN * 2):
        run.counts.rows = rows
        die(supervisor, nursery, 1)
    assert len(run.deaths) == DEATHS_IN_VAIN * 2


def test_rows_that_were_settled_by_killing_do_not():
    nursery, run, _, supervisor = make()
    for rows in range(DEATHS_IN_VAIN):
        run.counts.rows = run.counts.killed = rows
        die(supervisor, nursery, 1)
    die(supervisor, nursery, 1)
    assert in_vain(run)[-1]


def test_deaths_that_find_a_row_each_are_no_loss():
    nursery, run, _, supervisor = make()
    run.found = ("row", True)
    die(supervisor, nursery, ROWS_IN_A_ROW * 4)
    assert len(run.deaths) == ROWS_IN_A_ROW * 4


def test_rows_that_kill_one_after_the_other_are_told_in_the_end():
    nursery, run, _, supervisor = make()
    die(supervisor, nursery, 2)
    run.found = ("row", False)
    die(supervisor, nursery, ROWS_IN_A_ROW)
    assert not any(in_vain(run))
    die(supervisor, nursery, 1)
    assert in_vain(run)[-1].startswith(f"{ROWS_IN_A_ROW + 1} rows, one after the other, each killed")


def test_another_handlers_rows_are_no_progress_of_this_one():
    nursery, lines, runs = FakeNursery(), [], [FakeRun(), FakeRun()]
    supervisor = Supervisor(nursery, runs, lines.append, no_other_nursery)
    for rows in range(DEATHS_IN_VAIN):
        runs[0].counts.rows = rows
        die(supervisor, nursery, 1, pool=1)
    runs[0].counts.rows += 1
    die(supervisor, nursery, 1, pool=1)
    assert in_vain(runs[1])[-1]


def test_a_teardown_that_raised_is_told_with_the_end_of_its_traceback_and_is_no_death():
    nursery, run, lines, supervisor = make()
    nursery.packets = [Launched(0, 1, 4711)]
    supervisor.serve(0)
    text = "\n".join(["Traceback (most recent call last):", *map("line {}".format, range(20)), "OSError: disk full"])
    nursery.packets = [TeardownFailed(0, 1, 4711, text), Died(0, 1, 4711, 0)]
    supervisor.stop_all(10, StopRequest())
    assert run.deaths == []
    (line,) = lines
    assert line.startswith("score: teardown() raised in process 1 (pid 4711), after its last batch was done:\nline 15")
    assert line.endswith("line 19\nOSError: disk full")


@pytest.mark.parametrize("worker", [1, -1])
def test_a_process_that_fails_before_it_is_up_ends_a_run_that_has_not_begun(worker):
    nursery, run, _, supervisor = make()
    run.started = False
    nursery.packets = [BootFailed(0, worker, 10, "OSError: no", "OSError: no")]
    with pytest.raises(PoolError, match=r"(?s)a pool process could not start.*OSError: no"):
        supervisor.serve(0)


@pytest.mark.parametrize("started", [False, True])
def test_one_that_fails_once_it_is_up_has_died(started):
    nursery, run, lines, supervisor = make()
    run.started = started
    nursery.packets = [
        Launched(0, 0, 10),
        BootFailed(0, 0, 10, "Traceback ...\nOSError: no", "OSError: no"),
        Died(0, 0, 10, 3),
    ]
    supervisor.serve(0)
    how = "ended with exit code 3, after OSError: no"
    assert lines == [f"score: process 0 (pid 10) {how}; its batches are handled again"]
    assert run.deaths == ([(0, Obituary(how))] if started else [])


def test_an_exception_outside_the_call_is_told_with_its_traceback_once():
    nursery, run, lines, supervisor = make()
    text = 'Traceback (most recent call last):\n  File "orders.py", line 3, in late\nLate: now\n'
    for pid in (10, 11):
        nursery.packets = [Launched(0, 0, pid), Died(0, 0, pid, 4, text, "exception", "Late: now")]
        supervisor.serve(0)
    how = "met an exception outside the handler's call (Late: now; exit code 4)"
    assert lines == [
        f"score: process 0 (pid 10) {how}; its batches are handled again:\n{text.rstrip()}",
        f"score: process 0 (pid 11) {how}, 2 by now at the same place; its batches are handled again",
    ]
    assert run.deaths == [(0, Obituary(how, text))] * 2


def test_one_that_comes_after_the_last_batch_is_told_at_the_end():
    nursery, _, lines, supervisor = make()
    nursery.packets = [Launched(0, 0, 10)]
    supervisor.serve(0)
    nursery.packets = [Died(0, 0, 10, 4, "Late: now\n", "exception", "Late: now")]
    supervisor.stop_all(10, StopRequest())
    assert lines == [
        "score: process 0 met an exception outside the handler's call (Late: now; exit code 4) after its last batch"
    ]


def test_an_option_that_cannot_work_is_told_in_its_sentence():
    nursery, run, _, supervisor = make()
    run.started = False
    nursery.packets = [BootFailed(0, 1, 10, "max_memory_mb=1 is too small", "", misconfigured=True)]
    with pytest.raises(ConfigError, match=r"^handler 'score': max_memory_mb=1 is too small$"):
        supervisor.serve(0)


def test_a_process_that_finds_another_app_ends_a_run_that_has_begun():
    """Whichever it is: every one that is made from now on would find the same."""
    for worker in (0, 1):
        nursery, run, _, supervisor = make()
        run.started = True
        nursery.packets = [BootFailed(0, worker, 10, "field 'a' was int64, is float64", "", app_changed=True)]
        with pytest.raises(PoolError, match="a pool process could not start:\nfield 'a' was int64, is float64"):
            supervisor.serve(0)
