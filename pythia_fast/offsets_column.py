"""What columns have in common whose rows are of any length: texts, and lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pythia_fast.selection import BoolArray, bits_to_mask


class OffsetsColumn:
    """Row i is what lies between ``offsets[i]`` and ``offsets[i + 1]``, of bytes or of values.

    ``offsets``: int32[n + 1]. ``validity``: uint8, a bitmap, least significant bit first, 1 = has a value; None where
    nothing is null.
    """

    __slots__ = ("offsets", "validity")

    def __init__(self, offsets: npt.NDArray[np.int32], bits: npt.NDArray[np.uint8] | None) -> None:
        self.offsets = offsets
        self.validity = bits

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """int32[n]: bytes of each text, values of each list; 0 at nulls."""
        return np.diff(self.offsets)

    @property
    def valid(self) -> BoolArray:
        """bool[n]: which rows have a value."""
        return bits_to_mask(self.validity, len(self))
