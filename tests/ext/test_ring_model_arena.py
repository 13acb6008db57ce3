"""The ring's model and the arena: the same operations lead both to the same states."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast._ext.intake import END
from tests.support.ring_feed import Feed

from . import ring_model
from .ring_model import Sizes, State, first

OPERATIONS = ("take", "complete", "die", "collect", "release")


@settings(max_examples=60, deadline=None)
@given(walk=st.lists(st.sampled_from(OPERATIONS), max_size=40))
def test_the_arena_does_what_the_model_does(tmp_path_factory, walk):
    """The same whole operations, applied to both; what one of them cannot do now, neither can the other."""
    sizes = Sizes(batches=6, slots=6, credit=6, queue=8, deaths=1000, spills=0)
    feed = Feed(tmp_path_factory.mktemp("spool"), [b"m"] * 6, capacity=1, slots=6, credit=6)
    try:
        assert feed.run() == END
        arena, in_hand, done = feed.arena, None, []
        model = drive(first(sizes), sizes, ring_model.intake, "stop")
        for operation in walk:
            if operation == "take" and in_hand is None:
                in_hand = arena.take(0, 0.0)
                model = drive(model, sizes, ring_model.process, "handle", "asleep")
                if in_hand is None:
                    model = model._replace(w_at="take", waiting=False)  # take(0, 0.0) does not wait
            elif operation == "complete" and in_hand is not None:
                arena.complete(0, in_hand, 0, 0, 0, 0, 0, 0, 0)
                model = drive(model, sizes, ring_model.process, "take")
                in_hand = None
            elif operation == "die":
                arena.return_taken(0)
                model = drive(model._replace(w_at="dead", d_at="sleep"), sizes, ring_model.completion, w_at="take")
                in_hand = None
            elif operation == "collect":
                done += arena.collect()
            elif operation == "release" and done:
                arena.release(done.pop(0))
                # The model collects one batch at a time, and releases it before the next.
                model = drive(model._replace(d_at="collect"), sizes, ring_model.completion, "room")
            facts = arena.worker_facts(0)
            assert facts.in_hand == model.tail - model.completed
            assert tuple(arena.states()) == model.slot
            assert (arena.slot_in_hand(0) is None) == (model.taken == model.completed)
    finally:
        feed.close()


def drive(state: State, sizes: Sizes, party, *until: str, w_at: str | None = None) -> State:
    """Take the party's steps, deaths apart, until its program counter stands at one of ``until``."""
    counter = {ring_model.intake: "i_at", ring_model.process: "w_at", ring_model.completion: "d_at"}[party]
    while True:
        steps = [following for label, following in party(state, sizes) if label not in ("W dies", "W spills")]
        assert steps, f"{party.__name__} cannot go on from {state}"
        state = steps[0]
        ring_model.check(state, sizes)
        if (w_at is not None and state.w_at == w_at) or getattr(state, counter) in until:
            return state
