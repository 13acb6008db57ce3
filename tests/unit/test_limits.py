"""pythia_fast.pool.limits: when a process has done enough."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import resource
import warnings

import pytest

from pythia_fast.errors import ConfigError
from pythia_fast.pool.limits import (
    LOOK_EVERY_S,
    SHARE_OF_DESCRIPTORS,
    TELL_EVERY_S,
    Limits,
    Recycled,
    check_after_setup,
    descriptor_limit,
    has_no_descriptor,
    lowest_free_descriptor,
    own_memory_mb,
)


def test_the_last_of_so_many_batches_is_told():
    limits = Limits(3, None)
    assert [limits.reached() for _ in range(3)] == [
        "",
        "",
        "has handled as many batches as max_batches_per_process=3 lets it",
    ]


def test_memory_is_looked_at_now_and_then():
    now, used, looks = [0.0], [50.0], []

    def memory() -> float:
        looks.append(now[0])
        return used[0]

    limits = Limits(None, 100, memory_mb=memory, clock=lambda: now[0])
    assert not limits.reached()
    used[0] = 101.0
    assert not limits.reached()
    now[0] += LOOK_EVERY_S
    assert limits.reached() == "takes 101 MB, more than max_memory_mb=100"
    assert looks == [0.0, LOOK_EVERY_S]


def test_own_memory_grows_with_what_is_written():
    before = own_memory_mb()
    with mmap.mmap(-1, 20_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:  # no heap that is used again
        held[:] = bytes([1]) * len(held)
        assert own_memory_mb() - before > 15
        assert own_memory_mb(os.getpid()) > 15


def test_a_process_that_is_gone_has_none():
    assert own_memory_mb(2**22 + 1) == 0.0


def test_a_limit_below_what_setup_takes_is_refused():
    check_after_setup(None)
    check_after_setup(100, memory_mb=lambda: 100.0)
    with pytest.raises(ConfigError, match=r"max_memory_mb=100 is less than .* after setup\(\), 2,048.0 MB"):
        check_after_setup(100, memory_mb=lambda: 2048.0)
    with pytest.raises(ConfigError, match=r"max_memory_mb=30 is less than .* after setup\(\), 30.1 MB"):
        check_after_setup(30, memory_mb=lambda: 30.01)


def test_one_that_has_few_descriptors_left_makes_room():
    opened = [10]
    limits = Limits(None, None, open_descriptors=lambda: opened[0])
    most = 10 + int((descriptor_limit() - 10) * SHARE_OF_DESCRIPTORS)
    opened[0] = most - 1
    assert limits.reached() == ""
    opened[0] = most
    assert f"has {most:,} descriptors open of the {descriptor_limit():,}" in limits.reached()


def test_descriptors_are_counted_from_below():
    before = lowest_free_descriptor()
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    try:
        assert lowest_free_descriptor() >= before + 20
    finally:
        for fd in held:
            os.close(fd)
    assert lowest_free_descriptor() == before


@pytest.fixture
def few_descriptors():
    """A function that lowers how many this process may open to those that it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free_descriptor(), before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_limit_that_was_lowered_is_reached(few_descriptors):
    limits = Limits(None, None)
    assert limits.reached() == ""
    assert not has_no_descriptor()
    few_descriptors()
    assert has_no_descriptor()
    assert "descriptors open of the" in limits.reached()


def test_what_only_a_cycle_holds_is_no_want_of_descriptors(few_descriptors):
    gc.disable()
    try:
        cycle = [open(os.devnull)]  # noqa: SIM115  # nobody closes it
        cycle.append(cycle)
        few_descriptors()
        del cycle
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            assert not has_no_descriptor()
    finally:
        gc.enable()


def test_a_machine_without_descriptors_is_not_the_process_own_want(monkeypatch):
    def refuses(*_arguments):
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(os, "open", refuses)
    assert not has_no_descriptor()


def test_processes_that_make_room_are_told_of_in_sums():
    recycled = Recycled()
    line = recycled.line(0.0, "process 0", "has 9 open")
    assert line == "process 0 has reached its limits, and a fresh one takes its place: it has 9 open"
    assert [recycled.line(1.0, "process 1", ""), recycled.line(TELL_EVERY_S / 2, "process 0", "")] == ["", ""]
    assert "process 1 has reached" in (line := recycled.line(TELL_EVERY_S, "process 1", "takes 9 MB"))
    assert "2 others" in line
