"""Messages that a handler hands on as they came: key, headers and payload byte for byte, null payloads too.

No value of theirs becomes a Python object: they are framed out of the batch's raw region (ext/message_records.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pythia_fast._ext.message_records import WITH_OFFSET, WITH_PLACE, WITH_TIME
from pythia_fast._ext.plan import Plan
from pythia_fast.decoders import Decoding
from pythia_fast.schema import describe

if TYPE_CHECKING:
    from pythia_fast.batch import Batch

__all__ = ["WITH_OFFSET", "WITH_PLACE", "WITH_TIME", "Forwarded", "HandOn", "verbatim"]


class Forwarded:
    """What a handler returns to have all messages of its batch sent on.

    ``what``: what a record says of where its message came from: WITH_PLACE (topic and partition), WITH_TIME and
    WITH_OFFSET, added up; 0: nothing, for sinks that know no places.
    """

    def __init__(self, batch: Batch[Any], what: int) -> None:
        self.batch = batch
        self.what = what

    def __len__(self) -> int:
        return len(self.batch)


class HandOn:
    """The handler of everything that moves messages and looks at none."""

    def __init__(self, what: int) -> None:
        self._what = what

    def __call__(self, batch: Any) -> Forwarded:
        return Forwarded(batch, self._what)


def verbatim() -> Decoding:
    """Every message is a row, null ones too, and has no value."""
    schema = describe(None)
    return Decoding("verbatim", schema, Plan(schema), tombstones="rows")
