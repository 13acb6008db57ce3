"""Which batches may write into the open transaction, and which positions it commits. No I/O, no clock, no threads.

The intake cuts what it reads into epochs (ext/intake.h): the rows of all epochs up to one are exactly those below some
position of each partition. A transaction takes whole epochs. So it may be committed when every batch of its epochs is
settled, with the position after the last row of each partition; and a batch of a later epoch that is handled earlier
waits until the next transaction begins.
"""

from __future__ import annotations

from typing import Literal

#: "now": its outputs go into the open transaction. "later": it waits for another one. "never": it was read before a
#: transaction was aborted, so its rows are read again.
Turn = Literal["now", "later", "never"]


class Epochs:
    """The transactions of one handler, one after the other.

    A partition index stands for one assignment: what is settled for one that was forgotten counts for nothing.
    """

    def __init__(self) -> None:
        self._first = 0  #: epochs below were aborted
        self._last: int | None = None  #: of the open transaction; None: none is open
        self._undone = False  #: aborted, and not yet gone back: all that was read is read again
        self._assigned: set[int] = set()
        self._positions: dict[int, int] = {}

    @property
    def first(self) -> int:
        """The lowest epoch that counts."""
        return self._first

    @property
    def last(self) -> int | None:
        """The last epoch of the open transaction; None: none is open."""
        return self._last

    def begin(self, open_epoch: int, oldest: int | None) -> None:
        """A transaction is open: it takes the epochs that are closed, or, where nothing is left of those, the open one.

        Parameters: as of ``complete``. The open epoch is not taken along with closed ones: it is closed only after it
        has had a message, and they would wait for that.
        """
        self._last = open_epoch if oldest is None or oldest >= open_epoch else open_epoch - 1

    def extend(self, epoch: int) -> None:
        """The open transaction takes everything up to this epoch."""
        if self._last is not None and epoch > self._last:
            self._last = epoch

    def turn(self, epoch: int) -> Turn:
        """When a batch of this epoch may write its outputs."""
        if self._undone or epoch < self._first:
            return "never"
        return "now" if self._last is not None and epoch <= self._last else "later"

    def settle(self, partition: int, next_offset: int) -> None:
        """Everything that a batch of the open transaction gave rise to is in it; the partition went on there."""
        if partition in self._assigned and next_offset > self._positions.get(partition, -1):
            self._positions[partition] = next_offset

    def complete(self, open_epoch: int, oldest: int | None) -> bool:
        """Whether every batch of the open transaction is settled.

        Parameters:
            open_epoch: in which batches are opened now.
            oldest: the lowest epoch from ``first`` on of a batch that is not settled, looked up after ``open_epoch``;
                None: all are settled.
        """
        return self._last is not None and self._last < open_epoch and (oldest is None or oldest > self._last)

    def positions(self) -> dict[int, int]:
        """Partition -> position that the open transaction is to commit."""
        return dict(self._positions)

    def close(self) -> None:
        """It is complete: nothing more may write into it. Its positions are known until it is committed."""
        self._last = None

    def committed(self) -> None:
        """The transaction is durable with its positions."""
        self._positions.clear()

    def abort(self) -> None:
        """Nothing of it counts, and nothing of what was read since it began."""
        self._last = None
        self._undone = True
        self._positions.clear()

    def resume(self, epoch: int) -> None:
        """Every partition has gone back to its committed position; what is read from there is of this epoch on."""
        self._first = epoch
        self._undone = False

    def assign(self, partition: int) -> None:
        """A partition is read."""
        self._assigned.add(partition)

    def holds(self, partition: int) -> bool:
        """Whether rows of it are settled and not committed. To forget it then would repeat their outputs."""
        return partition in self._positions

    def forget(self, partition: int) -> None:
        """It was revoked. Raises ValueError where ``holds``: that transaction must be aborted first, or committed."""
        if self.holds(partition):
            raise ValueError(f"partition {partition} has rows in the open transaction")
        self._assigned.discard(partition)
