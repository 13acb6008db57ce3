"""What the exit code of ``python -m pythia_fast`` says. docs/cli.md shows the same table."""

from __future__ import annotations

from enum import IntEnum

from pythia_fast.errors import ConfigError, PythiaError, SinkError, SourceError
from pythia_fast.report import RunReport


class ExitCode(IntEnum):
    """One code a kind of ending."""

    DONE = 0  #: the sources ended, or the run was asked to stop and drained
    FAILED = 1  #: the run failed: no process gets up, a bar missed, a promise broken, letters that dlq left,
    # a problem that doctor found, a bug
    USAGE = 2  #: a command, an option or a setting that cannot work
    IMPORT = 3  #: the app cannot be imported
    UNREACHABLE = 4  #: a source or a sink cannot be reached or cannot go on, or part of a file cannot be read
    DEADLINE = 5  #: stopped, with work left that would not be done by the drain deadline; the next run reads it again
    INCONCLUSIVE = 6  #: a drill broke no promise, but its fault did not come, or was not felt
    KILLED = 130  #: a second signal stopped the run at once


class AppImportError(PythiaError):
    """MODULE:APP does not lead to an App. ``__cause__`` is what the user's module raised, if it did."""


def code_of_error(error: PythiaError) -> ExitCode:
    """The code with which the command ends that this error stopped."""
    match error:
        case AppImportError():
            return ExitCode.IMPORT
        case ConfigError():
            return ExitCode.USAGE
        case SourceError() | SinkError():
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.FAILED


def code_of_report(report: RunReport) -> ExitCode:
    """The code with which the command ends whose run gave this report."""
    match report.ending:
        case "deadline":
            return ExitCode.DEADLINE
        case "killed":
            return ExitCode.KILLED
        case _:
            return ExitCode.UNREACHABLE if report.unread_bytes else ExitCode.DONE
