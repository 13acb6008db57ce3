"""A source of which only so many messages are read."""

from __future__ import annotations

from pythia_fast._ext.message_limit import MessageLimit
from pythia_fast.brokers.base import Reader, ReaderContext, Source


class Limited(Source):
    """``source``, which ends after ``most`` messages."""

    def __init__(self, source: Source, most: int) -> None:
        self._source = source
        self._most = most

    def open(self, context: ReaderContext) -> Reader:
        reader = self._source.open(context)
        reader.limit = MessageLimit(reader.native, self._most)
        return reader

    def describe(self) -> str:
        return self._source.describe()

    def checkpoint_group(self, app: str, handler: str) -> str | None:
        return self._source.checkpoint_group(app, handler)

    def files(self) -> list[str]:
        return self._source.files()
