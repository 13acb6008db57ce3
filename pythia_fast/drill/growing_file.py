"""A file to which others append lines, read again and again."""

from __future__ import annotations

from pathlib import Path


class GrowingFile:
    """Remembers up to where it was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def new_lines(self) -> list[bytes]:
        """Whole lines that nobody was given before; none where there is no such file yet."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return whole.splitlines()
