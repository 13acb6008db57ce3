"""pythia_fast.cli.figures: what people read is what was counted."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.cli.figures import RateWindow, clock, in_flight, short
from pythia_fast.observer import Snapshot


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12, "12"),
        (999, "999"),
        (999.9, "1.00 k"),
        (1_000, "1.00 k"),
        (96_400, "96.4 k"),
        (999_400, "999 k"),
        (999_950, "1.00 M"),
        (4_812_345, "4.81 M"),
        (48_123_450, "48.1 M"),
        (2.5e9, "2.50 G"),
    ],
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


@given(st.floats(1, 1e11))
def test_short_is_true_to_three_digits(value: float) -> None:
    match = re.fullmatch(r"([\d.]+)(?: ([kMG]))?", short(value))
    assert match is not None
    back = float(match[1]) * {None: 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]
    assert back == pytest.approx(value, rel=0.0051) or (value < 100 and back == pytest.approx(value, abs=0.5))
    assert float(match[1]) < 1000 or match[2] == "G"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (61, "1:01"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_rate_starts_with_the_run() -> None:
    rates = RateWindow()
    rates.add(Snapshot(seconds=0.5, rows=1_000_000, bytes=177_000_000))
    assert rates.rows_per_second == pytest.approx(2e6)
    assert rates.mb_per_second == pytest.approx(354)


def test_rate_follows_the_last_moments() -> None:
    rates = RateWindow(span_s=2.0)
    for tick in range(1, 51):  # ten seconds at 100 rows/s, then a stop
        rates.add(Snapshot(seconds=tick / 5, rows=20 * tick))
    assert rates.rows_per_second == pytest.approx(100)
    for tick in range(51, 62):
        rates.add(Snapshot(seconds=tick / 5, rows=1_000))
    assert rates.rows_per_second == 0


def test_no_rate_is_negative_when_a_transaction_takes_rows_back() -> None:
    rates = RateWindow(span_s=2.0)
    rates.add(Snapshot(seconds=10.0, rows=1_000, bytes=5_000))
    for tick in range(1, 21):
        rates.add(Snapshot(seconds=10 + tick / 5, rows=804 + tick, bytes=4_000 + tick))
        assert rates.rows_per_second >= 0
        assert rates.mb_per_second >= 0
    assert rates.rows_per_second == pytest.approx(5)


def test_no_time_is_no_rate() -> None:
    assert RateWindow().rows_per_second == 0


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (0, "2 batches in flight"),
        (1, "2 batches in flight, 1 row waits for its next attempt"),
        (1200, "2 batches in flight, 1,200 rows wait for their next attempt"),
    ],
)
def test_rows_that_wait_are_told_beside_the_batches_that_nobody_has(rows: int, shown: str) -> None:
    assert in_flight(Snapshot(batches_in_flight=2, rows_waiting=rows), ", ") == shown
