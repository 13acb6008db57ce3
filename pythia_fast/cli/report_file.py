"""The file of ``--report``: written as a whole, also when the run fails."""

from __future__ import annotations

from pathlib import Path

from pythia_fast.cli.telling import tell
from pythia_fast.cli.whole_file import write_whole
from pythia_fast.errors import PythiaError
from pythia_fast.observer import Observer, RunInfo, Snapshot
from pythia_fast.report import RunReport


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
        try:
            write_whole(self._path, report.to_json())
        except OSError as error:
            self._trouble = f"the run is over, but its report cannot be written to {self._path}: {error.strerror}"
            if report.ending == "failed":  # what ended the run is told next, and nobody asks for this any more
                tell(self._trouble)

    def check(self) -> None:
        """Raises PythiaError when the report could not be written."""
        if self._trouble:
            raise PythiaError(self._trouble)
