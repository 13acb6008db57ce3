"""The positions that a checkpoint held, of files that were not taken up yet: found by name and by identity.

There may be thousands of files, and each asks once for the entries that are of it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pythia_fast.brokers.checkpoint import FilePosition, Identity, identity_of
from pythia_fast.errors import SourceError


class KnownFiles:
    """Entries in the order in which they were stored. Their names and identities stay what they are here."""

    def __init__(self, files: Iterable[FilePosition]) -> None:
        self._all = {id(entry): entry for entry in files}
        self._by_path: defaultdict[str, list[FilePosition]] = defaultdict(list)
        self._by_identity: defaultdict[Identity, list[FilePosition]] = defaultdict(list)
        for entry in self._all.values():
            self._by_path[entry.path].append(entry)
            self._by_identity[entry.identity].append(entry)

    def __iter__(self) -> Iterator[FilePosition]:
        return iter(self._all.values())

    def __contains__(self, identity: Identity) -> bool:
        return bool(self.of(identity))

    def named(self, path: str) -> Sequence[FilePosition]:
        """Those that bore this name when they were last looked at."""
        return self._by_path.get(path, ())

    def of(self, identity: Identity) -> Sequence[FilePosition]:
        """Those of this file, whatever its name was."""
        return self._by_identity.get(identity, ())

    def forget(self, identity: Identity, path: str | None) -> None:
        """Drop those of this file and, where there is a ``path``, those of this name."""
        for entry in [*self.of(identity), *(self.named(path) if path is not None else ())]:
            if self._all.pop(id(entry), None) is not None:
                self._by_path[entry.path].remove(entry)
                self._by_identity[entry.identity].remove(entry)


def known_position(path: str, fd: int, known: KnownFiles) -> int | None:
    """Where to go on in the open file, whatever its name was; None when it is none of those that are known.

    Raises SourceError when it is the same file but what was read is no longer in it.
    """
    facts = os.fstat(fd)
    for entry in known.of(identity_of(facts)):
        same_head = entry.has_same_head(fd)
        if facts.st_size < entry.position and (entry.path == path or same_head):
            lost = entry.size - entry.position
            raise SourceError(
                f"{path} shrank: it was read up to byte {entry.position:,} and has {facts.st_size:,} now; "
                + (f"{lost:,} bytes behind that, which were not read, are gone; " if lost > 0 else "")
                + 'if it was written anew, read it with start="beginning"'
            )
        if same_head and entry.has_same_tail(fd):
            return entry.position
    return None
