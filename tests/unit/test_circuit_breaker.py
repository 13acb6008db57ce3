"""pythia_fast.circuit_breaker and its place in batch_handler, and rate_limit beside it: what is none."""

from __future__ import annotations

import pytest

from pythia_fast import App, CircuitBreaker, MemoryConsumer, RetryPolicy
from pythia_fast.errors import ConfigError, UnknownOptionError


def register(**options):
    app = App("test")
    app.batch_handler(source=MemoryConsumer(), decoder="raw", name="handler", **options)(lambda batch: None)
    return app.handler("handler")


def test_by_default_five_failures_and_half_a_minute():
    breaker = CircuitBreaker()
    assert (breaker.failure_threshold, breaker.recovery_timeout_s, breaker.probes) == (5, 30.0, 10)
    assert breaker.expected == (ConnectionError, TimeoutError)
    assert CircuitBreaker(expected=OSError).expected == (OSError,)


def test_batches_wait_in_their_slots_for_a_breaker_or_a_backoff():
    assert not register().parks
    assert register(breaker=CircuitBreaker()).parks
    assert register(retry=RetryPolicy(backoff=1)).parks


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"failure_threshold": 0}, "CircuitBreaker: failure_threshold=0: a whole number of batches"),
        ({"recovery_timeout": 0}, "CircuitBreaker: recovery_timeout=0: seconds, from 0.01"),
        ({"expected": ()}, "CircuitBreaker: expected=(): an exception type"),
        ({"expected": "TimeoutError"}, "CircuitBreaker: expected='TimeoutError'"),
        ({"expected": (int,)}, "CircuitBreaker: expected=(<class 'int'>,)"),
        ({"expected": BaseException}, "CircuitBreaker: expected=<class 'BaseException'>"),
        ({"probes": 0}, "CircuitBreaker: probes=0"),
    ],
)
def test_what_is_no_breaker_is_refused(options, told):
    with pytest.raises(ConfigError) as raised:
        CircuitBreaker(**options)
    assert told in str(raised.value)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UnknownOptionError, match="did you mean 'failure_threshold'"):
        CircuitBreaker(failure_treshold=3)


def test_a_handler_takes_a_breaker():
    with pytest.raises(ConfigError, match="handler 'handler': breaker=5: a CircuitBreaker"):
        register(breaker=5)


@pytest.mark.parametrize("given", [0, -1, "1000/s", float("inf"), True])
def test_a_rate_is_a_number_of_rows_per_second(given):
    with pytest.raises(ConfigError, match=r"handler 'handler': rate_limit=.*: rows per second, from 0.001 to"):
        register(rate_limit=given)


def test_a_rate_may_be_a_fraction():
    assert register(rate_limit=0.5).rate_limit == 0.5
    assert register().rate_limit is None
