"""How deaths are told, and when restarting stops."""

from __future__ import annotations

import signal

import pytest

from pythia_fast.errors import PoolError
from pythia_fast.pool.messages import BootFailed, Died, Launched, TeardownFailed
from pythia_fast.pool.supervisor import RESTART_BUDGET, Supervisor, describe_status


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "ended with exit code 0"),
        (7, "ended with exit code 7"),
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

    def receive(self, timeout):
        packets, self.packets = self.packets, []
        return packets


class FakeRun:
    class counts:  # noqa: N801 - stands for an attribute
        batches = 0

    class handler:  # noqa: N801
        name = "score"

    class arena:  # noqa: N801
        @staticmethod
        def worker_facts(worker):
            class Facts:
                booted = worker == 0

            return Facts

        @staticmethod
        def stop_worker(worker):
            pass

    pool, workers, started = 0, 2, True

    def __init__(self):
        self.deaths = []

    def died(self, worker, how):
        self.deaths.append((worker, how))


def make():
    nursery, run, lines = FakeNursery(), FakeRun(), []
    return nursery, run, lines, Supervisor(nursery, [run], lines.append)


def test_a_death_is_told_and_handed_to_its_handler():
    nursery, run, lines, supervisor = make()
    nursery.packets = [Launched(0, 1, 4711), Died(0, 1, 4711, -11)]
    supervisor.serve(0)
    assert run.deaths == [(1, "was killed by SIGSEGV")]
    assert lines == ["score: process 1 (pid 4711) was killed by SIGSEGV; its batches are handled again"]
    assert supervisor.processes() == [("nursery", 1)]


def test_a_death_before_the_run_begins_is_replaced_at_once():
    nursery, run, _, supervisor = make()
    run.started = False
    nursery.packets = [Died(0, 0, 10, -9)]
    supervisor.serve(0)
    assert nursery.launched == [(0, 0)]
    assert run.deaths == []


def test_the_restart_budget_ends_a_run_that_makes_no_progress():
    nursery, _run, _, supervisor = make()
    nursery.packets = [Died(0, 0, 10, -9)] * RESTART_BUDGET
    supervisor.serve(0)
    nursery.packets = [Died(0, 0, 10, -9)]
    with pytest.raises(PoolError, match="restarting does not help"):
        supervisor.serve(0)


def test_progress_fills_the_budget_again():
    nursery, run, _, supervisor = make()
    for batches in range(RESTART_BUDGET * 2):
        run.counts.batches = batches
        nursery.packets = [Died(0, 0, 10, -9)]
        supervisor.serve(0)
    assert len(run.deaths) == RESTART_BUDGET * 2
    run.counts.batches = 0


def test_a_teardown_that_raised_is_told_with_the_end_of_its_traceback_and_is_no_death():
    nursery, run, lines, supervisor = make()
    nursery.packets = [Launched(0, 1, 4711)]
    supervisor.serve(0)
    text = "\n".join(["Traceback (most recent call last):", *map("line {}".format, range(20)), "OSError: disk full"])
    nursery.packets = [TeardownFailed(0, 1, text), Died(0, 1, 4711, 0)]
    supervisor.stop_all(10)
    assert run.deaths == []
    (line,) = lines
    assert line.startswith("score: teardown() raised in process 1 (pid 4711), after its last batch was done:\nline 15")
    assert line.endswith("line 19\nOSError: disk full")


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        (0, "process 0 of handler 'score' failed outside the handler"),
        (1, "a pool process could not start"),
        (-1, "a pool process could not start"),
    ],
)
def test_a_process_that_fails_once_it_is_up_is_no_boot_failure(worker, message):
    nursery, _, _, supervisor = make()
    nursery.packets = [BootFailed(0, worker, "OSError: no")]
    with pytest.raises(PoolError, match=rf"(?s){message}.*OSError: no"):
        supervisor.serve(0)
