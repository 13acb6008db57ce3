"""The table of rows that a share reader knows: it holds what was added and not removed, wherever rows fall."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext.kafka_share_reader import KnownRows

KEYS = st.tuples(st.integers(0, 3), st.integers(0, 400))


@given(st.lists(KEYS, max_size=3000), st.randoms(use_true_random=False))
def test_it_holds_what_a_set_holds(keys, random):
    rows, known = KnownRows(), set()
    for key in keys:
        if key in known and random.random() < 0.7:
            rows.remove(*key)
            known.remove(key)
        elif key not in known:
            rows.add(*key)
            known.add(key)
    assert len(rows) == len(known)
    assert all((partition, offset) in rows for partition, offset in known)
    assert not any(
        (partition, offset) in rows
        for partition in range(4)
        for offset in range(401)
        if (partition, offset) not in known
    )


def test_a_full_table_grows_and_empties():
    rows = KnownRows()
    for offset in range(5000):
        rows.add(offset % 7, offset * 1_000_003)
    for offset in range(0, 5000, 2):
        rows.remove(offset % 7, offset * 1_000_003)
    assert len(rows) == 2500
    assert all(((offset % 7, offset * 1_000_003) in rows) == bool(offset % 2) for offset in range(5000))
