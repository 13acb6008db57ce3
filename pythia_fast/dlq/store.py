"""What a place that holds dead letters must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar, NamedTuple

from pythia_fast.runtime.dead_letter_form import StoredLetter


class Place(NamedTuple):
    """Where a letter lies in its store."""

    partition: int  #: 0 where the store has none
    start: int  #: its offset, or its first byte
    end: int  #: where the next one may begin


class Entry(NamedTuple):
    """A dead letter and its place."""

    stored: StoredLetter
    place: Place


class DeadLetterStore(ABC):
    """A file, topic, stream or queue of dead letters. Made cheaply; nothing is opened before it is read or claimed."""

    #: What it lies in: a file, or the broker's kind.
    kind: ClassVar[str] = "file"
    #: Whether ``settle()`` may be called again and again while ``entries()`` is read: the fewer letters are sent twice
    #: when the command dies, and the fewer places are kept.
    settles_in_parts = False
    #: Records met by ``entries()`` that are no dead letters; they are left alone.
    foreign = 0

    @abstractmethod
    def describe(self) -> str:
        """One short phrase: ``file dead.ndjson``."""

    @abstractmethod
    def locate(self, place: Place) -> str:
        """One short phrase for a letter's place in it."""

    @abstractmethod
    def describe_foreign(self) -> str:
        """What is to be told of ``foreign`` records of the last ``entries()``, a sentence; empty: there were none."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """The letters there are when reading begins, in the order of each partition, but for those dealt with.

        Raises SourceError.
        """

    @abstractmethod
    def progress(self) -> tuple[int, int]:
        """(read, total) of the reading under way, in bytes or records."""

    @abstractmethod
    def claim(self) -> AbstractContextManager[None]:
        """Have the store to oneself: inside, ``entries()`` and then ``settle()`` may be called, once each (but see
        ``settles_in_parts``).

        Raises SinkError when somebody else writes it.
        """

    @abstractmethod
    def settle(self, places: Iterable[Place], *, archive: bool) -> list[str]:
        """Mark these letters of the last ``entries()`` as dealt with; durable on return.

        ``archive``: keep them beside it, where the store is a file. Returns what a person should be told.
        Raises SinkError; the letters then count as not dealt with.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what is open. May be called twice."""
