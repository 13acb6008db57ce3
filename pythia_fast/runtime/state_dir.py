"""The state folder: checkpoints, dead letters and spooled payloads. A run that cannot write there does not begin."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pythia_fast.errors import ConfigError
from pythia_fast.private import make_private_folders

#: Written as a trial: a file system may have room for a name and none for a byte.
TRIAL_BYTES = 4096


def prepare_folder(folder: Path, keeps: str, option: str) -> Path:
    """Make the folder, prove that it can be written, and return its absolute path.

    Raises ConfigError: ``cannot keep KEEPS in FOLDER: reason; choose another folder with OPTION``.
    """
    try:
        make_private_folders(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror
        if isinstance(error, FileExistsError):
            reason = "it is not a folder"
        elif isinstance(error, FileNotFoundError):  # folders on the way were made, or are there: /proc takes none
            reason = "the folder cannot be made there"
        raise ConfigError(f"cannot keep {keeps} in {folder}: {reason}; choose another folder with {option}") from None
    return folder.resolve()
