"""Rows whose attempts another row of their call uses up, because it raises what retry_on= names."""

from __future__ import annotations

import pytest

from pythia_fast import RetryPolicy
from tests.support import memory_run
from tests.support.memory_run import numbers, sorted_ints

ATTEMPTS = 3
LAST = ATTEMPTS - 1  #: batch.attempts of the last one


class Busy(Exception):
    pass


def read(tmp_path, backoff, asks):
    """Row 5 always raises; row 7 asks for another attempt where ``asks`` says so of the attempts before."""

    def handler(batch):
        rows = [int(payload) for payload in batch["payload"].tolist()]
        if 5 in rows:
            raise Busy("row 5 never goes well")
        batch.retry([row == 7 and asks(attempts) for row, attempts in zip(rows, batch.attempts, strict=True)])
        return [b"%d" % row for row in rows]

    policy = RetryPolicy(max_attempts=ATTEMPTS, backoff=backoff, retry_on=Busy)
    _, sink, dead, _ = memory_run.run(tmp_path, handler, numbers(10), retry=policy, workers=1)
    return sink, {record.payload: dict(record.headers) for record in dead.records}


@pytest.mark.parametrize("backoff", [0, 0.01])
def test_a_sound_row_that_asks_once_is_handled_again(tmp_path, backoff):
    sink, dead = read(tmp_path, backoff, lambda attempts: attempts == LAST)
    assert sorted_ints(sink) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert set(dead) == {b"5"}


@pytest.mark.parametrize("backoff", [0, 0.01])
def test_one_that_always_asks_is_given_up_with_what_used_its_attempts_up(tmp_path, backoff):
    sink, dead = read(tmp_path, backoff, lambda attempts: True)
    assert sorted_ints(sink) == [0, 1, 2, 3, 4, 6, 8, 9]
    assert set(dead) == {b"5", b"7"}
    assert dead[b"7"]["pf-attempts"] == b"4"
    assert dead[b"7"]["pf-reason"] == (
        b"the handler asked for another attempt after 4 of 3; a call that raises, for whatever row, costs all of its "
        b"rows an attempt"
    )
