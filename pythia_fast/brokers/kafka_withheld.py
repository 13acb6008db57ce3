"""Records of a transaction that is written late: they wait until all are there. No I/O, no clock, no threads.

So the broker does not know of the transaction, and its timeout does not run, while rows are in the handler's hands.
Records wait in their slots. Those of a batch that goes on once they are delivered are set aside, in memory, and are
reported as delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pythia_fast._ext import librdkafka

#: Bytes that are set aside at most; a batch with more waits until the transaction is written.
ASIDE_BYTES = 64 << 20
ASIDE = 1 << 62  #: tickets of what was set aside begin here


class Records(NamedTuple):
    """What is to be published with one ticket."""

    records: memoryview
    n_records: int
    ticket: int
    topic: int  #: its index among the producer's


class Withheld:
    """Of one producer, transaction after transaction."""

    def __init__(self) -> None:
        self.late = False  #: records are withheld
        self.refused = ""  #: why the open transaction has to be aborted
        self._waiting: list[Records] = []
        self._going_on = 0  #: ticket of the last batch that goes on when it is delivered
        self._aside: set[int] = set()  #: tickets of what was set aside, until it is delivered
        self._aside_bytes = 0
        self._sets_aside = True

    @property
    def unwritten(self) -> bool:
        """Whether records that were reported as delivered are not."""
        return bool(self._aside)

    def goes_on(self, ticket: int) -> None:
        """The batch of these records, which come next, goes on when they are delivered."""
        if self.late and self._sets_aside:
            self._going_on = ticket

    def keep(self, given: Records) -> bool:
        """Withhold records; True: they are set aside, so their buffer is free, and their ticket is done."""
        size = len(given.records)
        if given.ticket != self._going_on or self._aside_bytes + size > ASIDE_BYTES:
            self._waiting.append(given)
            return False
        self._aside.add(ASIDE + given.ticket)
        self._aside_bytes += size
        copy = memoryview(bytes(given.records))
        self._waiting.append(given._replace(records=copy, ticket=ASIDE + given.ticket))
        return True

    def take(self) -> Sequence[Records]:
        """What waits, in the order in which it came; it does no more."""
        waiting, self._waiting, self._aside_bytes = self._waiting, [], 0
        return waiting

    def delivered(self, ticket: int, failed: Sequence[tuple[int, int]]) -> bool:
        """Whether the ticket is of what was set aside. ``failed``: (record index, error code) of what was refused."""
        if ticket < ASIDE:
            return False
        if ticket in self._aside and failed:
            # Nobody has the rows of these records any more, to make dead letters of them.
            self._sets_aside = False
            self.refused = (
                f"a record of a batch that went on was refused ({librdkafka.error_text(failed[0][1])}); from now on "
                "batches wait for their records"
            )
        self._aside.discard(ticket)
        return True

    def drop(self) -> None:
        """The transaction comes to nothing, or the producer is closed."""
        self._waiting.clear()
        self._aside.clear()
        self._aside_bytes = 0
        self.refused = ""
