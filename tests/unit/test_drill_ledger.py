"""pythia_fast.drill.ledger: every row is counted, whatever comes of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.drill.ledger import balance, keys_of, position_of, position_text

KEYS = st.integers(0, 60)


@given(st.lists(st.tuples(st.integers(0, 32_767), st.integers(0, (1 << 48) - 1)), max_size=20))
def test_a_key_is_one_position(positions: list[tuple[int, int]]):
    partitions, offsets = np.array(positions, np.int64).reshape(-1, 2).T
    keys = keys_of(partitions, offsets)
    assert [position_of(key) for key in keys.tolist()] == positions
    assert len(set(keys.tolist())) == len(set(positions))


@given(st.sets(KEYS), st.lists(KEYS, max_size=100), st.lists(KEYS, max_size=30))
def test_the_account_is_what_counting_one_by_one_gives(inputs: set[int], outputs: list[int], letters: list[int]):
    account = balance(inputs, outputs, letters)
    came = Counter([*outputs, *letters])
    assert account.rows_in == len(inputs)
    assert account.rows_out == sum(key in inputs for key in outputs)
    assert account.dead_lettered == sum(key in inputs for key in letters)
    assert account.lost.tolist() == sorted(inputs - set(came))
    assert account.duplicated.tolist() == sorted(key for key in inputs if came[key] > 1)
    assert account.repeats == sum(came[key] - 1 for key in inputs if came[key])
    assert account.foreign.tolist() == sorted(set(came) - inputs)
    assert account.settled == (inputs <= set(came))


@given(st.sets(KEYS, min_size=1), st.data())
def test_rows_that_each_come_once_balance(inputs: set[int], data: st.DataObject):
    dead = data.draw(st.sets(st.sampled_from(sorted(inputs))))
    account = balance(inputs, inputs - dead, dead)
    assert account.settled
    assert not len(account.lost) + len(account.duplicated) + len(account.foreign) + account.repeats
    assert account.rows_out + account.dead_lettered == account.rows_in


def test_a_row_that_is_out_and_dead_lettered_came_twice():
    account = balance([1, 2], [1, 2], [2])
    assert account.duplicated.tolist() == [2]
    assert account.repeats == 1


def test_nothing_at_all_balances():
    account = balance([], [], [])
    assert (account.rows_in, account.rows_out, account.dead_lettered, account.settled) == (0, 0, 0, True)


def test_a_position_is_told_as_a_person_reads_it():
    assert position_text(int(keys_of(3, np.array([41_000]))[0])) == "partition 3 offset 41,000"
