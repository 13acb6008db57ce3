"""Rows of a later round, noted so that a death counts as no attempt and changes no order.

What becomes of rows is noted in the slot first (pool/waiting.py) and then committed to its journal. A holder that dies
between the two loses nothing: who follows handles the rows again, at least once as ever. But the notes say already what
the dead holder made of them, so they are written and read such that each row's count can be told from them still:

    done                  the note stays as it was: in a later round it says that the row took part, and how often it
                          had been given before
    takes part next       the round and the count tell that this was noted, so one attempt less counts. (A row that only
                          waited behind another one has an attempt more for it.) A round that began early counts none.

Else a row that was done would begin with all its attempts anew, and behind others of its lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pythia_fast.pool.waiting import LanesInHand, RowIndices, WaitingRows


def note(waiting: WaitingRows, number: int, rows: RowIndices, noted: list[tuple[RowIndices, int]]) -> None:
    """The rows are done in round ``number``, but for those in ``noted``: (rows, times given)."""
    waiting.settle(rows if number == 1 else waiting.noted(rows), noted)


def by_given(waiting: WaitingRows, lanes: LanesInHand, rows: RowIndices) -> list[tuple[RowIndices, int]]:
    """The rows, in ascending order, by how often they were given to the handler in earlier rounds.

    The most often first, for those are the first of their lane: a row is not given to the handler while one
    before it waits. Rows that wait together though they came in different batches are taken apart before.
    """
    origins = waiting.origins
    found = []
    for part in [rows] if origins is None else lanes.apart(rows, origins):
        given = waiting.given(part)
        if not waiting.early_due_ns:
            noted = np.searchsorted(part, waiting.noted(part))
            given[noted] -= np.minimum(given[noted], 1)
        found += [(part[given == times], int(times)) for times in np.flatnonzero(np.bincount(given))[::-1]]
    return found
