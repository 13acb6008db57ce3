"""The channel between the runtime and the nursery: more launches than it holds, and the end of either side."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pythia_fast.errors import PoolError
from pythia_fast.pool.messages import BootFailed, Died, Launched, Message
from pythia_fast.pool.nursery import Nursery

LAUNCHES = 700  #: more than fit into both directions of the channel together


@contextmanager
def nursery_of(child_main: Callable[[int, int], tuple[int, str]]) -> Iterator[Nursery]:
    nursery = Nursery.fork(child_main)
    try:
        yield nursery
    finally:
        nursery.close(30)


def leave(pool: int, worker: int) -> tuple[int, str]:
    """A child that is done at once."""
    return 0, ""


def fail(pool: int, worker: int) -> tuple[int, str]:
    raise RuntimeError("no model")


def receive_until(nursery: Nursery, kind: type[Message], count: int) -> list[Message]:
    found: list[Message] = []
    while sum(isinstance(message, kind) for message in found) < count:
        found += nursery.receive(10)
    return found


def test_more_launches_than_the_channel_holds_are_all_made() -> None:
    with nursery_of(leave) as nursery:
        for worker in range(LAUNCHES):
            nursery.launch(0, worker)  # nobody receives meanwhile: both directions fill up
        found = receive_until(nursery, Died, LAUNCHES)
        launched = [message.worker for message in found if isinstance(message, Launched)]
        assert launched == list(range(LAUNCHES))
        assert sorted(message.worker for message in found if isinstance(message, Died)) == launched
        assert {message.status for message in found if isinstance(message, Died)} == {0}


def test_children_wait_for_room_to_tell_why_they_failed() -> None:
    with nursery_of(fail) as nursery:
        for worker in range(LAUNCHES // 2):
            nursery.launch(0, worker)
        found = receive_until(nursery, Died, LAUNCHES // 2)
        told = [message for message in found if isinstance(message, BootFailed)]
        assert sorted(message.worker for message in told) == list(range(LAUNCHES // 2))
        assert all("no model" in message.traceback for message in told)


def test_a_nursery_that_waits_for_room_ends_with_the_runtime() -> None:
    with nursery_of(leave) as nursery:
        for worker in range(LAUNCHES):
            nursery.launch(0, worker)


def test_a_nursery_that_is_killed_is_told_to_be_gone() -> None:
    with nursery_of(leave) as nursery:
        os.kill(nursery.pid, signal.SIGKILL)
        with pytest.raises(PoolError, match="the pool's parent process"):
            receive_until(nursery, Died, 1)


def test_its_end_is_told_while_a_process_that_a_handler_forked_holds_the_channel() -> None:
    read_end, write_end = os.pipe()

    def fork_and_go(pool: int, worker: int) -> None:
        if os.fork() == 0:
            os.close(write_end)
            os.read(read_end, 1)  # until the test has closed its end
            os._exit(0)

    with nursery_of(fork_and_go) as nursery:
        nursery.launch(0, 0)
        receive_until(nursery, Died, 1)
        os.kill(nursery.pid, signal.SIGKILL)
        with pytest.raises(PoolError, match="is gone"):
            nursery.receive(30)
    os.close(write_end)
    os.close(read_end)
