"""What commands say beside their result, and what becomes of standard streams that take no text (a full disk).

What is merely shown fails nothing; a result that cannot be written ends its command by ``main``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from pythia_fast.outlet import say_last
from pythia_fast.printable import without_controls

if TYPE_CHECKING:
    from rich.console import Console


class Shown:
    """A stream in front of another one, for what is merely shown: what that does not take is left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write it, or leave it out; the number of characters given."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


class Watched:
    """Standard output, which notes why it did not take something: so its errors are told from those of files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.trouble: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self.trouble = error
            raise

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self.trouble = error
            raise


def tell(text: str) -> None:
    """Print on stderr, if it takes it."""
    say_last(sys.stderr, f"{without_controls(text)}\n")


def no_plain_file(path: Path) -> str:
    """Why nothing that can be read twice is at a path."""
    if os.path.isdir(path):
        return f"{path} is a folder"
    if str(path) == "-" or os.path.exists(path):
        return f"{path} is no plain file"
    return f"there is no file {path}"


def shown_on(stream: TextIO, *, quiet: bool = False) -> Console:
    """A console for what is merely shown there."""
    from rich.console import Console

    return Console(file=cast(TextIO, Shown(stream)), quiet=quiet)


def show_last(text: str) -> None:
    """Print on stdout what a run ends with; that it cannot be written is told, and fails nothing."""
    trouble = say_last(sys.stdout, text)
    if trouble:
        tell(f"standard output did not take the summary: {trouble}")
        _lead_nowhere(sys.stdout)


def release(stream: TextIO) -> OSError | None:
    """Write what the stream still holds. Where that fails the stream leads nowhere from now on, and the error is
    returned: at its exit Python would try again, complain, and change the exit code."""
    try:
        stream.flush()
    except OSError as error:
        _lead_nowhere(stream)
        return error
    except ValueError:  # it is closed
        return None
    return None


def _lead_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
