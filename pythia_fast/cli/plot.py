"""Draws the throughput of a run. Needs matplotlib: the extra ``plot``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from pythia_fast.cli.whole_file import write_whole
from pythia_fast.errors import ConfigError
from pythia_fast.observer import Snapshot
from pythia_fast.report import RunReport

#: The kernel counts CPU time in steps of 10 ms: over less than this, a share of a core is mostly rounding.
CPU_WINDOW_S = 0.25


def write_plot(path: Path, samples: Sequence[Snapshot], report: RunReport, title: str) -> None:
    """Write a PNG: rows a second over time, and below it the CPU of every process.

    Raises:
        ConfigError: matplotlib is not installed, the run was too short to have two samples, or the file cannot be
            written.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError("a plot needs matplotlib: pip install 'pythia-fast[plot]'") from None
    if len(samples) < 2:
        raise ConfigError(f"the run was over after {report.seconds:.2f} s, too short for a plot: give it more rows")
    mpl.use("agg")
    from matplotlib import pyplot as plt

    times, rates = steps(samples)
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=(3, 2), layout="constrained")
    above.stairs([rate / 1e6 for rate in rates], times, fill=True, color="#2f6db3", alpha=0.85)
    mean = report.rows_per_second / 1e6
    above.axhline(mean, color="#c0392b", linewidth=1, linestyle="--", label=f"mean {mean:.2f} M rows/s")
    above.set_ylabel("million rows/s")
    above.set_ylim(bottom=0)
    above.legend(loc="lower right")
    above.set_title(title, loc="left")
    for name in dict.fromkeys(process.name for snapshot in samples for process in snapshot.processes):
        below.plot(*cpu_line(samples, name), label=name, linewidth=1.2)
    below.set_ylabel("CPU, % of a core")
    below.set_xlabel("seconds")
    below.set_ylim(bottom=0)
    if below.lines:
        below.legend(loc="center right")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    plt.close(figure)
    try:
        write_whole(path, drawn.getvalue())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def steps(samples: Sequence[Snapshot]) -> tuple[list[float], list[float]]:
    """(edges in seconds, rows a second between them); one edge more than rates, the first at 0."""
    edges, rates = [0.0], []
    rows = 0
    for snapshot in samples:
        if snapshot.seconds > edges[-1]:
            rates.append((snapshot.rows - rows) / (snapshot.seconds - edges[-1]))
            edges.append(snapshot.seconds)
            rows = snapshot.rows
    return edges, rates


def cpu_line(samples: Sequence[Snapshot], name: str) -> tuple[list[float], list[float]]:
    """(seconds, mean CPU percent over the last `CPU_WINDOW_S`) of one process, sample by sample."""
    points = [(s.seconds, p.cpu_percent) for s in samples for p in s.processes if p.name == name]
    means = []
    for now, _ in points:
        recent = [percent for at, percent in points if now - CPU_WINDOW_S < at <= now]
        means.append(sum(recent) / len(recent))
    return [at for at, _ in points], means
