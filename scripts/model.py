"""Check the ring's model (docs/model/ring.pml) with SPIN, and that SPIN finds each of the faults put into it.

    model.py                 every configuration, then every mutant
    model.py --only WORD     those whose name has the word in it
    model.py --at-a-time 1   one after the other, instead of two at a time; the largest takes 1.3 GB

Needs spin and a C compiler.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "docs" / "model" / "ring.pml"
OUT = ROOT / "build" / "model"
MEMORY_MB = 2500
LONGEST_S = 300
DEPTH = 100_000


class Configuration(NamedTuple):
    """A world to be explored to its end."""

    name: str
    sizes: dict[str, int]
    cycles: bool = False  #: look for a run that never ends, too


#: The largest first, so that the small ones run beside them.
CONFIGURATIONS = [
    Configuration("two places, a death", {"WORKERS": 2, "SLOTS": 2, "BATCHES": 2, "CREDIT": 1, "DEATHS": 1}),
    Configuration("the circuit, a death", {"WORKERS": 2, "SLOTS": 1, "CREDIT": 1, "CIRCUIT": 1, "DEATHS": 1}),
    Configuration("spills, rounds, a death", {"SLOTS": 2, "SPILLS": 1, "PARKS": 1, "DEATHS": 1}),
    Configuration("rounds and merges, a death", {"SLOTS": 2, "PARKS": 3, "MERGES": 1, "DEATHS": 1}),
    Configuration("two deaths, cells used again", {"SLOTS": 2, "BATCHES": 3, "DEATHS": 2}),
    Configuration("the circuit, two slots", {"WORKERS": 2, "SLOTS": 2, "CREDIT": 1, "CIRCUIT": 1, "DEATHS": 0}),
    Configuration("every run ends", {"SLOTS": 2, "SPILLS": 1, "DEATHS": 1}, cycles=True),
    Configuration("every run ends, with rounds", {"SLOTS": 1, "PARKS": 1, "DEATHS": 1}, cycles=True),
]

SMALL = {"SLOTS": 2, "BATCHES": 2, "DEATHS": 0}
DYING = {"SLOTS": 2, "BATCHES": 2, "DEATHS": 1}
MERGES = {"SLOTS": 2, "BATCHES": 2, "PARKS": 3, "MERGES": 1, "DEATHS": 0}
ROUNDS = {"SLOTS": 1, "BATCHES": 2, "PARKS": 1, "DEATHS": 0}
PAIR = {"WORKERS": 2, "SLOTS": 2, "BATCHES": 2, "CREDIT": 1, "DEATHS": 0}


class Mutant(NamedTuple):
    """A fault: pieces of the model, each of which stands there once, and what takes their place."""

    name: str
    sizes: dict[str, int]
    changes: list[tuple[str, str]]
    cycles: bool = False


MUTANTS = [
    Mutant(
        "claim: without a look at the state",
        SMALL,
        [(":: state[1] == FREE -> s = 1", ":: s = 1"), (":: HAS_FREE_SLOT -> pf_claim", ":: pf_claim")],
    ),
    Mutant(
        "publish: tail before state and cell",
        SMALL,
        [
            (
                "MOVE(s, publish, FILLING, READY); CELL(w, tail[w]) = s };\n    pf_queue_slot(s, w)",
                (
                    "tail[w]++ };\n"
                    "    atomic { MOVE(s, publish, FILLING, READY); CELL(w, tail[w] - 1) = s };\n"
                    "    pf_notify_worker(w)"
                ),
            ),
        ],
    ),
    Mutant("publish: nobody is told", SMALL, [("    tail[w]++;\n    pf_notify_worker(w)", "    tail[w]++")]),
    Mutant(
        "publish: told before there is anything",
        SMALL,
        [("    tail[w]++;\n    pf_notify_worker(w)", "    pf_notify_worker(w);\n    tail[w]++")],
    ),
    Mutant(
        "notify: wakes before it adds to the signal",
        SMALL,
        [
            (
                "    ADDED(signal[w]);\n    atomic { if :: waiting[w] -> worker_sleeps[w] = 0 :: else fi }",
                "    atomic { if :: waiting[w] -> worker_sleeps[w] = 0 :: else fi };\n    ADDED(signal[w])",
            ),
        ],
    ),
    Mutant(
        "credit: completions that nobody collected",
        {**SMALL, "SLOTS": 3, "BATCHES": 3, "CELLS": 1, "CREDIT": 1},
        [(" && tail[w] - collected[w] < CELLS", "")],
    ),
    Mutant(
        "take: the same slot for two processes",
        {**PAIR, "CREDIT": 2},
        [
            (
                "        s = CELL(w, taken[w]);",
                "        s = (CELL(0, taken[0]) != NONE -> CELL(0, taken[0]) : CELL(w, taken[w]));",
            )
        ],
    ),
    Mutant(
        "take: counted before it is held",
        DYING,
        [
            ("        MOVE(s, take, READY, HELD);\n", ""),
            ("    };\n    taken[w]++", "    };\n    taken[w]++;\n    MOVE(s, take, READY, HELD)"),
        ],
    ),
    Mutant(
        "complete: counted before it is done",
        SMALL,
        [
            (
                "MOVE(s, complete, HELD, DONE) };\n    pf_hand_back(w, s)",
                (
                    "skip };\n    atomic { completed[w]++; holder[s] = 0 };\n"
                    "    atomic { MOVE(s, complete, HELD, DONE); s = NONE };\n"
                    "    pf_notify_done()"
                ),
            ),
        ],
    ),
    Mutant(
        "complete: nobody is told",
        SMALL,
        [
            (
                "    atomic { completed[w]++; holder[s] = 0; s = NONE };\n    pf_notify_done()",
                "    atomic { completed[w]++; holder[s] = 0; s = NONE }",
            )
        ],
    ),
    Mutant(
        "sleep: without a second look, the signal read late",
        SMALL,
        [
            (
                "    atomic { !MAY_SERVE(w) -> SEEN(signal[w]); waiting[w] = 1 };\n    if\n    :: MAY_SERVE(w)\n",
                "    !MAY_SERVE(w);\n    atomic { SEEN(signal[w]); waiting[w] = 1 };\n    if\n    :: false\n",
            ),
        ],
    ),
    Mutant("sleep: without saying so", SMALL, [("SEEN(signal[w]); waiting[w] = 1 }", "SEEN(signal[w]) }")]),
    Mutant(
        "room: the signal is read after the look for due batches",
        ROUNDS,
        [
            ("inline pf_wait_for_room(room) {\n", "inline pf_wait_for_room(room) {\n    SEEN(free_signal);\n"),
        ],
    ),
    Mutant(
        "release: nobody is told",
        {**SMALL, "SLOTS": 1},
        [
            ("MOVE(s, release, DONE, FREE)\n    };\n    pf_signal_room()", "MOVE(s, release, DONE, FREE)\n    }"),
        ],
    ),
    Mutant(
        "release: before its records are durable",
        {**SMALL, "SPILLS": 1},
        [
            (
                ":: pending[s] == OUTPUT_FULL ->\n        pending[s] = 0;",
                ":: pending[s] == OUTPUT_FULL ->\n        pending[s] = 0; pf_release(s); goto end_asleep;",
            ),
        ],
    ),
    Mutant(
        "wait: nobody is told",
        ROUNDS,
        [
            ("MOVE(s, wait, PARKED, WAITING);\n    pf_signal_room()", "MOVE(s, wait, PARKED, WAITING)"),
        ],
    ),
    Mutant("wait: not counted", ROUNDS, [("    n_waiting++;\n    MOVE(s, wait", "    MOVE(s, wait")]),
    Mutant(
        "requeue: without a look whether it waits still",
        MERGES,
        [
            (
                "    atomic { if :: state[s] == WAITING -> MOVE(s, recall, WAITING, FILLING) :: else -> s = NONE fi };",
                "    MOVE(s, recall, WAITING, FILLING);",
            ),
        ],
    ),
    Mutant(
        "reopen: without a look whether it waits still",
        MERGES,
        [
            (
                "    atomic { if :: state[s] == WAITING -> MOVE(s, reopen, WAITING, PARKED); got = 1 :: else fi };",
                "    MOVE(s, reopen, WAITING, PARKED); got = 1;",
            ),
        ],
    ),
    Mutant("reopen: still counted", MERGES, [("    :: got -> n_waiting--\n", "    :: got\n")]),
    Mutant("merge: rows left behind", MERGES, [("        batch[into] = batch[into] | batch[s];\n", "")]),
    Mutant(
        "return: while the holder lives",
        SMALL,
        [
            (
                "    :: atomic { posted[w] && !MUST_WAIT(w) -> pf_return(w, at) };",
                "    :: atomic { taken[w] != completed[w] && !MUST_WAIT(w) -> pf_return(w, at) };",
            ),
            ("        assert(!alive[w]);\n", ""),
        ],
    ),
    Mutant(
        "return: of nothing",
        DYING,
        [
            ("            MOVE(CELL(w, at), return, HELD|DONE|OUTPUT_FULL|PARKED, READY);\n", ""),
        ],
    ),
    Mutant(
        "return: not of what is held but not yet counted",
        DYING,
        [
            ("        :: taken[w] != tail[w] && state[CELL(w, taken[w])] != READY ->", "        :: false ->"),
        ],
    ),
    Mutant("return: `taken` stays", DYING, [("        taken[w] = completed[w];\n", "")]),
    Mutant(
        "return: while spilled records are on their way",
        {**DYING, "SPILLS": 1},
        [
            (
                "#define MUST_WAIT(w) (taken[w] != completed[w] && pending[CELL(w, completed[w])])",
                "#define MUST_WAIT(w) 0",
            ),
        ],
    ),
    Mutant(
        "death: told before it is in the list",
        DYING,
        [
            (
                "FORGOTTEN(signal[w]); posted[w] = 1 };\n        pf_notify_done();",
                "FORGOTTEN(signal[w]) };\n        pf_notify_done();\n        posted[w] = 1;",
            ),
        ],
    ),
    Mutant(
        "circuit: the probe without an exchange",
        {**PAIR, "CIRCUIT": 1},
        [
            (
                "        :: circuit == HALF_OPEN -> circuit = OPEN; probes++",
                "        :: circuit == HALF_OPEN -> probes++",
            ),
            (
                "        :: circuit == CLOSED\n        fi\n    }",
                (
                    "        :: circuit == CLOSED\n        fi\n    };\n"
                    "    if :: circuit == HALF_OPEN -> circuit = OPEN :: else fi"
                ),
            ),
        ],
    ),
    Mutant(
        "circuit: changed without telling",
        {**PAIR, "CIRCUIT": 1},
        [
            (
                "    circuit = word;\n    pf_notify_worker(0);\n#if WORKERS > 1\n    pf_notify_worker(1)\n#endif",
                "    circuit = word",
            ),
        ],
    ),
    Mutant("stop: nobody is told", SMALL, [("    stop[w] = 1;\n    pf_notify_worker(w)", "    stop[w] = 1")]),
    Mutant("deliveries: one never comes", SMALL, [("&& !late -> late = 1; at++", "-> at++")], cycles=True),
]


class Outcome(NamedTuple):
    """What SPIN said."""

    clean: bool
    states: int
    megabytes: float
    seconds: float
    said: str


def mutated(mutant: Mutant, text: str) -> str:
    for old, new in mutant.changes:
        if text.count(old) != 1:
            raise SystemExit(
                f"mutant {mutant.name!r}: {old!r} stands in {MODEL.name} {text.count(old)} times, not once"
            )
        text = text.replace(old, new)
    return text


def run(arguments: list[str], where: Path) -> str:
    done = subprocess.run(
        arguments, cwd=where, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout}")
    return done.stdout


def explore(name: str, text: str, sizes: dict[str, int], cycles: bool, optimise: str) -> Outcome:
    """Visit every state, or as many as there are to the first fault."""
    where = OUT / re.sub(r"\W+", "_", name)
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    (where / "ring.pml").write_text(text)
    run(["spin", "-a", *(f"-D{word}={value}" for word, value in sizes.items()), "ring.pml"], where)
    # A run that never ends is found as a cycle without progress, of which the model marks none: so any cycle is one.
    # At the end of a run nothing is repeated (NOSTUTTER), or each end would look like a cycle.
    search = ["-DNP", "-DNOSTUTTER"] if cycles else ["-DSAFETY"]
    compiler = os.environ.get("CC", "gcc")
    run(
        [
            compiler,
            optimise,
            "-w",
            *search,
            "-DNOFAIR",
            "-DVECTORSZ=512",
            f"-DMEMLIM={MEMORY_MB}",
            "-o",
            "pan",
            "pan.c",
        ],
        where,
    )
    began = time.monotonic()
    said = subprocess.run(
        ["./pan", f"-m{DEPTH}", *(["-l"] if cycles else [])],
        cwd=where,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LONGEST_S,
        check=False,
    ).stdout
    seconds = time.monotonic() - began
    (where / "pan.log").write_text(said)
    errors = re.search(r"errors: (\d+)", said)
    states = re.search(r"(\d+) states, stored", said)
    memory = re.search(r"([\d.]+)\s+total actual memory", said)
    if errors is None or states is None or memory is None:
        raise SystemExit(f"{name}: SPIN did not finish:\n{said}")
    unfinished = "too small" in said or "out of memory" in said or "Search not completed" in said
    if unfinished and errors[1] == "0":
        raise SystemExit(f"{name}: not all states were visited:\n{said}")
    return Outcome(errors[1] == "0", int(states[1]), float(memory[1]), seconds, said)


def why(said: str) -> str:
    found = re.search(r"pan:\d+: (.*?) \(at depth", said)
    if found is None:
        return "?"
    text = re.sub(r"\s+", " ", found[1]).replace("assertion violated ", "assert ")
    return "a run that never ends" if "cycle" in text else "nobody can go on" if "end state" in text else text[:70]


def check(configuration: Configuration) -> bool:
    text = MODEL.read_text()
    found = explore(configuration.name, text, configuration.sizes, configuration.cycles, "-O2")
    verdict = "sound" if found.clean else f"FAULT: {why(found.said)}"
    figures = f"{found.states:>11,} states {found.megabytes:>6,.0f} MB {found.seconds:6.1f} s"
    print(f"{configuration.name:32} {figures}  {verdict}", flush=True)
    if not found.clean:
        where = OUT / re.sub(r"\W+", "_", configuration.name)
        print(f"  the steps to it: cd {where.relative_to(ROOT)}; spin -t -p ring.pml", flush=True)
    return found.clean


def kill(mutant: Mutant) -> bool:
    """Whether SPIN finds the fault."""
    found = explore("mutant " + mutant.name, mutated(mutant, MODEL.read_text()), mutant.sizes, mutant.cycles, "-O0")
    print(f"  {mutant.name:56} {'NOT FOUND' if found.clean else why(found.said)}", flush=True)
    return not found.clean


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the ring's model with SPIN.")
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument("--at-a-time", type=int, default=2, help="how many to explore at once")
    arguments = parser.parse_args()
    only = arguments.only
    configurations = [one for one in CONFIGURATIONS if only in one.name]
    mutants = [one for one in MUTANTS if only in one.name]
    began = time.monotonic()
    with ThreadPoolExecutor(arguments.at_a_time) as pool:
        sound = list(pool.map(check, configurations))
        if mutants:
            print(f"{len(mutants)} faults put into the model:", flush=True)
        killed = list(pool.map(kill, mutants))
    print(
        f"{sum(sound)} of {len(sound)} configurations are sound, {sum(killed)} of {len(killed)} faults were found, "
        f"in {time.monotonic() - began:.0f} s"
    )
    return 0 if all(sound) and all(killed) else 1


if __name__ == "__main__":
    sys.exit(main())
