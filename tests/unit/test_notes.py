"""Notes fit the region they are written to, and the rows they name are never lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.pool.notes import Notes, RowErrors, read_notes, write_notes


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


def test_rows_that_fail_for_one_reason_keep_it_however_many_they_are():
    same = [
        RowErrors("failed", rows(i), "KeyError: 'customer'", 1, "KeyError", "Traceback " * 100) for i in range(4096)
    ]
    (read,) = round_trip(Notes(same), 65536 + 4 * 4096).errors
    assert (read.reason, read.error, read.traceback) == ("KeyError: 'customer'", "KeyError", "Traceback " * 100)
    assert read.indices().tolist() == list(range(4096))


def test_rows_that_kill_stay_one_by_one_in_their_order():
    made = [RowErrors("killed", rows(i), "died", 4 + i % 2) for i in range(5)]
    assert round_trip(Notes(made), 65536).errors == made


def test_rows_that_fail_for_many_reasons_keep_one_of_each_type():
    kinds = ["ValueError", "KeyError"]
    many = [
        RowErrors(
            "failed", rows(i), f"{kinds[i % 2]}: {i}", 1, kinds[i % 2], "Traceback\n" * 200 + f"{kinds[i % 2]}: {i}"
        )
        for i in range(1365)
    ]
    read = round_trip(Notes(many), 65536 + 4 * 4096).errors
    assert [(note.error, note.reason.partition(" (")[0]) for note in read] == [
        ("ValueError", "ValueError: 0"),
        ("KeyError", "KeyError: 1"),
    ]
    assert read[0].traceback.endswith("Traceback\nValueError: 0")
    assert "no room for what is said of the others" in read[0].reason
    assert sorted(index for note in read for index in note.indices().tolist()) == list(range(1365))


def test_names_of_kept_columns_are_told_where_there_is_no_room_for_all_texts():
    made = [RowErrors("failed", rows(i), f"{i}", 1, f"Error{i}", "\U0001f40d" * 8000) for i in range(100)]
    kept = ["price", *("\U0001f40d" * 200 for _ in range(1000))]
    read = round_trip(Notes(made, kept, "\U0001f40d" * 8000), 65536 + 4 * 100)
    assert read.kept == ["price", *["\U0001f40d" * 80] * 7]
    assert sorted(index for note in read.errors for index in note.indices().tolist()) == list(range(100))


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
