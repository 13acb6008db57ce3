"""Modes of what a run keeps on disk: payloads, paths and positions, of which other users need not know."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE_MODE = 0o600  #: of files
PRIVATE_FOLDER_MODE = 0o700  #: of folders that are made; one that exists stays as it is


def private_opener(path: str, flags: int) -> int:
    """For ``open(opener=)``: a file that is made is its user's alone from the beginning."""
    return os.open(path, flags, PRIVATE_MODE)


def make_private_folders(folder: Path) -> None:
    """Make a folder, and those on the way to it that are not there, each its user's alone. Raises OSError."""
    if not folder.parent.exists():
        make_private_folders(folder.parent)
    folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
