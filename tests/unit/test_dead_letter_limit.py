"""pythia_fast.dead_letter_limit and its place in batch_handler: what is no limit."""

from __future__ import annotations

import pytest

from pythia_fast import App, DeadLetterLimit, MemoryConsumer
from pythia_fast.errors import ConfigError, UnknownOptionError


def register(**options):
    app = App("test")
    app.batch_handler(source=MemoryConsumer(), decoder="raw", name="handler", **options)(lambda batch: None)
    return app.handler("handler")


def test_by_default_half_of_the_rows_of_a_minute():
    limit = register().dead_letter_limit
    assert (limit.ratio, limit.min_rows, limit.window_s, limit.count_rejected) == (0.5, 1000, 60.0, False)
    assert (limit.pause_s, limit.max_pause_s, limit.probes) == (1.0, 60.0, 5)


def test_a_number_is_its_ratio_and_none_is_no_limit():
    assert register(dead_letter_limit=0.25).dead_letter_limit == DeadLetterLimit(0.25)
    assert register(dead_letter_limit=1).dead_letter_limit == DeadLetterLimit(1.0)
    assert register(dead_letter_limit=None).dead_letter_limit is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ratio": 1.5}, "DeadLetterLimit: ratio=1.5: a share of the rows, from 0 to 1"),
        ({"ratio": float("nan")}, "DeadLetterLimit: ratio=nan"),
        ({"ratio": True}, "DeadLetterLimit: ratio=True"),
        ({"min_rows": 0}, "DeadLetterLimit: min_rows=0: a whole number of rows"),
        ({"window": 0.5}, "DeadLetterLimit: window=0.5: seconds, from 1"),
        ({"count_rejected": 1}, "DeadLetterLimit: count_rejected=1: True or False"),
        ({"pause": 0}, "DeadLetterLimit: pause=0: seconds"),
        ({"pause": 5, "max_pause": 1}, "max_pause=1 is less than pause=5"),
        ({"probes": 0}, "DeadLetterLimit: probes=0: a whole number of batches"),
    ],
)
def test_what_is_no_limit_is_refused(options, told):
    with pytest.raises(ConfigError) as raised:
        DeadLetterLimit(**options)
    assert told in str(raised.value)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UnknownOptionError, match="did you mean 'min_rows'"):
        DeadLetterLimit(min_row=3)


@pytest.mark.parametrize("given", [-0.1, 50, "50 %", False])
def test_a_handler_takes_a_share_or_a_limit(given):
    with pytest.raises(ConfigError, match=r"handler 'handler': dead_letter_limit=.*: a share of the rows, from 0 to 1"):
        register(dead_letter_limit=given)
