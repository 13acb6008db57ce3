"""The command ``python -m pythia_fast``: its sub-commands, and how every failure is told.

Nothing here may import NumPy, a broker client or rich: ``--help`` answers without them.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, TextIO, cast

import typer

from pythia_fast.cli import bench, control, demo, dlq, doctor, drill, mirror, record, replay, run, seek, version
from pythia_fast.cli.early_stop import StoppedBeforeStart
from pythia_fast.cli.exit_codes import AppImportError, ExitCode, code_of_error
from pythia_fast.cli.telling import Watched, release, tell
from pythia_fast.errors import PythiaError

PROGRAM = "python -m pythia_fast"

#: Typer brings click along under its own name or not, by version: its public BadParameter leads to the base
#: class of all wrong usage in both.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

commands = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Batches of messages as NumPy and Arrow columns, handled by a pool of processes.

    \b
    Examples:
      python -m pythia_fast demo
      python -m pythia_fast run orders:app --workers 8
      python -m pythia_fast COMMAND --help
    """,
    epilog="Exit codes: 0 done or drained, 1 failed, 2 wrong usage, 3 app cannot be imported, 4 source or sink "
    "cannot be reached or not read to its end, 5 work was left at a stop, 6 a drill's fault was not felt, "
    "130 stopped by a second signal.",
)
for _command in (run.run, record.record, replay.replay, mirror.mirror, seek.seek, drill.drill):
    commands.command(no_args_is_help=True)(_command)
for _other in (
    control.status,
    control.pause,
    control.resume,
    doctor.doctor,
    demo.demo,
    bench.bench,
    version.version,
):
    commands.command()(_other)
commands.add_typer(dlq.commands, name="dlq")


def _print_version(asked: bool) -> None:
    if asked:
        version.version()
        raise typer.Exit


@commands.callback()
def _program(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="As the command version.")
    ] = False,
) -> None:
    """Options that stand before any command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every failure is told on stderr."""
    output = Watched(sys.stdout)
    with contextlib.redirect_stdout(cast(TextIO, output)):
        code = _answer(arguments, output)
        trouble = release(sys.stdout)
    if trouble is not None:
        code = code or _tell_output(trouble)
    release(sys.stderr)
    return code


def _answer(arguments: Sequence[str] | None, output: Watched) -> int:
    command = typer.main.get_command(commands)
    try:
        code = command.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except UsageError as error:
        return _tell_usage(error, command, sys.argv[1:] if arguments is None else arguments)
    except PythiaError as error:
        return _tell_error(error)
    except StoppedBeforeStart as stop:
        tell(f"{stop}: stopped before anything was read")
        return ExitCode.DONE
    except (KeyboardInterrupt, typer.Abort):
        tell("stopped")
        return ExitCode.KILLED
    except OSError as error:
        if error is not output.trouble:
            raise
        release(sys.stdout)
        return _tell_output(error)
    return int(code or ExitCode.DONE)


def _tell_output(trouble: OSError) -> int:
    """The result of a command did not get where it was to go; a reader who has gone wants no more of it."""
    if not isinstance(trouble, BrokenPipeError):
        tell(f"error: standard output did not take the result: {trouble.strerror}")
    return ExitCode.FAILED


def _tell_usage(error: Exception, command: Any, arguments: Sequence[str]) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        tell(context.get_help())
        return ExitCode.USAGE
    tell(f"error: {_usage_message(error, context)}")
    tell(f"try: {context.command_path if context is not None else _command_path(command, arguments)} --help")
    return ExitCode.USAGE


def _command_path(command: Any, arguments: Sequence[str]) -> str:
    """The program with the commands that the arguments begin with: some errors of theirs come without a context."""
    path = PROGRAM
    for name in arguments:
        command = getattr(command, "commands", {}).get(name)
        if command is None:
            break
        path += f" {name}"
    return path


def _usage_message(error: Any, context: typer.Context | None) -> str:
    if type(error).__name__ != "NoSuchOption" or context is None:
        return str(error.format_message()).rstrip(".")
    known = sorted(name for parameter in context.command.params for name in parameter.opts if name.startswith("-"))
    near = get_close_matches(error.option_name, [*known, "--help"], n=1)
    hint = f"did you mean {near[0]}?" if near else f"known options: {', '.join(known)}"
    return f"No such option {error.option_name}; {hint}"


def _tell_error(error: PythiaError) -> int:
    if isinstance(error, AppImportError) and error.__cause__ is not None:
        tell("".join(traceback.format_exception(error.__cause__)).rstrip("\n"))
    tell(f"error: {error}")
    return code_of_error(error)
