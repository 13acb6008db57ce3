"""The ring as a model: every store and load of ext/ring.h that another party can see is one step.

Three parties, as in ext/arena_layout.h: the intake thread (I), one pool process after the other in one place of the
pool (W; it may die between any two of its steps), and the completion thread (D), which also returns what a dead
process held. Memory is sequentially consistent here; that the C code is where it matters is said by its ``_sc``
operations and its release/acquire pairs.

A party is a program counter and a few registers; ``successors`` gives every state that one step of one party leads to.
Sleeping is as in ext/atomics.h: a futex compares and falls asleep in one step, and who notifies adds to the word first
and wakes only those who said that they wait. There are no timeouts here: a lost wake-up is a state without a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

FREE, FILLING, READY, HELD, DONE, OUTPUT_FULL = range(6)
NOBODY = -1


class Sizes(NamedTuple):
    """How large a world is explored."""

    batches: int = 3
    slots: int = 2
    credit: int = 2
    queue: int = 4  #: cells; a power of two above the credit
    deaths: int = 2
    spills: int = 1


class State(NamedTuple):
    """Everything that decides what can happen next."""

    # the arena
    slot: tuple[int, ...]
    batch_in: tuple[int, ...]  #: batch that the intake wrote into each slot
    cells: tuple[int, ...]
    tail: int = 0
    taken: int = 0
    completed: int = 0
    signal: int = 0  #: W sleeps on it
    waiting: bool = False
    done_signal: int = 0  #: D sleeps on it
    done_waiting: bool = False
    free_signal: int = 0  #: I sleeps on it
    free_waiting: bool = False
    stop: bool = False
    # intake: program counter, slot in hand, signal seen, batches published
    i_at: str = "claim"
    i_slot: int = NOBODY
    i_seen: int = 0
    published: int = 0
    # pool process: program counter, slot in hand, signal seen
    w_at: str = "take"
    w_slot: int = NOBODY
    w_seen: int = 0
    deaths: int = 0
    spills: int = 0
    # completion thread: program counter, position in the queue, slot in hand, signal seen
    d_at: str = "sleep"
    d_position: int = 0  #: completions seen: `collected` of the arena
    d_slot: int = NOBODY
    d_seen: int = 0
    # what the outside world saw
    handled: tuple[int, ...] = ()  #: times each batch was handed to the handler
    released: tuple[int, ...] = ()  #: batches in the order of their release


class ModelError(AssertionError):
    """Something that must never happen did."""


def first(sizes: Sizes) -> State:
    return State(
        slot=(FREE,) * sizes.slots,
        batch_in=(NOBODY,) * sizes.slots,
        cells=(NOBODY,) * sizes.queue,
        handled=(0,) * sizes.batches,
    )


def put(values: tuple[int, ...], at: int, value: int) -> tuple[int, ...]:
    return (*values[:at], value, *values[at + 1 :])


def successors(state: State, sizes: Sizes) -> Iterator[tuple[str, State]]:
    for party in (intake, process, completion):
        yield from party(state, sizes)


def intake(s: State, sizes: Sizes) -> Iterator[tuple[str, State]]:
    if s.i_at == "claim":
        if s.published == sizes.batches:
            yield "I ends", s._replace(i_at="stop")
            return
        for i, state in enumerate(s.slot):
            if state == FREE:
                batch_in = put(s.batch_in, i, s.published)
                yield "I claims", s._replace(slot=put(s.slot, i, FILLING), batch_in=batch_in, i_slot=i, i_at="credit")
                return
        yield "I stalls", s._replace(i_at="see", i_seen=s.free_signal)
    elif s.i_at == "credit":
        yield "I looks for credit", s._replace(i_at="ready" if has_credit(s, sizes) else "see", i_seen=s.free_signal)
    elif s.i_at == "see":
        yield "I says it waits", s._replace(free_waiting=True, i_at="look again")
    elif s.i_at == "look again":
        room = FREE in s.slot if s.i_slot == NOBODY else has_credit(s, sizes)
        yield "I looks again", s._replace(i_at="awake" if room else "futex")
    elif s.i_at == "futex":
        yield "I falls asleep", s._replace(i_at="asleep" if s.free_signal == s.i_seen else "awake")
    elif s.i_at == "awake":
        yield "I goes on", s._replace(free_waiting=False, i_at="claim" if s.i_slot == NOBODY else "credit")
    elif s.i_at == "ready":
        yield "I publishes: state", s._replace(slot=put(s.slot, s.i_slot, READY), i_at="cell")
    elif s.i_at == "cell":
        yield "I publishes: cell", s._replace(cells=put(s.cells, s.tail % sizes.queue, s.i_slot), i_at="tail")
    elif s.i_at == "tail":
        yield "I publishes: tail", s._replace(tail=s.tail + 1, published=s.published + 1, i_slot=NOBODY, i_at="notify")
    elif s.i_at == "notify":
        yield "I notifies: signal", s._replace(signal=s.signal + 1, i_at="wake")
    elif s.i_at == "wake":
        yield "I notifies: wake", wake_process(s)._replace(i_at="claim")
    elif s.i_at == "stop":  # the main thread's word, once the sources have ended and all is settled
        if len(s.released) == sizes.batches:
            yield "stop: word", s._replace(stop=True, i_at="stop: signal")
    elif s.i_at == "stop: signal":
        yield "stop: signal", s._replace(signal=s.signal + 1, i_at="stop: wake")
    elif s.i_at == "stop: wake":
        yield "stop: wake", wake_process(s)._replace(i_at="ended")


def has_credit(s: State, sizes: Sizes) -> bool:
    return s.tail - s.completed < sizes.credit and s.tail - s.d_position < sizes.queue


def wake_process(s: State) -> State:
    return s._replace(w_at="awake") if s.waiting and s.w_at == "asleep" else s


def wake_completion(s: State) -> State:
    return s._replace(d_at="awake") if s.done_waiting and s.d_at == "asleep" else s


def wake_intake(s: State) -> State:
    return s._replace(i_at="awake") if s.free_waiting and s.i_at == "asleep" else s


def process(s: State, sizes: Sizes) -> Iterator[tuple[str, State]]:
    if s.w_at in ("dead", "left"):
        return
    if s.deaths < sizes.deaths:
        yield "W dies", s._replace(w_at="dead", deaths=s.deaths + 1)
    if s.w_at == "take":
        if s.tail == s.taken:
            yield "W finds nothing", s._replace(w_at="left" if s.stop else "see", w_seen=s.signal)
        else:
            yield "W takes: cell", s._replace(w_slot=s.cells[s.taken % sizes.queue], w_at="held")
    elif s.w_at == "see":
        yield "W says it waits", s._replace(waiting=True, w_at="look again")
    elif s.w_at == "look again":
        news = s.tail != s.taken or s.stop
        yield "W looks again", s._replace(w_at="awake" if news else "futex")
    elif s.w_at == "futex":
        yield "W falls asleep", s._replace(w_at="asleep" if s.signal == s.w_seen else "awake")
    elif s.w_at == "awake":
        yield "W goes on", s._replace(waiting=False, w_at="take")
    elif s.w_at == "held":
        if s.slot[s.w_slot] != READY:
            raise ModelError(f"W takes a slot that is {s.slot[s.w_slot]}")
        yield "W takes: state", s._replace(slot=put(s.slot, s.w_slot, HELD), w_at="taken")
    elif s.w_at == "taken":
        yield "W takes: taken", s._replace(taken=s.taken + 1, w_at="handle")
    elif s.w_at == "handle":
        if s.slot[s.w_slot] != HELD:
            raise ModelError(f"W handles a slot that is {s.slot[s.w_slot]}")
        batch = s.batch_in[s.w_slot]
        yield "W handles", s._replace(handled=put(s.handled, batch, s.handled[batch] + 1), w_at="done")
        if s.spills < sizes.spills:
            slot = put(s.slot, s.w_slot, OUTPUT_FULL)
            yield "W spills", s._replace(slot=slot, spills=s.spills + 1, w_at="spill: signal")
    elif s.w_at == "spill: signal":
        yield "W spills: signal", s._replace(done_signal=s.done_signal + 1, w_at="spill: wake")
    elif s.w_at == "spill: wake":
        yield "W spills: wake", wake_completion(s)._replace(w_at="spilled")
    elif s.w_at == "spilled":
        if s.slot[s.w_slot] == HELD:
            yield "W resumes", s._replace(w_at="handle")
    elif s.w_at == "done":
        yield "W completes: state", s._replace(slot=put(s.slot, s.w_slot, DONE), w_at="count")
    elif s.w_at == "count":
        yield "W completes: count", s._replace(completed=s.completed + 1, w_slot=NOBODY, w_at="announce")
    elif s.w_at == "announce":
        yield "W announces: signal", s._replace(done_signal=s.done_signal + 1, w_at="announce: wake")
    elif s.w_at == "announce: wake":
        yield "W announces: wake", wake_completion(s)._replace(w_at="take")


def completion(s: State, sizes: Sizes) -> Iterator[tuple[str, State]]:
    if s.w_at == "dead" and s.d_at in ("sleep", "asleep"):  # the kernel has said so: that is news of its own
        # What it held is returned, in one go: its holder is no more, and the intake does not touch these words.
        slot, at = s.slot, s.completed
        if spilled(s, sizes) is not None:
            yield "D takes spilled records of the dead", s._replace(slot=put(slot, spilled(s, sizes), HELD))
            return
        while at != s.taken:
            slot = put(slot, s.cells[at % sizes.queue], READY)
            at += 1
        if s.taken != s.tail:  # it may have died between HELD and the store of `taken`
            slot = put(slot, s.cells[s.taken % sizes.queue], READY)
        yield (
            "D returns",
            s._replace(slot=slot, taken=s.completed, waiting=False, w_at="take", w_slot=NOBODY, d_at="awake"),
        )
        return
    if s.d_at == "sleep":
        yield "D says it waits", s._replace(done_waiting=True, d_at="futex")
    elif s.d_at == "futex":
        yield "D falls asleep", s._replace(d_at="asleep" if s.done_signal == s.d_seen else "awake")
    elif s.d_at == "awake":
        yield "D goes on", s._replace(done_waiting=False, d_seen=s.done_signal, d_at="collect")
    elif s.d_at == "collect":
        held = spilled(s, sizes)
        if s.d_position != s.completed:
            slot = s.cells[s.d_position % sizes.queue]
            if s.slot[slot] != DONE:
                raise ModelError(f"D collects a slot that is {s.slot[slot]}")
            yield "D collects", s._replace(d_slot=slot, d_position=s.d_position + 1, d_at="credit")
        elif held is not None:
            yield "D resumes", s._replace(slot=put(s.slot, held, HELD))
        else:
            yield "D has seen all", s._replace(d_at="sleep")
    elif s.d_at == "release":
        released = (*s.released, s.batch_in[s.d_slot])
        slot = put(s.slot, s.d_slot, FREE)
        yield "D releases", s._replace(slot=slot, released=released, d_slot=NOBODY, d_at="room")
    elif s.d_at in ("credit", "room"):
        yield f"D signals {s.d_at}", s._replace(free_signal=s.free_signal + 1, d_at=f"{s.d_at}: wake")
    elif s.d_at == "credit: wake":
        yield "D wakes I", wake_intake(s)._replace(d_at="release")
    elif s.d_at == "room: wake":
        yield "D wakes I", wake_intake(s)._replace(d_at="collect")


def spilled(s: State, sizes: Sizes) -> int | None:
    if s.taken == s.completed:
        return None
    slot = s.cells[s.completed % sizes.queue]
    return slot if s.slot[slot] == OUTPUT_FULL else None


def check(s: State, sizes: Sizes) -> None:
    """What holds in every state."""
    if not s.completed <= s.taken <= s.tail:
        raise ModelError(f"counters are out of order: {s.completed}, {s.taken}, {s.tail}")
    if s.tail - s.completed > sizes.credit:
        raise ModelError("more batches in hand than credit")
    queued = [s.cells[at % sizes.queue] for at in range(s.completed, s.tail)]
    if len(set(queued)) != len(queued):
        raise ModelError("a slot is queued twice")
    if any(s.slot[slot] in (FREE, FILLING) for slot in queued):
        raise ModelError("a queued slot is free or being filled")
    if s.released != tuple(range(len(s.released))):
        raise ModelError(f"batches of one place are released out of order, or twice: {s.released}")
    if any(s.handled[batch] == 0 for batch in s.released):
        raise ModelError("a batch is released that was never handled")


def finished(s: State, sizes: Sizes) -> bool:
    """Every batch went all the way."""
    return len(s.released) == sizes.batches and all(state == FREE for state in s.slot) and s.w_at == "left"
