"""Notes fit the region they are written to, and the rows they name are never lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.runtime.notes import Notes, RowErrors, read_notes, write_notes


def rows(*indices: int) -> bytes:
    return np.array(indices, "<u4").tobytes()


def round_trip(notes: Notes, room: int) -> Notes:
    region = memoryview(bytearray(room))
    used = write_notes(notes, region)
    assert used <= room
    return read_notes(region[:used])


def test_notes_come_back_as_they_were():
    notes = Notes(
        [RowErrors("failed", rows(1, 5), "ValueError: no", 2, "ValueError", "Traceback ...")], ["price"], "stop"
    )
    assert round_trip(notes, 10_000) == notes


def test_no_notes_are_no_bytes():
    assert not Notes()
    assert read_notes(memoryview(b"")) == Notes()


@given(
    st.lists(
        st.tuples(st.sampled_from(["rejected", "failed", "killed"]), st.integers(1, 40), st.text(max_size=3000)),
        min_size=1,
        max_size=60,
    )
)
def test_every_row_is_named_however_long_the_texts_are(errors):
    made, first = [], 0
    for kind, n, text in errors:
        made.append(RowErrors(kind, rows(*range(first, first + n)), text, 1, text, text))
        first += n
    read = round_trip(Notes(made, circuit="outage", outage="no service"), 2048 + 4 * first)
    assert (read.circuit, read.outage) == ("outage", "no service")
    assert sorted(index for error in read.errors for index in error.indices().tolist()) == list(range(first))
    kinds = {index: error.kind for error in read.errors for index in error.indices().tolist()}
    assert kinds == {index: error.kind for error in made for index in error.indices().tolist()}
