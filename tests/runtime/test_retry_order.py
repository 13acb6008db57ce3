"""Rows that are tried again keep their place in their lane, where a batch is handled in several calls."""

from __future__ import annotations

import json
import os
import signal

import pytest

from pythia_fast import RetryPolicy
from pythia_fast.brokers.memory import MemoryMessage
from tests.support import memory_run
from tests.support.memory_run import sorted_ints


def in_several_calls(tmp_path, guilty, waiting, *, ordering, backoff, max_attempts=3, culprit=40):
    """One batch of two lanes, the even rows and the odd ones, in several calls because of ``culprit``.

    ``guilty``: what that row does, ``waiting``: what row 10 does: (attempts) -> whether it is given back.
    Returns (rows sent, rows given up, {row: attempts} of each call).
    """
    journal = tmp_path / "journal"

    def handler(batch):
        rows = [int(payload) for payload in batch["payload"].tolist()]
        attempts = dict(zip(rows, batch.attempts.tolist(), strict=True))
        with journal.open("a") as file:
            file.write(json.dumps(attempts) + "\n")
        if culprit in attempts:
            guilty()
        if 10 in attempts and waiting(attempts[10]):
            batch.retry([row == 10 for row in rows])
        return [b"%d" % row for row in rows]

    by_partition = ordering == "partition"
    messages = [
        MemoryMessage(b"%d" % row, key=b"odd" if row % 2 else b"even", partition=row % 2 if by_partition else 0)
        for row in range(64)
    ]
    policy = RetryPolicy(max_attempts, backoff=backoff, jitter=0.0, retry_on=ConnectionError)
    options = {"batch_size": 64, "batch_timeout": 60, "ordering": ordering, "retry": policy, "workers": 1}
    _, sink, dead, source = memory_run.run(tmp_path, handler, messages, partitions=1 + by_partition, **options)
    assert sum(source.committed.values()) == 64
    calls = [{int(row): n for row, n in json.loads(line).items()} for line in journal.read_text().splitlines()]
    return [int(payload) for payload in sink.payloads], sorted_ints(dead), calls


def raises():
    raise ValueError("this row alone")


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def fails_twice(attempts):
    if attempts < 2:
        raise ConnectionError("try again")


def fails(attempts):
    raise ConnectionError("try again")


def kills_when_tried_again(attempts):
    if attempts:
        dies()
    raise ConnectionError("try again")


def lanes(rows):
    return [[row for row in rows if row % 2 == lane] for lane in range(2)]


def in_order(*without):
    return lanes([row for row in range(64) if row not in without])


several_calls = pytest.mark.parametrize("guilty", [raises, dies])
ordered = pytest.mark.parametrize("ordering", ["partition", "key"])
at_once_or_later = pytest.mark.parametrize("backoff", [0.0, 0.1])


@several_calls
@ordered
@at_once_or_later
def test_rows_of_later_calls_wait_for_those_of_their_lane_that_are_tried_again(tmp_path, guilty, ordering, backoff):
    sent, dead, calls = in_several_calls(tmp_path, guilty, fails_twice, ordering=ordering, backoff=backoff)
    assert lanes(sent) == in_order(40)
    assert dead == [40]
    if guilty is raises:  # a death counts for all that was in hand
        assert [call[62] for call in calls if 62 in call][-1] == 0  # to wait costs no attempt


@ordered
def test_rows_of_other_lanes_go_on(tmp_path, ordering):
    sent, _, _ = in_several_calls(tmp_path, dies, fails_twice, ordering=ordering, backoff=0.1)
    assert lanes(sent) == in_order(40)
    assert sent.index(63) < sent.index(10)


@ordered
def test_a_death_after_a_row_was_told_to_wait_does_not_release_its_lane(tmp_path, ordering):
    sent, dead, _ = in_several_calls(tmp_path, dies, fails_twice, ordering=ordering, backoff=0.1, culprit=41)
    assert lanes(sent) == in_order(41)
    assert dead == [41]
    assert sent.index(63) < sent.index(10)


@ordered
@at_once_or_later
def test_rows_that_wait_beside_the_search_for_one_that_raises_are_handled_once(tmp_path, ordering, backoff):
    """The calls that search for row 41 have the even rows beside it, again and again."""
    options = {"ordering": ordering, "backoff": backoff, "culprit": 41}
    sent, dead, calls = in_several_calls(tmp_path, raises, lambda attempts: attempts < 2, **options)
    # Row 10 was handled together with those to 31, and only its record comes later.
    assert lanes(sent) == [[*range(0, 10, 2), *range(12, 32, 2), 10, *range(32, 64, 2)], in_order(41)[1]]
    assert dead == [41]
    assert all(sum(row in call for call in calls[1:]) == 1 for row in range(32, 64, 2))


@several_calls
@ordered
@at_once_or_later
def test_a_row_that_is_given_up_releases_its_lane(tmp_path, guilty, ordering, backoff):
    sent, dead, _ = in_several_calls(tmp_path, guilty, fails, ordering=ordering, backoff=backoff)
    assert lanes(sent) == in_order(10, 40)
    assert dead == [10, 40]


@ordered
@at_once_or_later
def test_a_row_that_kills_when_it_is_tried_again_releases_its_lane(tmp_path, ordering, backoff):
    options = {"ordering": ordering, "backoff": backoff, "max_attempts": 20}
    sent, dead, _ = in_several_calls(tmp_path, raises, kills_when_tried_again, **options)
    assert lanes(sent) == in_order(10, 40)
    assert dead == [10, 40]


@at_once_or_later
def test_unordered_rows_wait_for_nothing(tmp_path, backoff):
    sent, dead, _ = in_several_calls(tmp_path, raises, fails_twice, ordering="unordered", backoff=backoff)
    assert [sorted(lane) for lane in lanes(sent)] == in_order(40)
    assert dead == [40]
    assert sent.index(62) < sent.index(10)
