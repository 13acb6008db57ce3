"""text_ops.pyx: the loops refuse arrays that do not belong together before they read a byte."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from pythia_fast._ext import text_ops

DATA = np.frombuffer(b"abc", np.uint8)


def offsets(*values: int) -> Any:
    return np.array(values, np.int32)


def flags(n: int) -> Any:
    return np.zeros(n, np.uint8)


@pytest.mark.parametrize("bad", [offsets(), offsets(0, 4), offsets(-1, 2), offsets(0, 3, 1)])
def test_offsets_outside_the_data_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        text_ops.to_list(bad, DATA, None, True)
    with pytest.raises(ValueError, match="do not fit"):
        text_ops.equal_to(bad, DATA, b"a", flags(1))
    with pytest.raises(ValueError, match="do not fit"):
        text_ops.equal_pairs(bad, DATA, offsets(0, 1), DATA, flags(1))
    with pytest.raises(ValueError, match="do not fit"):
        text_ops.gather(bad, DATA, np.array([0]), offsets(0, 1), flags(1))


def test_lengths_that_differ_are_refused() -> None:
    good = offsets(0, 1, 3)
    with pytest.raises(ValueError, match="wrong length"):
        text_ops.to_list(good, DATA, flags(1), False)
    with pytest.raises(ValueError, match="wrong length"):
        text_ops.equal_to(good, DATA, b"a", flags(3))
    with pytest.raises(ValueError, match="differ in length"):
        text_ops.equal_pairs(good, DATA, offsets(0, 1), DATA, flags(2))
    with pytest.raises(ValueError, match="wrong length"):
        text_ops.gathered_offsets(good, np.array([0]), offsets(0))
    with pytest.raises(ValueError, match="do not fit"):
        text_ops.gather(good, DATA, np.array([0]), offsets(0, 5), flags(1))


def test_gathered_values_beyond_2_gib_are_refused() -> None:
    huge = offsets(0, 2**31 - 1)
    with pytest.raises(ValueError, match="2 GiB"):
        text_ops.gathered_offsets(huge, np.array([0, 0]), offsets(0, 0, 0))


@pytest.mark.parametrize(("index", "gathered"), [(2, offsets(0, 1)), (-1, offsets(0, 1)), (0, offsets(0, 2))])
def test_gathering_what_was_not_measured_is_refused(index: int, gathered: Any) -> None:
    with pytest.raises(ValueError, match="does not belong"):
        text_ops.gather(offsets(0, 1, 3), DATA, np.array([index]), gathered, flags(2))


def test_none_is_no_array() -> None:
    with pytest.raises(TypeError):
        text_ops.to_list(cast(Any, None), DATA, None, True)


def test_an_index_outside_is_refused() -> None:
    for index in (2, -1):
        with pytest.raises(IndexError, match="out of range for 2 values"):
            text_ops.gathered_offsets(offsets(0, 1, 3), np.array([index]), offsets(0, 0))
