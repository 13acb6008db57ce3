"""Every run leaves nothing behind, and proves it: no child, no descriptor, no segment."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.script_process import Script


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


def _left_behind(children: set[psutil.Process]) -> list[str]:
    """Descendants that were not there before, with the processes between them and us.

    What a session's server starts is its own: RabbitMQ's node runs a short-lived Erlang about once a minute.
    """
    found = []
    for child in set(psutil.Process().children(recursive=True)) - children:
        try:
            line = child.parents()
            if not children.intersection(line):
                found.append(f"{child} {child.cmdline()[-6:]} of {[(each.pid, each.cmdline()[:6]) for each in line]}")
        except psutil.NoSuchProcess:
            continue
    return found


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
    left = _left_behind(children)
    assert not left, "\n".join(left)
    assert _descriptors() - descriptors == set()
    assert _new_segments_that_stay(segments) == set()


@pytest.fixture
def script(tmp_path):
    made = []

    def start(*parts, **options):
        made.append(Script(tmp_path, *parts, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()
