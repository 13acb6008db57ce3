"""What a pool process says last, kept where it outlives it: faulthandler's stacks, or the traceback of the exception
with which it ended itself.

The nursery makes a file without a name for each child before it forks, and reads it when the child is dead.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import tempfile
from typing import NamedTuple, NoReturn

from pythia_fast.outlet import open_terminal, write_now
from pythia_fast.pool.messages import QuitReason, shorten
from pythia_fast.pool.users_frames import cause_of, format_error, place_of, shorten_stacks

#: Of one process; a stack is some hundred bytes a frame.
MOST_BYTES = 16_000
#: Characters of it that go into dead letters. It tells the innermost call first.
MOST_CHARACTERS = 3000

STDERR = 2

#: What a pool process exits with when its heap is full, it may open no descriptor, or an exception left its batch half
#: done: nothing it does from then on can be trusted. A handler may exit with the same, so the words below, and the
#: exception in a line, stand before its traceback, where no handler writes.
EXIT_QUIT = 4
_WORDS: dict[QuitReason, str] = {
    "memory": "pythia_fast: out of memory: ",
    "descriptors": "pythia_fast: out of descriptors: ",
    "exception": "pythia_fast: outside the handler's call: ",
}
CAUSE_CHARACTERS = 300

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


def quit_process(reason: QuitReason, error: BaseException) -> NoReturn:
    """End this process with the traceback of the error."""
    try:
        os.write(_own_fd, _WORDS[reason].encode())  # first: the rest takes memory
        cause = shorten(cause_of(error), CAUSE_CHARACTERS).replace("\n", " ")
        os.write(_own_fd, f"{cause}\n".encode())
        os.write(_own_fd, shorten(format_error(error), 2 * MOST_CHARACTERS).encode())
    finally:
        os._exit(EXIT_QUIT)


class LastWords(NamedTuple):
    """What a child said."""

    text: str = ""  #: the stacks of its threads, the beginning of them, or a traceback
    quit_reason: QuitReason | None = None  #: it ended itself
    cause: str = ""  #: with this exception, in a line


def take(fd: int) -> LastWords:
    """What the child said.

    It is told on stderr too, unless a crash at the same place was: a row that kills does so some times. An exception
    outside the handler's call is told by the supervisor, with the death. Closes the file. In the nursery.
    """
    if fd == NO_FILE:
        return LastWords()
    try:
        size = os.fstat(fd).st_size
        said = os.pread(fd, MOST_BYTES, 0)
    finally:
        os.close(fd)
    text = said.decode(errors="replace")
    reason = next((reason for reason, words in _WORDS.items() if text.startswith(words)), None)
    if reason is not None:
        cause, _, traceback = text.removeprefix(_WORDS[reason]).partition("\n")
        if reason != "exception":
            _tell_once(traceback.rstrip("\n"))
        return LastWords(traceback, reason, cause)
    if size > len(said):
        text += f"\n... {size - len(said)} bytes more"
    stacks = shorten_stacks(text.partition("\nExtension modules:")[0].rstrip("\n"))
    _tell_once(stacks)
    return LastWords(stacks if len(stacks) <= MOST_CHARACTERS else stacks[:MOST_CHARACTERS] + "\n...")


def _tell_once(text: str) -> None:
    if text and (place := place_of(text)) not in _told:
        if len(_told) >= MOST_PLACES:
            _told.clear()
        _told.add(place)
        tell(text + "\n")


def tell(text: str) -> None:
    """On stderr, as far as it takes it at once: where nobody reads it, the nursery must not wait."""
    terminal = open_terminal(STDERR)
    try:
        with contextlib.suppress(OSError):
            write_now(STDERR, text.encode(errors="backslashreplace"), terminal)
    finally:
        if terminal is not None:
            os.close(terminal)
