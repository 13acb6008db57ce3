"""What a pool process says last, kept where it outlives it: faulthandler's stacks, or the traceback with which it found
that it has no means to go on.

The nursery makes a file without a name for each child before it forks, and reads it when the child is dead.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import tempfile
from typing import NoReturn

from pythia_fast.outlet import open_terminal, write_now
from pythia_fast.pool.messages import Lacking
from pythia_fast.pool.users_frames import format_error, place_of, shorten_stacks

#: Of one process; a stack is some hundred bytes a frame.
MOST_BYTES = 16_000
#: Characters of it that go into dead letters. It tells the innermost call first.
MOST_CHARACTERS = 3000

STDERR = 2

#: What a pool process exits with when its heap is full, or it may open no descriptor: nothing it does from then on can
#: be trusted. A handler may exit with the same, so the words below stand before its traceback, where no handler writes.
EXIT_LACKING = 4
_WORDS: dict[Lacking, str] = {
    "memory": "pythia_fast: out of memory\n",
    "descriptors": "pythia_fast: out of descriptors\n",
}

#: Stands for a file that could not be made, because the nursery has no descriptor left: the words go to stderr.
NO_FILE = -1

#: A handler that closes descriptors it does not know, and then opens files, gets the lowest numbers: no stack must be
#: written into these.
OUT_OF_THE_WAY = 500

#: Places of crashes that are remembered.
MOST_PLACES = 1000

_own_fd = NO_FILE
_told: set[tuple[str, ...]] = set()  # in the nursery


def make_file() -> int:
    """A descriptor of a new file that has no name, or NO_FILE. In the nursery."""
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create("pythia-crash")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    except OSError:
        return NO_FILE


def keep_in(fd: int) -> None:
    """Have this process' last words go there. In the child."""
    global _own_fd
    _own_fd = STDERR
    if fd != NO_FILE:
        try:
            _own_fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY)
            os.close(fd)
        except OSError:  # it may not have descriptors so high
            _own_fd = fd
    faulthandler.enable(_own_fd)


def leave_lacking(what: Lacking, error: BaseException) -> NoReturn:
    """End this process with the traceback of the error."""
    with contextlib.suppress(BaseException):
        os.write(_own_fd, _WORDS[what].encode())
        os.write(_own_fd, format_error(error).encode(errors="backslashreplace"))
    os._exit(EXIT_LACKING)


def take(fd: int) -> tuple[str, Lacking | None]:
    """The beginning of what the child said, and for want of what it left, if it did.

    It is told on stderr too, unless a crash at the same place was: a row that kills does so some times. Closes the
    file. In the nursery.
    """
    if fd == NO_FILE:
        return "", None
    try:
        size = os.fstat(fd).st_size
        said = os.pread(fd, MOST_BYTES, 0)
    finally:
        os.close(fd)
    text = said.decode(errors="replace")
    lacking = next((what for what, words in _WORDS.items() if text.startswith(words)), None)
    if lacking is not None:
        text = text.removeprefix(_WORDS[lacking])
    if size > len(said):
        text += f"\n... {size - len(said)} bytes more"
    stacks = shorten_stacks(text.partition("\nExtension modules:")[0].rstrip("\n"))
    if stacks and (place := place_of(stacks)) not in _told:
        if len(_told) >= MOST_PLACES:
            _told.clear()
        _told.add(place)
        tell(stacks + "\n")
    return stacks if len(stacks) <= MOST_CHARACTERS else stacks[:MOST_CHARACTERS] + "\n...", lacking


def tell(text: str) -> None:
    """On stderr, as far as it takes it at once: where nobody reads it, the nursery must not wait."""
    terminal = open_terminal(STDERR)
    try:
        with contextlib.suppress(OSError):
            write_now(STDERR, text.encode(errors="backslashreplace"), terminal)
    finally:
        if terminal is not None:
            os.close(terminal)
