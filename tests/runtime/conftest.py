"""Every run leaves nothing behind, and proves it: no child, no descriptor, no segment."""

from __future__ import annotations

import gc
import os
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


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    # What a session's fixtures keep, such as the Kafka broker, was there before.
    children = set(psutil.Process().children(recursive=True))
    descriptors = _descriptors()
    segments = set(os.listdir("/dev/shm")) if Path("/dev/shm").exists() else set()
    yield
    gc.collect()
    assert set(psutil.Process().children(recursive=True)) - children == set()
    assert _descriptors() - descriptors == set()
    if Path("/dev/shm").exists():
        assert set(os.listdir("/dev/shm")) - segments == set()
