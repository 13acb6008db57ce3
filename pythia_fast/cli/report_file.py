"""The file of ``--report``: written as a whole, also when the run fails."""

from __future__ import annotations

import sys
from pathlib import Path

from pythia_fast.errors import PythiaError
from pythia_fast.observer import Observer, RunInfo, Snapshot
from pythia_fast.report import RunReport


def beside(path: Path) -> Path:
    """Where a report is written, to be renamed when it is whole."""
    return path.with_name(path.name + ".new")


class ReportWriter(Observer):
    """Writes the report of the run it watches."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trouble = ""

    def started(self, info: RunInfo) -> None:
        """Nothing to write yet."""

    def sample(self, snapshot: Snapshot) -> None:
        """Nothing to write yet."""

    def event(self, text: str) -> None:
        """Nothing of it is in the report."""

    def finished(self, report: RunReport) -> None:
        fresh = beside(self._path)
        try:
            fresh.write_bytes(report.to_json())
            fresh.replace(self._path)
        except OSError as error:
            self._trouble = f"the run is over, but its report cannot be written to {self._path}: {error.strerror}"
            if report.ending == "failed":  # what ended the run is told next, and nobody asks for this any more
                print(self._trouble, file=sys.stderr)

    def check(self) -> None:
        """Raises PythiaError when the report could not be written."""
        if self._trouble:
            raise PythiaError(self._trouble)
