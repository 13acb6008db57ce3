"""breaker= where a row that makes the service fail by itself is in all that there is to try, in whole runs."""

from __future__ import annotations

import pytest

from pythia_fast import CircuitBreaker, RetryPolicy
from pythia_fast.brokers.memory import MemoryMessage
from tests.support import memory_run
from tests.support.memory_run import echo, sorted_ints

ROWS, BATCH_ROWS = 400, 100
KEYS = 7


def read(tmp_path, guilty: set[int], ordering: str):
    """Run over batches of which each that holds a guilty row fails; (sink, dead letters)."""

    def handler(batch):
        if guilty & {int(payload) for payload in batch["payload"].tolist()}:
            raise ConnectionError("the service does not take this one")
        return echo(batch)

    _, sink, dead, _ = memory_run.run(
        tmp_path,
        handler,
        [MemoryMessage(b"%d" % i, key=b"%d" % (i % KEYS)) for i in range(ROWS)],
        batch_size=BATCH_ROWS,
        batch_timeout=60,
        workers=1,
        ordering=ordering,
        breaker=CircuitBreaker(failure_threshold=2, recovery_timeout=0.02),
        retry=RetryPolicy(max_attempts=2),
    )
    return sink, dead


@pytest.mark.parametrize("ordering", ["unordered", "key"])
@pytest.mark.parametrize("guilty", [{390}, {50, 150, 250, 350}], ids=["the last batch", "every batch"])
def test_rows_that_make_the_service_fail_do_not_keep_the_circuit_open(tmp_path, ordering, guilty):
    sink, dead = read(tmp_path, guilty, ordering)
    assert {int(payload) for payload in dead.payloads} == guilty
    assert sorted_ints(sink) == [row for row in range(ROWS) if row not in guilty]
    if ordering == "key":
        for key in range(KEYS):
            in_lane = [row for row in map(int, sink.payloads) if row % KEYS == key]
            assert in_lane == sorted(in_lane)
