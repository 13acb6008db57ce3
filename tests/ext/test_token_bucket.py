"""ext/token_bucket.h: the rate of rows in the long run, under a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext.token_bucket import TokenBucket

SECOND_NS = 1_000_000_000


def rows_taken(bucket: TokenBucket, *, seconds: float, most: int, late_ns: int = 0) -> int:
    """Rows of one who takes all that he can for so long, and is woken so late each time."""
    now, rows = 1, 0
    while now < seconds * SECOND_NS:
        taken = bucket.take(now, most)
        rows += taken
        if not taken:
            now += bucket.wait_ns(now) + late_ns
    return rows


@pytest.mark.parametrize("rate", [1, 7, 1000, 123_456, 5_000_000])
@pytest.mark.parametrize("lanes", [1, 8])
def test_the_rate_is_met_over_ten_seconds(rate, lanes):
    bucket = TokenBucket(rate, 4096, lanes)
    rows = rows_taken(bucket, seconds=10, most=4096)
    assert 10 * rate * 0.95 <= rows <= 10 * rate * 1.05 + bucket.grain


def test_who_is_woken_late_still_gets_his_rows():
    rows = rows_taken(TokenBucket(1000, 4096), seconds=10, most=4096, late_ns=30_000_000)
    assert 9500 <= rows <= 10_500


def test_a_rate_below_one_row_a_second_is_a_row_now_and_then():
    bucket = TokenBucket(0.1, 4096)
    assert bucket.take(1, 4096) == 1
    assert bucket.take(9 * SECOND_NS, 4096) == 0
    assert bucket.take(11 * SECOND_NS, 4096) == 1


def test_what_a_quiet_source_did_not_take_is_not_made_up_for():
    bucket = TokenBucket(1000, 4096)
    bucket.take(1, 4096)
    later = 3600 * SECOND_NS
    burst = 0
    while taken := bucket.take(later, 4096):
        burst += taken
    assert burst == 100


def test_what_did_not_come_is_given_back():
    bucket = TokenBucket(1000, 4096)
    first = bucket.take(1, 4096)
    bucket.give_back(first - 1)
    rest = 0
    while taken := bucket.take(1, 4096):
        rest += taken
    assert 1 + rest >= bucket.burst - bucket.grain


def test_no_limit_is_no_wait():
    bucket = TokenBucket(0, 4096)
    assert (bucket.wait_ns(1), bucket.take(1, 4096)) == (0, 4096)


@given(
    rate=st.floats(0.01, 1e8),
    most=st.integers(1, 1 << 20),
    lanes=st.integers(1, 64),
    steps=st.lists(st.tuples(st.integers(0, SECOND_NS), st.integers(1, 1 << 20), st.floats(0, 1)), max_size=60),
)
def test_never_more_than_the_burst_and_what_came_since(rate, most, lanes, steps):
    bucket = TokenBucket(rate, most, lanes)
    now, rows = 1, 0
    for step_ns, asked, unused in steps:
        now += step_ns
        taken = bucket.take(now, min(asked, most))
        back = int(taken * unused)
        bucket.give_back(back)
        rows += taken - back
        assert taken <= min(asked, most, bucket.grain)
        assert rows <= bucket.burst + rate * (now - 1) / SECOND_NS + 1e-3
        now += bucket.wait_ns(now) + 1
        assert bucket.take(now, 1) == 1, "who waits for as long as he is told gets something"
        rows += 1
