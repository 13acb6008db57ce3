"""W1, the handler of the benchmarks: price*qty, log1p, 16 steps of the logistic map, summed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

STEPS = 16
GROWTH = 3.9


def score(price: npt.NDArray[np.float64], qty: npt.NDArray[np.int64]) -> float:
    """The sum of all rows' scores."""
    x = np.log1p(price * qty)
    x /= 1.0 + x
    for _ in range(STEPS):
        x *= GROWTH * (1.0 - x)
    return float(x.sum())


def score_one(price: float, qty: int) -> float:
    """The score of one row, as a loop over messages computes it: without an array."""
    x = math.log1p(price * qty)
    x /= 1.0 + x
    for _ in range(STEPS):
        x *= GROWTH * (1.0 - x)
    return x
