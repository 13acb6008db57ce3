"""The model that SPIN checks (docs/model/ring.pml) and the code it stands for say the same.

Compared are the states, every transition of a slot by name, and for each operation the shared words that it stores,
reads to sleep on, sleeps on and wakes, in their order.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = (ROOT / "docs/model/ring.pml").read_text()
CODE = {
    path.name: path.read_text() for path in sorted((ROOT / "ext").glob("*.*")) if path.suffix in (".h", ".c", ".pyx")
}

#: Words of the arena that the model has; all others are figures, or belong to one party.
WORDS = "tail|taken|completed|collected|waiting|stop|done_waiting|free_waiting|n_waiting|circuit"
SIGNALS = "signal|done_signal|free_signal"

#: What another word of the model is in the code: a sleep on a signal, which is a bit of its own there.
SLEEPS = {"worker_sleeps": "signal", "done_sleeps": "done_signal", "free_sleeps": "free_signal"}

#: Functions that store a state they are given: each call of them carries the name.
GIVEN_A_STATE = ("pf_hand_back", "pf_queue_slot")

STORE = re.compile(r"pf_(?:store|add|exchange_if)\w*\(&[^;]*\bstate\b")
MARK = re.compile(r"transition: (\w+) ([A-Z_|]+) -> ([A-Z_]+)")

#: operation -> the file with it, where it is not ring.h
OPERATIONS = {
    "pf_claim": "ring.h",
    "pf_notify_worker": "ring.h",
    "pf_publish": "ring.h",
    "pf_requeue": "ring.h",
    "pf_circuit_admits": "ring.h",
    "pf_take": "ring.h",
    "pf_worker_sleep": "ring.h",
    "pf_notify_done": "ring.h",
    "pf_complete": "ring.h",
    "pf_park": "ring.h",
    "pf_spill": "ring.h",
    "pf_set_circuit": "ring.h",
    "pf_signal_room": "ring.h",
    "pf_resume": "ring.h",
    "pf_wait_until_due": "ring.h",
    "pf_release": "ring.h",
    "pf_reopen": "gather.h",
    "pf_merge": "gather.h",
    "pf_return": "ring.h",
    "pf_wait_for_room": "intake.h",
    "wait_done": "ring.pyx",
    "stop_worker": "ring.pyx",
}

#: Each is stored by one party that then reads another of them, while somebody does the reverse.
DEKKER = "tail|stop|circuit|waiting|done_waiting|free_waiting|signal|done_signal|free_signal"

#: Accesses to those words that nobody's sleep depends on.
NO_PAIRS = {
    "ring.h: pf_load(&w->tail": "the intake's own word",
    "ring.h: pf_store(&w->waiting": "of a process that is dead; the next one is launched later",
    "ring.pyx: pf_load(&self.arena.circuit": "a figure for the report",
}

Transition = tuple[str, frozenset[str], str]


def transition(name: str, from_states: str, to: str) -> Transition:
    return name, frozenset(from_states.split("|")), to


def marks_of_the_code() -> list[Transition]:
    return [transition(*found) for text in CODE.values() for found in MARK.findall(text)]


def moves_of_the_model() -> list[Transition]:
    found = re.findall(r"\bMOVE\(.*?, (\w+), ([A-Z_|]+), ([A-Z_]+)\)", MODEL)
    return [transition(*move) for move in found if move != ("NAME", "FROM", "TO")]


def body_in_the_code(operation: str) -> str:
    text = CODE[OPERATIONS[operation]]
    if OPERATIONS[operation].endswith(".pyx"):
        found = re.search(rf"^( +)def {operation}\(.*?\n(.*?)(?=^\1(?:def|@|#) ?)", text, re.S | re.M)
        assert found is not None, operation
        return re.sub(r'""".*?"""', "", found[2], flags=re.S)
    found = re.search(rf"^static [^;{{]*\b{operation}\([^;{{]*\) \{{\n(.*?)^\}}", text, re.S | re.M)
    assert found is not None, operation
    return re.sub(r"/\*.*?\*/", "", found[1], flags=re.S)


def inlined(operation: str, pattern: str, body_of) -> str:
    """The body of an operation, with those it calls in the place of the calls."""

    def expanded(call: re.Match[str]) -> str:
        return inlined(call[1], pattern, body_of)

    return re.sub(pattern, expanded, body_of(operation))


def bodies_in_the_model() -> dict[str, str]:
    text = re.sub(r"/\*.*?\*/", "", MODEL, flags=re.S)
    return dict(re.findall(r"^inline (\w+)\([^)]*\) \{\n(.*?)^\}", text, re.S | re.M))


def steps_of_the_code(operation: str) -> list[str]:
    helpers = "pf_notify_worker|pf_notify_done|pf_signal_room|pf_queue_slot|pf_hand_back"

    def body_of(name: str) -> str:
        if name in OPERATIONS:
            return body_in_the_code(name)
        found = re.search(rf"^static [^;{{]*\b{name}\([^;{{]*\) \{{\n(.*?)^\}}", CODE["ring.h"], re.S | re.M)
        assert found is not None, name
        return re.sub(r"/\*.*?\*/", "", found[1], flags=re.S)

    text = inlined(operation, rf"\b({helpers})\([^;\n]*\)", body_of)
    place = r"[\w.>()\[\], -]*?(?:->|\.)"
    kinds = {
        "state": rf"pf_(?:store\w*|exchange_if)\(&{place}state,",
        "queue": r"\bqueue\[[^\]]*\] = ",
        "word": rf"pf_(?:store\w*|add|exchange_if)\(&{place}(?P<word>{WORDS}),\s*(?P<value>\w*)",
        "added": rf"pf_add\(&{place}(?P<added>{SIGNALS}),",
        "seen": rf"(?:seen = |return )pf_load_sc\(&{place}(?P<seen>{SIGNALS})\)",
        "sleep": rf"pf_wait\(&{place}(?P<sleep>{SIGNALS}),",
        "wake": rf"pf_wake\(&{place}(?P<wake>{SIGNALS})\)",
    }
    return steps(text, kinds)


def steps_of_the_model(operation: str) -> list[str]:
    bodies = bodies_in_the_model()
    helpers = "|".join(sorted(bodies, key=len, reverse=True))
    text = inlined(operation, rf"\b({helpers})\([^;\n]*?\)", bodies.__getitem__)
    kinds = {
        "state": r"\bMOVE\(",
        "queue": r"\bCELL\([^=;]*\) = (?!=)",
        "word": rf"\b(?P<word>{WORDS})(?:\[\w+\])?(?: = (?!=)(?P<value>\w*)|\+\+|--)",
        "added": rf"\bADDED\((?P<added>{SIGNALS})",
        "seen": rf"\bSEEN\((?P<seen>{SIGNALS})",
        "sleep": rf"\b(?P<sleep>{'|'.join(SLEEPS)})(?:\[\w+\])? = 1",
        "wake": rf"\b(?P<wake>{'|'.join(SLEEPS)})(?:\[\w+\])? = 0",
    }
    return steps(text, kinds)


def steps(text: str, kinds: dict[str, str]) -> list[str]:
    """What of the kinds stands in the text, in its order, each once."""
    found = {}
    for match in re.finditer("|".join(f"(?P<is_{kind}>{pattern})" for kind, pattern in kinds.items()), text):
        (kind,) = (kind for kind in kinds if match[f"is_{kind}"] is not None)
        word = match[kind] if kind not in ("state", "queue") else ""
        step = f"{kind} {SLEEPS.get(word, word)}".strip()
        if kind == "word" and word.endswith("waiting") and word != "n_waiting":
            step += f" {match['value']}"
        found[step] = None
    return list(found)


def test_the_states_are_the_same():
    code = set(re.findall(r"^    PF_SLOT_([A-Z_]+) = \d+,", CODE["arena_layout.h"], re.M)) - {"PARTITIONS"}
    block = MODEL[MODEL.index("/* A slot's state is a bit") : MODEL.index("/* transition NAME")]
    model = set(re.findall(r"^#define ([A-Z_]+) \d+$", block, re.M))
    assert code == model
    assert len(code) == 8


def test_every_store_of_a_state_has_a_name():
    for name, text in CODE.items():
        for number, line in enumerate(text.splitlines(), 1):
            inside = re.findall(rf"\b(?:{'|'.join(GIVEN_A_STATE)})\(pf_arena|\bpf_store\(&slot->state, state\)", line)
            if inside:
                continue
            called = re.search(rf"\b(?:{'|'.join(GIVEN_A_STATE)})\(", line)
            if (STORE.search(line) or called) and "transition:" not in line:
                queued = "pf_store(&slot->state, PF_SLOT_READY);" in line and "pf_queue_slot" in text
                assert queued, f"{name}:{number} stores a slot's state without the name of a transition"
    # The one that is let pass above stands in pf_queue_slot, and nowhere else.
    bare = re.findall(r"pf_store\(&slot->state, PF_SLOT_READY\);\n", CODE["ring.h"])
    assert len(bare) == 1


def test_the_transitions_are_the_same():
    code, model = marks_of_the_code(), moves_of_the_model()
    assert len(code) >= 12
    assert sorted(code, key=str) == sorted(model, key=str)


def test_a_store_goes_to_the_state_that_its_name_tells():
    for text in CODE.values():
        for line in text.splitlines():
            mark = MARK.search(line)
            stored = re.search(r"PF_SLOT_([A-Z_]+)\)", line)
            if mark and stored:
                assert stored[1] == mark[3], line


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_takes_the_same_steps_in_the_same_order(operation):
    code = steps_of_the_code(operation)
    assert code, "an operation that changes nothing is none"
    if operation == "pf_take":  # the exchange is a step of its own, before it
        code = [step for step in code if step != "word circuit"]
    assert code == steps_of_the_model(operation)


def test_the_intake_reads_the_signal_before_it_looks_for_what_it_may_sleep_through():
    run = CODE["intake.h"][CODE["intake.h"].index("static int pf_intake_run(") :]
    assert run.index("pf_load_sc(&in->arena->free_signal)") < run.index("pf_requeue_due(in)") < run.index("->poll(")
    model = MODEL[MODEL.index("active proctype intake()") :]
    assert model.index("SEEN(free_signal)") < model.index("pf_requeue(") < model.index("append:")


def test_words_that_a_sleep_depends_on_are_stored_and_read_in_one_order_for_all():
    """With release and acquire alone, both sides of "store mine, read yours" may miss the other's store."""
    access = re.compile(rf"pf_(?:load|store)(?P<order>\w*)\(&(?P<of>[\w.>-]*?)(?:->|\.)(?:{DEKKER})\b")
    found = [
        (name, match)
        for name, text in CODE.items()
        for match in access.finditer(text)
        if match["of"] != "in" and not match["of"].endswith("intake")  # the intake's own, in its own memory
    ]
    assert len(found) > 20
    others = sorted(f"{name}: {match[0]}" for name, match in found if match["order"] != "_sc")
    assert others == sorted(NO_PAIRS)  # each once


def returned_in_the_code(function: str) -> str:
    """What a function of ring.h returns, with the words as the model calls them."""
    found = re.search(rf"\b{function}\([^;{{]*\) \{{\n(.*?)^\}}", CODE["ring.h"], re.S | re.M)
    assert found is not None, function
    return in_words_of_the_model(re.findall(r"return (.*?);", found[1])[-1])


def in_words_of_the_model(text: str) -> str:
    text = re.sub(r"pf_load(?:_sc)?\(&([\w>-]+)\)", r"\1", text)
    text = text.replace("w->", "").replace("arena->", "").replace("PF_CIRCUIT_", "")
    return text.replace("PF_QUEUE_CAPACITY", "CELLS").replace("credit", "CREDIT")


def condition_in_the_model(name: str) -> str:
    found = re.search(rf"^#define {name}\(w\) \((.*)\)$", MODEL, re.M)
    assert found is not None, name
    return found[1].replace("[w]", "")


def test_the_conditions_to_queue_take_and_sleep_are_the_same():
    in_hand = returned_in_the_code("pf_in_hand")
    credit = returned_in_the_code("pf_has_credit").replace("pf_in_hand(arena, worker)", in_hand)
    assert credit == condition_in_the_model("HAS_CREDIT")
    assert returned_in_the_code("pf_may_take") == condition_in_the_model("MAY_TAKE")
    sleeps = re.search(r"if \((.*)\) pf_wait\(", body_in_the_code("pf_worker_sleep"))
    assert sleeps is not None
    news = condition_in_the_model("MAY_SERVE").replace("MAY_TAKE(w)", "pf_may_take(arena, worker)").split(" || ")
    assert in_words_of_the_model(sleeps[1]) == " && ".join(f"!{word}" for word in news)
