"""pythia_fast.report: the figures add up and survive JSON."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.report import HandlerReport, RunReport


def test_rate_is_rows_over_seconds() -> None:
    report = RunReport(rows=5_000_000, seconds=2.5, bytes=885_000_000, cpu_seconds=4.0)
    assert report.rows_per_second == 2_000_000
    assert report.mb_per_second == pytest.approx(354.0)
    assert report.cpu_seconds_per_million == pytest.approx(0.8)


def test_an_empty_run_has_no_rate() -> None:
    report = RunReport()
    assert (report.rows_per_second, report.mb_per_second, report.cpu_seconds_per_million) == (0.0, 0.0, 0.0)


def test_a_given_rate_is_not_believed() -> None:
    assert RunReport(rows=10, seconds=2.0, rows_per_second=99.0).rows_per_second == 5.0


def test_json_has_every_promised_name() -> None:
    written = json.loads(RunReport(app="orders", rows=3, seconds=1.5).to_json())
    assert {
        "rows", "batches", "seconds", "rows_per_second", "rejected", "dead_lettered", "retried", "crashes",
        "cpu_seconds", "peak_rss_mb", "handlers",
    } <= set(written)  # fmt: skip
    assert written["rows_per_second"] == 2.0


def test_report_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        RunReport().rows = 1  # type: ignore[misc]


def test_not_a_report_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"rows"):
        RunReport.from_json(b'{"rows": "many"}')


@given(
    rows=st.integers(0, 2**63 - 1),
    seconds=st.just(0.0) | st.floats(1e-9, 1e9),
    rejected=st.integers(0, 2**63 - 1),
    names=st.lists(st.text(), max_size=3),
    ending=st.sampled_from(["done", "drained", "deadline", "killed"]),
)
def test_round_trip(rows: int, seconds: float, rejected: int, names: list[str], ending: str) -> None:
    report = RunReport(
        rows=rows,
        seconds=seconds,
        rejected=rejected,
        ending=ending,  # type: ignore[arg-type]
        handlers=tuple(HandlerReport(name=name, rows=rows) for name in names),
    )
    assert RunReport.from_json(report.to_json()) == report
