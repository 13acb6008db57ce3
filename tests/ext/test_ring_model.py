"""The ring's protocol, explored: every order of steps, with deaths between any two of them (ring_model.py)."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator

import pytest

from . import ring_model
from .ring_model import ModelError, Sizes, State, check, finished, first, successors
from .test_ring_model_names import moves_of_the_model


@pytest.fixture(autouse=True)
def _no_search_for_cycles() -> Iterator[None]:
    """Of the hundred thousands of states none refers to itself."""
    gc.disable()
    yield
    gc.enable()


def explore(sizes: Sizes) -> int:
    """Visit every reachable state; a state without a step must be the end of a whole run. Returns their number."""
    start = first(sizes)
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        try:
            check(state, sizes)
            found = list(successors(state, sizes))
        except ModelError as error:
            raise AssertionError(f"{error}\n{story(came_from, state)}") from None
        if not found and not finished(state, sizes):
            raise AssertionError(f"nobody can go on, but not all is done\n{story(came_from, state)}")
        for label, following in found:
            if following not in came_from:
                came_from[following] = (state, label)
                queue.append(following)
    return len(came_from)


def story(came_from: dict[State, tuple[State, str] | None], state: State) -> str:
    """The steps that led to a state."""
    steps = []
    while (origin := came_from[state]) is not None:
        state, label = origin
        steps.append(label)
    return "\n".join(reversed(steps))


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(batches=3, slots=2, credit=2, deaths=1, spills=0),
        Sizes(batches=2, slots=2, credit=1, queue=2, deaths=1, spills=1),
        Sizes(batches=3, slots=1, credit=1, queue=2, deaths=2, spills=0),
        Sizes(batches=1, slots=1, credit=1, queue=2, deaths=3, spills=2),
        Sizes(batches=4, slots=3, credit=1, queue=2, deaths=0, spills=0),
    ],
    ids=str,
)
def test_no_order_of_steps_and_deaths_loses_repeats_or_blocks_a_batch(sizes):
    assert explore(sizes) > 1000


#: States of slots that only SPIN visits, with rows that wait, merges and the circuit (docs/model).
ONLY_IN_PROMELA = {"PARKED", "WAITING"}
#: What a dead process spilled is delivered before it is returned; the model here has it resumed in between.
RETURNED_AT_ONCE = ("OUTPUT_FULL", "READY")


def test_slots_change_their_states_as_in_the_model_that_spin_checks():
    """The same transitions, but for those of rows that wait: names of both, and of the code, cannot drift apart."""
    states = ("FREE", "FILLING", "READY", "HELD", "DONE", "OUTPUT_FULL")
    assert [getattr(ring_model, name) for name in states] == list(range(len(states)))
    sizes = Sizes(batches=2, slots=2, credit=2, deaths=1, spills=1)
    seen, queue, here = {first(sizes)}, deque([first(sizes)]), set()
    while queue:
        state = queue.popleft()
        for _, following in successors(state, sizes):
            pairs = zip(state.slot, following.slot, strict=True)
            here |= {(states[before], states[after]) for before, after in pairs if before != after}
            if following not in seen:
                seen.add(following)
                queue.append(following)
    there = {(before, after) for _, origins, after in moves_of_the_model() for before in origins}
    assert here | {RETURNED_AT_ONCE} == {move for move in there if ONLY_IN_PROMELA.isdisjoint(move)}


#: fault -> the party that has it, and the step that it takes instead
BROKEN = {
    "credit: without a look at what was collected": ("intake", "credit"),
    "publish: tail before the state": ("intake", "ready"),
    "take: no state change": ("process", "held"),
    "complete: count before the state": ("process", "done"),
    "sleep: without having looked again": ("process", "see"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_model_sees_faults_of_the_protocol(monkeypatch, fault):
    """The checks have teeth: each of these small changes of ring.h is found."""
    party, where = BROKEN[fault]
    sound = getattr(ring_model, party)
    changes = {
        "credit: without a look at what was collected": lambda s: s._replace(
            i_at="ready" if s.tail - s.completed < 1 else "see", i_seen=s.free_signal
        ),
        "publish: tail before the state": lambda s: s._replace(
            cells=ring_model.put(s.cells, s.tail % 2, s.i_slot), tail=s.tail + 1, published=s.published + 1, i_at="late"
        ),
        "take: no state change": lambda s: s._replace(w_at="taken"),
        "complete: count before the state": lambda s: s._replace(completed=s.completed + 1, w_at="late"),
        "sleep: without having looked again": lambda s: s._replace(w_seen=s.signal, w_at="asleep"),
    }

    def broken(s, sizes):
        at = s.i_at if party == "intake" else s.w_at
        if at == where:
            yield fault, changes[fault](s)
        elif at == "late" and party == "intake":
            yield "late", s._replace(slot=ring_model.put(s.slot, s.i_slot, ring_model.READY), i_at="notify", i_slot=-1)
        elif at == "late":
            yield "late", s._replace(slot=ring_model.put(s.slot, s.w_slot, ring_model.DONE), w_at="announce", w_slot=-1)
        else:
            yield from sound(s, sizes)

    monkeypatch.setattr(ring_model, party, broken)
    with pytest.raises((AssertionError, ModelError)):
        explore(Sizes(batches=4, slots=3, credit=1, queue=2, deaths=0, spills=0))
