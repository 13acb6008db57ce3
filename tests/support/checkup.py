"""For tests of checkups: a context, and what came of one."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from pythia_fast.brokers.base import Sink, Source
from pythia_fast.brokers.checkup import CheckupContext, Finding

#: Long enough for a machine that is busy; what is silent is waited for no longer than the tests of that say.
TIMEOUT_S = 30.0


def context(state_dir: Path = Path("state"), timeout_s: float = TIMEOUT_S, **changes: Any) -> CheckupContext:
    """Of a source of a handler with the defaults of ``batch_handler``, on two processes."""
    plain = CheckupContext(
        app="shop",
        handler="score",
        role="source",
        state_dir=state_dir,
        timeout_s=timeout_s,
        deadline=time.monotonic() + timeout_s,
        workers=2,
        ordering="unordered",
        batch_size=4096,
        max_batch_bytes=1 << 20,
        batch_deadline_s=None,
        rows_in_hand=7 * 4096,
        transactional=False,
    )
    return dataclasses.replace(plain, **changes)


def found(end: Source | Sink, asked: CheckupContext | None = None) -> list[Finding]:
    """Everything that the checkup of a source or sink yields."""
    return list(end.checkup(asked if asked is not None else context()))


def told(findings: list[Finding], grade: str, words: str) -> Finding:
    """The one finding of this grade with these words; fails with all of them where there is none."""
    matching = [finding for finding in findings if finding.grade == grade and words in finding.what]
    assert matching, "\n".join(f"{finding.grade}: {finding.what} ({finding.change})" for finding in findings)
    return matching[0]


def bad(findings: list[Finding]) -> list[str]:
    """Warnings and problems."""
    return [finding.what for finding in findings if finding.grade in ("warning", "problem")]
