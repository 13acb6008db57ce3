"""What all benchmarks share: the head with the machine, interleaved timing, and the table of bars at the end.

Rounds are fixed: ``interleaved(..., rounds=)``, or ``benchmark.pedantic(..., rounds=)`` for a single contestant.

A benchmark measures its contestants in one run, in turn (ours, theirs, ours, theirs...), so that a machine that
slows down slows all of them, and reports the ratio of medians. What it reports is printed at the end with its bar;
a bar that is missed ends the session with exit code 1.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from pythia_fast.cli.version import facts
from tests.support.kafka_broker import KafkaBroker


class Figure(NamedTuple):
    """One reported result."""

    name: str
    value: float
    unit: str
    at_least: float | None
    at_most: float | None

    @property
    def bar(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""

    @property
    def met(self) -> bool:
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)


class Bars:
    """Collects figures; the session's end prints them."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def report(
        self, name: str, value: float, unit: str = "", *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """Add one figure, with its bar when it has one."""
        self.figures.append(Figure(name, value, unit, at_least, at_most))


@pytest.fixture
def broker() -> Iterator[KafkaBroker]:
    """A Kafka with the heap that its distribution gives it."""
    with KafkaBroker(heap="1g", sustained=True) as made:
        yield made


BARS = pytest.StashKey[Bars]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BARS] = Bars()


def pytest_report_header() -> list[str]:
    return [f"{name}: {value}" for name, value in facts()]


@pytest.fixture(scope="session")
def bars(pytestconfig: pytest.Config) -> Bars:
    """Where a benchmark reports what it measured: ``bars.report("ours / theirs", 9.1, at_least=8)``."""
    return pytestconfig.stash[BARS]


@pytest.fixture(scope="session")
def interleaved() -> Callable[..., dict[str, float]]:
    """``interleaved({"ours": f, "theirs": g}, rounds=5)`` -> median seconds of each, called in turn."""
    return median_seconds


def median_seconds(contestants: Mapping[str, Callable[[], Any]], rounds: int = 5, warmup: int = 1) -> dict[str, float]:
    """Call the contestants in turn, ``rounds`` times over, and return the median seconds of a call of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warmup + rounds):
        for name, call in contestants.items():
            gc.collect()
            started = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = terminalreporter.config.stash[BARS].figures
    if not figures:
        return
    terminalreporter.section("figures and bars")
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        verdict = "" if not figure.bar else "met" if figure.met else "MISSED"
        terminalreporter.write_line(
            f"{figure.name:<{width}}  {figure.value:>12,.3f} {figure.unit:<10} {figure.bar:<12} {verdict}".rstrip()
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and not all(figure.met for figure in session.config.stash[BARS].figures):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
