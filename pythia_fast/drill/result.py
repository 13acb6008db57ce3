"""What came of a drill: the value that is printed, as a line or as JSON."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.drill.faults import FAULTS
from pythia_fast.drill.ledger import Account, Keys, position_text

SHOWN = 5  #: positions that a sentence names


class DrillResult(msgspec.Struct, frozen=True, kw_only=True):
    """One drill. Rows are counted by position (docs/drills.md)."""

    drill: str
    passed: bool
    rows_in: int = 0
    rows_out: int = 0
    dead_lettered: int = 0
    lost: int = 0
    duplicated: int = 0  #: rows
    may_duplicate: int = 0  #: rows that the promise lets come twice
    recovered_ms: list[float] = []  #: of each fault that somebody recovered from
    seconds: float = 0.0
    broken: list[str] = []  #: promises that were not kept
    inconclusive: list[str] = []  #: why no promise was put to the test
    error: str = ""  #: why it could not begin, or its rows not be counted
    error_code: int = 0  #: what a command ends with for that
    notes: list[str] = []  #: what happened
    folder: str = ""  #: where to look; empty where it was removed

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "INCONCLUSIVE", "ERROR"]:
        if self.passed:
            return "PASS"
        return "FAIL" if self.broken else "ERROR" if self.error else "INCONCLUSIVE"

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with for this drill alone."""
        match self.verdict:
            case "ERROR":
                return ExitCode(self.error_code)
            case "FAIL":
                return ExitCode.FAILED
            case "INCONCLUSIVE":
                return ExitCode.INCONCLUSIVE
            case _:
                return ExitCode.DONE


def promises_broken(account: Account, may_repeat: Keys) -> list[str]:
    """What is wrong with the account, a sentence each. ``may_repeat``: rows that may come once more."""
    broken = []
    if len(account.lost):
        broken.append(f"nothing is lost, but {len(account.lost):,} rows came out nowhere: {places(account.lost)}")
    innocent = np.setdiff1d(account.duplicated, may_repeat)
    if len(innocent):
        allowed = "nothing before the committed position comes twice" if len(may_repeat) else "nothing comes twice"
        broken.append(f"{allowed}, but {len(innocent):,} did: {places(innocent)}")
    elif account.repeats > len(may_repeat):
        allowed = f"the {len(may_repeat):,} rows from the committed position on come once more at most"
        broken.append(f"{allowed}, but {account.repeats:,} times one did: {places(account.duplicated)}")
    if len(account.foreign):
        broken.append(
            f"what comes out went in, but {len(account.foreign):,} positions came that did not: "
            f"{places(account.foreign)}"
        )
    return broken


def handler_that_fails(reasons: Sequence[str], rows: int) -> list[str]:
    """What is wrong where a handler gives most rows up by what it raises or returns: its run shows nothing.

    ``reasons``: of the dead letters that tell of an exception.
    """
    if 2 * len(reasons) <= rows:
        return []
    reason, times = Counter(reasons).most_common(1)[0]
    became = f"{len(reasons):,} of {rows:,} became dead letters by what it raised or returned"
    return [f"the handler handles its rows, but {became}, {times:,} of them because: {reason}"]


def places(keys: Keys | Sequence[int]) -> str:
    """The first few positions."""
    named = "; ".join(position_text(int(key)) for key in keys[:SHOWN])
    return named + ("; ..." if len(keys) > SHOWN else "")


def milliseconds(value: float) -> str:
    """A time to recover as people read it."""
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def recovered_text(times: Sequence[float]) -> str:
    """How long it took: the median and the longest of several."""
    if not times:
        return "-"
    if len(times) == 1:
        return milliseconds(times[0])
    return f"{milliseconds(statistics.median(times))}, at most {milliseconds(max(times))}"


def result_lines(result: DrillResult) -> list[str]:
    """One line with the figures, and below it what is wrong and where to look."""
    lines = [f"drill {result.drill}: {result.verdict}  {result.error or figures_text(result)}"]
    lines += [f"  {note}" for note in result.notes]
    lines += [f"  broken: {sentence}" for sentence in result.broken]
    lines += [f"  inconclusive: {sentence}" for sentence in result.inconclusive]
    if result.broken:
        lines.append(f"  promised: {FAULTS[result.drill].promise}")
    if result.folder:
        lines.append(f"  input, results, dead letters and logs: {result.folder}")
    return lines


def figures_text(result: DrillResult) -> str:
    """What was counted."""
    return (
        f"rows in {result.rows_in:,}  rows out {result.rows_out:,}  dead-lettered {result.dead_lettered:,}  "
        f"lost {result.lost:,}  duplicated {result.duplicated:,}  recovered in {recovered_text(result.recovered_ms)}"
    )


def results_json(results: Sequence[DrillResult]) -> str:
    """For machines: one object a drill in a list."""
    return json.dumps([msgspec.to_builtins(result) for result in results], indent=1)
