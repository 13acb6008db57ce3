"""Who holds which place of a pool, and who waits for one. Pure: it knows processes by number.

A pool has places, each with its queue, and seats for spares behind them: seat ``workers + i`` is that of spare ``i``. A
process is launched for a place or for a spare's seat and keeps the number of its launch; a spare that is given a place
holds that place until its end, and its seat is free for the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Holder(NamedTuple):
    """What a process was when it ended."""

    place: int | None  #: None: it was a spare that waited
    spare: int | None  #: the seat's number among the spares, if it was launched for one and nobody followed it there
    leaving: bool = False  #: it had given its place up before


@dataclass(slots=True)
class Places:
    """The processes of one handler's pool.

    ``seats``: of spares; more than are kept, so that a new one need not wait until the last has left its seat.
    """

    workers: int
    spares: int  #: that are to wait
    seats: int
    _place_of: dict[int, int] = field(default_factory=dict)  #: pid -> place
    _pid_at: dict[int, int] = field(default_factory=dict)  #: place -> pid, the same the other way round
    _spare_of: dict[int, int] = field(default_factory=dict)  #: pid -> spare that waits, or was not seen up yet
    _from_spare: dict[int, int] = field(default_factory=dict)  #: pid -> spare that it was, if nobody followed it there
    _leaving: dict[int, int] = field(default_factory=dict)  #: pid -> place that it had; it runs teardown()
    _asked: set[int] = field(default_factory=set)  #: spares that are launched and not yet there

    def seat_of(self, spare: int) -> int:
        """The number that a spare is launched by."""
        return self.workers + spare

    def launched(self, seat: int, pid: int) -> None:
        """A process was made for a place or a spare's seat."""
        if pid in self._leaving:  # it said so before it was told of
            return
        if seat < self.workers:
            self._take_place(pid, seat)
        else:
            self._asked.discard(seat - self.workers)
            self._spare_of[pid] = seat - self.workers

    def asked(self, spare: int) -> None:
        """A process for the spare's seat was asked for, so whoever was there has noticed its place, and left the seat.

        When that one dies, the seat is another's: one that was given a place may not have noticed that yet.
        """
        self._asked.add(spare)
        self._from_spare = {pid: left for pid, left in self._from_spare.items() if left != spare}

    def vacant_seats(self) -> list[int]:
        """Spares' seats that nobody has or was asked for."""
        taken = self._asked | set(self._spare_of.values())
        return [spare for spare in range(self.seats) if spare not in taken]

    @property
    def missing_spares(self) -> int:
        """Spares that are to be launched."""
        return max(0, self.spares - len(self._asked) - len(self._spare_of))

    def waiting_spares(self) -> list[tuple[int, int]]:
        """(spare, pid) of those that can be given a place once they are up, in the order of their seats."""
        return sorted((spare, pid) for pid, spare in self._spare_of.items())

    def seated(self, pid: int, place: int) -> None:
        """The spare with this pid was given the place."""
        self._from_spare[pid] = self._spare_of.pop(pid)
        self._take_place(pid, place)

    def leaves(self, pid: int, place: int) -> bool:
        """The process with this place takes no more batches, though it still runs. False: so does one before it, so the
        place is its own until its end: those that leave do not become more and more."""
        if place in self._leaving.values():
            return False
        self._place_of.pop(pid, None)
        if self._pid_at.get(place) == pid:
            del self._pid_at[place]
        self._leaving[pid] = place
        return True

    def _take_place(self, pid: int, place: int) -> None:
        self._place_of[pid] = place
        self._pid_at[place] = pid

    def died(self, pid: int, seat: int) -> Holder:
        """A process is gone. ``seat``: what it was launched for, if nothing else is known of it."""
        if pid in self._leaving:
            return Holder(self._leaving.pop(pid), self._from_spare.pop(pid, None), leaving=True)
        if pid in self._place_of:
            place = self._place_of.pop(pid)
            if self._pid_at.get(place) == pid:
                del self._pid_at[place]
            return Holder(place, self._from_spare.pop(pid, None))
        if pid in self._spare_of:
            return Holder(None, self._spare_of.pop(pid))
        if seat < self.workers:
            return Holder(seat, None)
        self._asked.discard(seat - self.workers)
        return Holder(None, seat - self.workers)

    def place(self, pid: int) -> int | None:
        """The place that the process holds, or held until it left."""
        return self._place_of.get(pid, self._leaving.get(pid))

    def pid_at(self, place: int) -> int | None:
        """Whoever holds the place."""
        return self._pid_at.get(place)

    def processes(self) -> list[tuple[str, int]]:
        """("worker 0", pid) ... ("spare 0", pid): all there are, in order."""
        held = sorted((place, pid) for pid, place in self._place_of.items())
        return [
            *((f"worker {place}", pid) for place, pid in held),
            *((f"spare {spare}", pid) for spare, pid in self.waiting_spares()),
            *((f"worker {place} leaving", pid) for pid, place in self._leaving.items()),
        ]

    def __bool__(self) -> bool:
        return bool(self._place_of or self._spare_of or self._asked or self._leaving)
