"""Every run leaves nothing behind, and proves it: no child, no descriptor, no segment."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


def _descriptors() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "/memfd:", "anon_inode:")):
            found.add(f"{fd} {target}")
    return found


def _segments() -> set[str]:
    return set(os.listdir("/dev/shm")) if Path("/dev/shm").exists() else set()


def _new_segments_that_stay(before: set[str]) -> set[str]:
    """Those that nobody removes: other test processes make some too, which pass."""
    deadline = time.monotonic() + 10
    while (new := _segments() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return new


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    # What a session's fixtures keep, such as the Kafka broker, was there before.
    children = set(psutil.Process().children(recursive=True))
    descriptors = _descriptors()
    segments = _segments()
    yield
    gc.collect()
    assert set(psutil.Process().children(recursive=True)) - children == set()
    assert _descriptors() - descriptors == set()
    assert _new_segments_that_stay(segments) == set()
