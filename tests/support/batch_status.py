"""What the status of a batch's rows comes to, for tests of what marks them."""

from __future__ import annotations

import numpy as np

from pythia_fast._ext.batch_memory import ROW_OK, BatchMemory
from pythia_fast.columns import view


def settled(memory: BatchMemory) -> tuple[int, ...]:
    """(ok, rejected, retried, failed) rows, those that nobody marked being ok."""
    status = view(memory.status(), np.uint8).copy()
    status[status == 0] = ROW_OK
    return tuple(np.bincount(status, minlength=5)[1:5].tolist())
