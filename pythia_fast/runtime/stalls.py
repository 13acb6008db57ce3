"""Stalls: where a handler gets nowhere, one line names what waits, for how long, why, and what to do about it.

    no row was settled for STALL_S, though there is work    told
    rows are settled, but one is not for LATE_S             told, and so is a partition whose messages do not come
    it lasts                                                told again when it has lasted twice as long
    it goes on                                              told once, if the stall was

A handler that is merely slow is told of once: the next line is for a wait twice as long as any that was told. Pure: the
caller tells the time and what there is to see (runtime/standing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

STALL_S = 10.0
LATE_S = 60.0  #: of one row, while others are settled
LONGEST_PAUSE_S = 600.0  #: between two lines about one stall
SHOWN = 4  #: partitions that are named
SHORT_CALL = 0.25  #: of the row's age: a call that has lasted less is not what the row waits for
FORGET_S = 600.0  #: without a line, after which the next stall is told of as the first one was

#: Where rows that wait leave no room.
MORE_ROOM = "raise batch_size or shorten the backoff"

#: Where the oldest row is.
#:
#: "filling": in a batch that is not published. "queued": for a process. "starting": for one that is not up.
#: "circuit": the circuit keeps the processes from it. "called": in the hands of the handler, or what it returned or
#: raised is. "held": of a process that is between two calls. "results", "dead letters": until those of its batch are
#: durable. "done": nothing is left but to release it. "retry": until it is handled again. "kept": by the source,
#: because its lane has no room.
Stage = Literal[
    "filling", "queued", "starting", "circuit", "called", "held", "results", "dead letters", "done", "retry", "kept"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The oldest row that was taken in and is not completed."""

    place: str  #: "orders[3] offset 17"
    age_s: float
    stage: Stage
    pid: int = 0  #: of the process that has it, or will have it
    busy_s: float | None = None  #: how long that process has been at the batch in its hands; None: it has none
    deaths: int = 0  #: processes that died with that batch, or where it has none, with the row's own
    deadline_s: float | None = None  #: batch_deadline=
    fill_s: float = 0.0  #: batch_timeout=
    due_in_s: float = 0.0  #: "retry"
    due_at: str = ""  #: the same as a time of day
    asked_by: str = ""  #: the options that may have it wait so, as they are written
    trouble: str = ""  #: of the sink, the circuit or the spool, as a sentence

    @property
    def gathers(self) -> bool:
        """Whether it waits for its batch to fill, as batch_timeout= asks for."""
        return self.stage == "filling" and self.age_s < self.fill_s

    @property
    def as_asked(self) -> bool:
        """Whether it waits for a moment that is still to come, as the app asked for."""
        return self.gathers or (self.stage == "retry" and self.due_in_s > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A partition that has messages which the source does not bring."""

    place: str  #: "orders[3] offset 17": the first of them
    since_s: float
    messages: int | None = None  #: None: nobody knows how many
    silent_s: float = 0.0  #: how long the broker has not answered when it was asked; 0: it did


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What there is to see of one handler."""

    settled: int  #: rows, since the run began
    oldest: Row | None = None
    unread: Sequence[Unread] = ()
    paused: Sequence[str] = ()  #: why the source is paused on purpose
    rate_limit: float | None = None  #: rows a second, if it holds the source back right now
    held_back: Sequence[str] = ()  #: partitions that wait for room while others go on
    waiting: str = ""  #: a sentence about rows that wait for a retry and leave no room to read
    unread_output: str = ""  #: a sentence about standard output or error that nobody reads

    @property
    def work(self) -> bool:
        """Whether there is anything that could go on."""
        in_hand = self.oldest is not None and not self.oldest.gathers
        return bool(in_hand or self.unread or self.paused or self.rate_limit)


class Stalls:
    """Of one handler. ``look`` it at a scene about once a second."""

    def __init__(self, handler: str, stall_s: float, late_s: float) -> None:
        self._handler = handler
        self._stalled = Pace(stall_s)
        self._late = Pace(late_s)
        self._settled = -1
        self._since_s = 0.0  #: nothing was settled, though there was work
        self._late_place = ""  #: what was told of

    def look(self, now_s: float, scene: Scene) -> list[str]:
        """The lines that are due."""
        if scene.settled != self._settled or not scene.work:
            lines = self._goes_on(now_s, scene)
            self._settled, self._since_s = scene.settled, now_s
        else:
            lines = []
            waited_s = now_s - self._since_s
            if self._stalled.due(now_s, waited_s):
                lines.append(f"{self._handler}: nothing was completed for {_seconds(waited_s)}; {_sentence(scene)}")
        if self._stalled.telling:
            return lines  # the same row is not told of twice
        return lines + self._look_at_late_ones(now_s, scene)

    def _goes_on(self, now_s: float, scene: Scene) -> list[str]:
        if not self._stalled.end():
            return []
        waited_s = now_s - self._since_s
        how = "it goes on" if scene.settled != self._settled else "nothing waits any more"
        return [f"{self._handler}: {how} after {_seconds(waited_s)} in which nothing was completed"]

    def _look_at_late_ones(self, now_s: float, scene: Scene) -> list[str]:
        place, waited_s, sentence = _latest(scene)
        lines = []
        if place != self._late_place and self._late.end():
            lines.append(f"{self._handler}: {self._late_place} goes on")
        if place and self._late.due(now_s, waited_s):
            self._late_place = place
            lines.append(f"{self._handler}: while others are completed, {sentence}")
        return lines


class Pace:
    """When a wait is worth a line: once it has lasted for ``first_s``, and whenever it has lasted twice as long."""

    def __init__(self, first_s: float) -> None:
        self._first_s = self._next_s = first_s
        self._told_at_s = 0.0
        self.telling = False  #: the wait that lasts was told of

    def due(self, now_s: float, waited_s: float) -> bool:
        if not self.telling and now_s - self._told_at_s >= FORGET_S:
            self._next_s = self._first_s
        if waited_s < self._next_s:
            return False
        self.telling = True
        self._told_at_s = now_s
        self._next_s = min(2 * waited_s, waited_s + LONGEST_PAUSE_S)
        return True

    def end(self) -> bool:
        """The wait is over; whether it was told of."""
        told, self.telling = self.telling, False
        return told


def _latest(scene: Scene) -> tuple[str, float, str]:
    """(what waits for longest although it should not, how long, a sentence)."""
    row = scene.oldest
    found = ("", 0.0, "")
    if row is not None and not row.as_asked:
        held_back = f"; {_held_back(scene)}" if scene.held_back else ""
        unread = f"; {scene.unread_output}" if scene.unread_output else ""
        found = (row.place, row.age_s, _row_sentence(row) + held_back + unread)
    for part in scene.unread:
        if part.since_s > found[1]:
            found = (part.place, part.since_s, _unread_sentence([part]))
    return found


def _sentence(scene: Scene) -> str:
    parts = [_row_sentence(scene.oldest)] if scene.oldest is not None else []
    parts += [_held_back(scene)] if scene.held_back else []
    parts += [f"{scene.waiting}; {MORE_ROOM}"] if scene.waiting else []
    parts += scene.paused
    if scene.rate_limit is not None:
        parts.append(f"the source is held back by rate_limit={scene.rate_limit:g} rows per second")
    if scene.unread:
        parts.append(_unread_sentence(scene.unread))
    if scene.unread_output:
        parts.append(scene.unread_output)
    return "; ".join(parts)


def _row_sentence(row: Row) -> str:
    return f"the oldest row, {row.place}, came {_seconds(row.age_s)} ago and {_why(row)}"


def _why(row: Row) -> str:
    process = f"process {row.pid}" if row.pid else "a process"
    if row.stage == "filling":
        if row.gathers:
            return f"waits for its batch to fill, as batch_timeout={row.fill_s:g} asks for"
        if row.trouble:
            return f"waits with its batch while nothing is read: {row.trouble}; it is tried again every second"
        return "waits for a process that has room for its batch"
    if row.stage == "kept":
        return (
            "is held back with its partition, whose process has its hands full, while other partitions go on; see what "
            "that process does, or whether most rows are in few partitions"
        )
    if row.stage == "starting":
        if row.trouble:
            return f"waits for the process of its place: {row.trouble}"
        if row.deaths:
            return f"waits for the process of its place, which is not up yet{_deaths(row)}"
        return (
            "waits for the process of its place, which is not up yet; see what setup() of the handler does, or in the "
            "lines above why it could not start"
        )
    if row.stage == "circuit":
        return f"waits because {row.trouble}" if row.trouble else "waits because the circuit is open"
    if row.stage == "queued":
        return f"waits in the queue of {process}{_call(row)}"
    if row.stage == "called":
        # With a deadline it is known when a call began and when all of it is over; else a batch in hand is one.
        call = "in the handler" if row.deadline_s is None else "in the handler, or in what that returned or raised,"
        return f"is {call} in {process}{_call(row)}"
    if row.stage == "held":
        return (
            f"is in {process}, outside the handler, which decodes rows; see what it does (py-spy dump --pid {row.pid})"
        )
    if row.stage == "retry":
        if row.due_in_s > 0:
            return f"waits to be handled again at {row.due_at}, in {_seconds(row.due_in_s)}, as {row.asked_by} asks for"
        return f"has been due to be handled again since {row.due_at} and waits for room in the queue of {process}"
    if row.stage == "done":
        return "is done, but its batch is not released yet"
    waits = "results wait for the sink" if row.stage == "results" else "dead letters wait for where they are written to"
    return f"its batch is done, but its {waits}, which does not confirm them{f': {row.trouble}' if row.trouble else ''}"


def _call(row: Row) -> str:
    """How long its process has been at what it has in its hands, and who ends that."""
    if row.busy_s is None:
        return f", which has not taken it yet{_deaths(row)}"
    what = "it" if row.stage == "called" else "another batch"
    since = f", which has been at {what} for {_seconds(row.busy_s)}{_deaths(row)}"
    if row.busy_s < SHORT_CALL * row.age_s:
        if row.deaths:
            return since
        return f"{since}, so no call hangs: see what it does (py-spy dump --pid {row.pid})"
    if row.deadline_s is None:
        return (
            f"{since}; batch_deadline= is not set, so nothing ends it: see what it does "
            f"(py-spy dump --pid {row.pid}), and set batch_deadline= for calls that hang"
        )
    left_s = row.deadline_s - row.busy_s
    ends = f"ends it in {_seconds(left_s)}" if left_s > 0 else "is ending it"
    return f"{since}; batch_deadline={row.deadline_s:g} {ends}"


def _deaths(row: Row) -> str:
    """What the lines about each of them do not say: that it is one batch."""
    if not row.deaths:
        return ""
    died = f"{row.deaths:,} processes have" if row.deaths > 1 else "a process has"
    batch = "this batch" if row.stage != "queued" or row.busy_s is None else "that batch"
    return f"; {died} died with {batch}, which is handled in parts to find the rows that kill: see above how they died"


def _held_back(scene: Scene) -> str:
    named = ", ".join(scene.held_back[:SHOWN])
    more = f" and {len(scene.held_back) - SHOWN} more" if len(scene.held_back) > SHOWN else ""
    return f"the source keeps {named}{more} back meanwhile, whose process has its hands full"


def _unread_sentence(unread: Sequence[Unread]) -> str:
    named = ", ".join(_unread(part) for part in unread[:SHOWN])
    more = f" and {len(unread) - SHOWN} partitions more" if len(unread) > SHOWN else ""
    since_s = max(part.since_s for part in unread)
    silent_s = max(part.silent_s for part in unread)
    if silent_s:
        why = f"the broker was asked and has not answered for {_seconds(silent_s)}: is it up, and reached from here?"
    else:
        why = "the broker answers: its fetch is stuck, or a transaction was left open there"
    return f"for {_seconds(since_s)} nothing has come from {named}{more}; {why}"


def _unread(part: Unread) -> str:
    if part.messages is None:
        return part.place
    return f"{part.place}, where {part.messages:,} {'message waits' if part.messages == 1 else 'messages wait'}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 9.95 else f"{value:.1f} s"
