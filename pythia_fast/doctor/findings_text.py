"""What was found, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from pythia_fast.brokers.checkup import Grade

if TYPE_CHECKING:
    from pythia_fast.doctor.examination import Subject

GRADES: tuple[Grade, ...] = get_args(Grade)
WIDTH = max(len(grade) for grade in GRADES)


def counts_of(subjects: Sequence[Subject]) -> dict[str, int]:
    """Grade -> how many findings have it."""
    found = Counter(finding.grade for subject in subjects for finding in subject.findings)
    return {grade: found[grade] for grade in GRADES}


def findings_lines(subjects: Sequence[Subject]) -> list[str]:
    """A heading a subject, a line a finding, one more for what to change, and a sum at the end."""
    lines = []
    for subject in subjects:
        lines.append(subject.where)
        for finding in subject.findings:
            lines.append(f"  {finding.grade:<{WIDTH}}  {finding.what}")
            if finding.change:
                lines.append(f"  {'':<{WIDTH}}  change: {finding.change}")
    counts = counts_of(subjects)
    lines.append(", ".join(_count(counts[grade], grade) for grade in GRADES))
    return lines


def _count(number: int, grade: Grade) -> str:
    return f"{number} {grade}" if number == 1 or grade == "ok" else f"{number} {grade}s"


def findings_data(app: str, subjects: Sequence[Subject]) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return {
        "app": app,
        "counts": counts_of(subjects),
        "subjects": [
            {
                "where": subject.where,
                "findings": [
                    {"grade": finding.grade, "what": finding.what, "change": finding.change}
                    for finding in subject.findings
                ],
            }
            for subject in subjects
        ],
    }
