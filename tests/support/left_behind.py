"""What a test must not leave in its own process."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """No descriptor and no thread is left by what is done inside."""
    gc.collect()  # what earlier tests left in cycles is closed now, not within this one
    files, threads = len(os.listdir("/dev/fd")), threading.active_count()
    yield
    assert len(os.listdir("/dev/fd")) == files
    assert threading.active_count() == threads
