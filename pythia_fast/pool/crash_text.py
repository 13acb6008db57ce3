"""What a pool process says last: faulthandler's stacks, or the traceback of a MemoryError, kept where they outlive it.

The nursery makes a file without a name for each child before it forks, and reads it when the child is dead.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile
import traceback

#: Of one process; a stack is some hundred bytes a frame.
MOST_BYTES = 16_000
#: Characters of it that go into dead letters. It tells the innermost call first.
MOST_CHARACTERS = 3000

#: What a pool process exits with when its heap is full: nothing it does from then on can be trusted.
EXIT_OUT_OF_MEMORY = 4

_own_fd = -1


def make_file() -> int:
    """A descriptor of a new file that has no name. In the nursery."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pythia-crash")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def keep_in(fd: int) -> None:
    """Have this process' last words go there. In the child."""
    global _own_fd
    _own_fd = fd
    faulthandler.enable(fd)


def leave_out_of_memory(error: MemoryError) -> None:
    """End this process with the traceback of the error."""
    with contextlib.suppress(BaseException):
        os.write(_own_fd, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    os._exit(EXIT_OUT_OF_MEMORY)


def take(fd: int) -> str:
    """The beginning of what the child said; all of it is told on stderr. Closes the file. In the nursery."""
    try:
        size = os.fstat(fd).st_size
        said = os.pread(fd, MOST_BYTES, 0)
    finally:
        os.close(fd)
    text = said.decode(errors="replace")
    if size > len(said):
        text += f"\n... {size - len(said)} bytes more"
    if text:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text if text.endswith("\n") else text + "\n")
            sys.stderr.flush()
    stacks = text.partition("\nExtension modules:")[0]
    return stacks if len(stacks) <= MOST_CHARACTERS else stacks[:MOST_CHARACTERS] + "\n..."
