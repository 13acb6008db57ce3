"""Which positions may be committed. Pure: no I/O, no clock, no threads.

A batch is settled as a whole: its rows are handled, or durably dead-lettered, and its outputs are delivered.
Until then it is *live*, and nothing at or above its first offset of a partition may be committed. So the
committable position of a partition is the lowest first offset among its live batches, or, when none is
live, the position after the last settled message. Gaps in the offsets (compaction, transaction markers)
cost nothing, whatever order batches complete in, and the state is one number a partition.
"""

from __future__ import annotations

from collections.abc import Iterable


class Tracker:
    """Positions of the partitions that are assigned now.

    A partition index stands for one assignment (its epoch): results that arrive after it was forgotten
    are dropped.
    """

    def __init__(self) -> None:
        self._settled: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._assigned: set[int] = set()

    def assign(self, partition: int) -> None:
        self._assigned.add(partition)

    def forget(self, partition: int) -> None:
        """Revoked or lost: nothing of it is committed from here on."""
        self._assigned.discard(partition)
        self._settled.pop(partition, None)
        self._committed.pop(partition, None)

    def settle(self, partition: int, next_offset: int) -> None:
        """A batch that held messages of the partition is done; it went on at ``next_offset``."""
        if partition in self._assigned and next_offset > self._settled.get(partition, -1):
            self._settled[partition] = next_offset

    def committable(self, live: Iterable[tuple[int, int]], *, again: bool = False) -> dict[int, int]:
        """Partition -> position to commit, for those whose position moved since ``committed`` was told.

        ``again``: for all of them: the broker may have refused what it was handed.
        ``live``: (partition, first offset) of every batch that is not settled, open ones included. It must
        be read after the last ``settle``: a batch opened later begins above everything settled.
        """
        lowest: dict[int, int] = {}
        for partition, first_offset in live:
            if first_offset < lowest.get(partition, first_offset + 1):
                lowest[partition] = first_offset
        found = {}
        for partition, settled in self._settled.items():
            position = min(settled, lowest.get(partition, settled))
            if again or position > self._committed.get(partition, -1):
                found[partition] = position
        return found

    def held_back(self, live: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Partition -> position, where messages behind that position are done already: whoever goes on there has them
        again. ``live``: as of ``committable``."""
        positions = self.committable(live, again=True)
        return {partition: at for partition, at in positions.items() if at < self._settled[partition]}

    def committed(self, positions: dict[int, int]) -> None:
        """These were handed to the broker."""
        for partition, position in positions.items():
            if partition in self._assigned:
                self._committed[partition] = position
