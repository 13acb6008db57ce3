"""pythia_fast.retry: how long rows wait, and what is no policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast import RetryPolicy
from pythia_fast.errors import ConfigError, UnknownOptionError


@given(st.integers(1, 1000), st.floats(0, 1), st.floats(0, 1))
def test_waits_double_up_to_the_longest_and_chance_only_shortens_them(given_: int, jitter: float, chance: float):
    policy = RetryPolicy(backoff=0.5, jitter=jitter, max_backoff=30)
    whole = min(0.5 * 2 ** min(given_ - 1, 100), 30)
    assert whole * (1 - jitter) - 1e-9 <= policy.wait_s(given_, chance) <= whole
    assert policy.wait_s(given_, 0.0) == whole


def test_chance_is_drawn():
    policy = RetryPolicy(backoff=1, jitter=0.5)
    waits = {policy.wait_s(1) for _ in range(20)}
    assert len(waits) > 1
    assert all(0.5 <= wait <= 1 for wait in waits)


def test_by_default_rows_do_not_wait():
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.waits, policy.retry_on) == (3, False, ())
    assert policy.wait_s(2) == 0


def test_one_type_is_as_good_as_a_tuple():
    assert RetryPolicy(retry_on=TimeoutError).retry_on == (TimeoutError,)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_attempts": 0}, "RetryPolicy: max_attempts=0"),
        ({"backoff": -1}, "RetryPolicy: backoff=-1"),
        ({"jitter": 1.5}, "RetryPolicy: jitter=1.5: a share of the wait, from 0 to 1"),
        ({"retry_on": "TimeoutError"}, "RetryPolicy: retry_on='TimeoutError': an exception type"),
        ({"retry_on": (int,)}, "RetryPolicy: retry_on=(<class 'int'>,)"),
        ({"backoff": 5, "max_backoff": 1}, "max_backoff=1 is less than backoff=5"),
    ],
)
def test_what_is_no_policy_is_refused(options, told):
    with pytest.raises(ConfigError) as raised:
        RetryPolicy(**options)
    assert told in str(raised.value)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UnknownOptionError, match="did you mean 'max_attempts'"):
        RetryPolicy(max_attempt=3)
