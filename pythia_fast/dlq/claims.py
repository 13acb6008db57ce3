"""That no two commands of one state folder deal with the same letters at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from pythia_fast.brokers.locked_file import FileLockedError, open_locked
from pythia_fast.errors import SinkError
from pythia_fast.private import PRIVATE_MODE, make_private_folders

FOLDER = "dlq"  #: of the state folder
MOST_NAME = 200  #: characters: file systems take 255 bytes


@contextlib.contextmanager
def one_command(state_dir: Path, name: str, what: str) -> Iterator[None]:
    """Hold ``dlq/<name>.lock``. ``what``: whose letters. Raises SinkError when another command is at it."""
    folder = state_dir / FOLDER
    path = folder / f"{_file_name(name)}.lock"
    try:
        make_private_folders(folder)
        fd = open_locked(str(path), PRIVATE_MODE)
    except FileLockedError:
        raise SinkError(
            f"another dlq command deals with letters of {what} ({path} is locked): wait for its end"
        ) from None
    except OSError as error:
        raise SinkError(
            f"cannot record letters dealt with in {folder}: {error.strerror}; choose another folder with --state-dir"
        ) from None
    try:
        yield
    finally:
        os.close(fd)


def _file_name(name: str) -> str:
    """The name as a file may have it; the key of a Redis stream may be longer than that."""
    quoted = quote(name, safe="@")
    return quoted if len(quoted) <= MOST_NAME else hashlib.sha256(name.encode()).hexdigest()
