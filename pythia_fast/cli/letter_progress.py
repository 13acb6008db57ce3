"""A bar while letters are read, on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from pythia_fast.cli.telling import shown_on
from pythia_fast.dlq.store import DeadLetterStore

EVERY_LETTERS = 100  #: between two looks at how far it is


@contextlib.contextmanager
def letter_progress(store: DeadLetterStore) -> Iterator[Callable[[], None]]:
    """A function to call for every letter. Drawn on stderr, and gone at the end; nothing where that is no terminal."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = shown_on(sys.stderr)
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(store.describe(), total=None)
        letters = 0

        def step() -> None:
            nonlocal letters
            letters += 1
            if letters % EVERY_LETTERS == 0:
                read, total = store.progress()
                progress.update(task, completed=read, total=total)

        yield step
