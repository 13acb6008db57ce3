"""Modes of what a run keeps on disk: payloads, paths and positions, of which other users need not know."""

from __future__ import annotations

PRIVATE_MODE = 0o600  #: of files
PRIVATE_FOLDER_MODE = 0o700  #: of folders that are made; one that exists stays as it is
