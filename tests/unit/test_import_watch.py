"""pool/import_watch.py: where this thread is, told from another one that leaves no trace."""

from __future__ import annotations

import queue
import runpy
from pathlib import Path

from pythia_fast.pool import users_frames
from pythia_fast.pool.import_watch import ImportWatch
from pythia_fast.pool.nursery_process import thread_count

Stacks = queue.SimpleQueue[str]
EVERY_S = 0.01


def receive_from(stacks: Stacks, place: str) -> str:
    """The first stack that was taken there; those before it are of the way there."""
    while True:
        stack = stacks.get(timeout=30)
        if place in stack:
            return stack


def test_the_stack_of_a_slow_import_is_the_users(tmp_path: Path) -> None:
    stacks: Stacks = queue.SimpleQueue()
    script = tmp_path / "orders.py"
    script.write_text("def wait():\n    WAIT()\n\nwait()\n")
    said = []
    threads = thread_count()
    with ImportWatch(stacks.put, EVERY_S):
        runpy.run_path(str(script), {"WAIT": lambda: said.append(receive_from(stacks, "in receive_from"))})
    assert thread_count() == threads
    (stack,) = said
    assert stack.startswith(
        f'  File "{script}", line 4, in <module>\n    wait()\n  File "{script}", line 2, in wait\n    WAIT()\n'
    )


def test_of_a_deep_stack_both_ends_are_told() -> None:
    stacks: Stacks = queue.SimpleQueue()

    def descend(depth: int) -> str:
        return again(depth - 1)

    def again(depth: int) -> str:  # frames that are alike are told as one
        if depth:
            return descend(depth)
        return receive_from(stacks, "in receive_from")

    with ImportWatch(stacks.put, EVERY_S):
        stack = descend(100)
    assert stack.count("  File ") == 2 * users_frames.SHOWN_FRAMES
    assert stack.count("in again") + stack.count("in descend") == 2 * users_frames.SHOWN_FRAMES - 1
