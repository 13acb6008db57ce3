"""What the status of a batch's rows comes to, for tests of what marks them."""

from __future__ import annotations

import numpy as np

from pythia_fast._ext.batch_memory import BatchMemory
from pythia_fast.columns import view


def settled(memory: BatchMemory) -> tuple[int, ...]:
    """(unmarked, rejected, retried) rows."""
    return tuple(np.bincount(view(memory.status(), np.uint8), minlength=3).tolist())
