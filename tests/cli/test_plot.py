"""pythia_fast.cli.plot: the throughput plot."""

import sys
from pathlib import Path

import pytest

from pythia_fast.cli.plot import cpu_line, steps, write_plot
from pythia_fast.errors import ConfigError
from pythia_fast.observer import ProcessSample, Snapshot
from pythia_fast.report import RunReport

SAMPLES = [
    Snapshot(seconds=tick / 5, rows=tick * 1000, processes=[ProcessSample("runtime", 1, 50.0, 10.0)])
    for tick in range(1, 6)
]
REPORT = RunReport(rows=5000, seconds=1.0)


def test_a_png_is_written_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "throughput.png"
    write_plot(path, SAMPLES, REPORT, "orders")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 5_000
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_steps_are_rates_between_samples() -> None:
    edges, rates = steps(
        [Snapshot(seconds=0.5, rows=100), Snapshot(seconds=0.5, rows=100), Snapshot(seconds=1.0, rows=400)]
    )
    assert edges == [0.0, 0.5, 1.0]
    assert rates == [200.0, 600.0]


def test_a_run_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too short"):
        write_plot(tmp_path / "x.png", SAMPLES[:1], REPORT, "orders")
    assert list(tmp_path.iterdir()) == []


def test_missing_matplotlib_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'pythia-fast\[plot\]'"):
        write_plot(tmp_path / "x.png", SAMPLES, REPORT, "orders")


def test_cpu_is_a_mean_over_the_last_quarter_second() -> None:
    samples = [
        Snapshot(seconds=tick / 10, processes=[ProcessSample("runtime", 1, percent, 10.0)])
        for tick, percent in enumerate([0.0, 100.0, 50.0, 50.0])
    ]
    seconds, means = cpu_line(samples, "runtime")
    assert seconds == [0.0, 0.1, 0.2, 0.3]
    assert means == pytest.approx([0.0, 50.0, 50.0, 200 / 3])
    assert cpu_line(samples, "worker 0") == ([], [])
