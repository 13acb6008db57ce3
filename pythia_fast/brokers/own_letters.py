"""Dead letters in the state folder that a glob of the source matches: left out, or they would feed themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

from pythia_fast.errors import SourceError


class OwnLetters:
    """Which of the files that the source's paths match are no messages for it.

    That is what this handler writes to, and what others of the same state folder do, whose rows would come round
    through this one; but those are read where a path names their folder, for then somebody wants them. A file may be
    made at any time, also between two looks, so they are known by their names.
    """

    def __init__(self, paths: Sequence[str], files: Sequence[Path]) -> None:
        """``files``: where dead letters of this handler may be, all in one folder.

        Raises SourceError where a path names one of them, and nothing else.
        """
        self._folder = str(files[0].parent) if files else None
        self._names = frozenset(file.name for file in files)
        self._is_named = any(self._is_folder(os.path.dirname(os.path.abspath(path))) for path in paths)
        self._folders: dict[str, bool] = {}  #: as files' names have it -> whether it is the one of dead letters
        for path in paths:
            if (os.path.exists(path) or not has_magic(path)) and os.path.abspath(path) in self:
                raise SourceError(
                    f"{path} is where the handler that would read it writes its dead letters, which would feed itself: "
                    "read it with a handler of another name, or in a run with another state folder"
                )

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._folders:  # a look has many files of few folders, and resolving a path asks the disk
            self._folders[folder] = self._is_folder(folder)
        return self._folders[folder] and (name in self._names or not self._is_named)

    def _is_folder(self, folder: str) -> bool:
        return self._folder is not None and os.path.realpath(folder) == self._folder
