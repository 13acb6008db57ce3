"""The channel between the runtime and the nursery: more launches than it holds, and the end of either side."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pythia_fast.errors import PoolError
from pythia_fast.pool import crash_text, nursery_process
from pythia_fast.pool.messages import BootFailed, Died, Launched, Message, QuitReason, Recycles, send
from pythia_fast.pool.nursery import Nursery, NurseryGoneError, is_stopped
from pythia_fast.pool.nursery_process import ChildMain

LAUNCHES = 700  #: more than fit into both directions of the channel together


@contextmanager
def nursery_of(child_main: ChildMain) -> Iterator[Nursery]:
    nursery = Nursery.fork(child_main)
    try:
        yield nursery
    finally:
        nursery.close(30)


def leave(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
    """A child that is done at once."""
    return ""


def fail(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
    raise RuntimeError("no model")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def receive_until(nursery: Nursery, kind: type[Message], count: int) -> list[Message]:
    found: list[Message] = []
    while sum(isinstance(message, kind) for message in found) < count:
        found += nursery.receive(10)
    return found


def receive_to_the_end(nursery: Nursery) -> list[Message]:
    """All that a nursery said that is gone, or goes now."""
    found: list[Message] = []
    try:
        while True:
            found += nursery.receive(30)
    except NurseryGoneError:
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


def kill_the_nursery(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    return ""


def test_a_child_that_kills_the_nursery_at_once_was_told_of() -> None:
    for _ in range(40):
        with nursery_of(kill_the_nursery) as nursery:
            nursery.launch(0, 5)
            _, launched = receive_to_the_end(nursery)  # after Ready
            assert isinstance(launched, Launched)
            (died,) = nursery.bury_children()
            assert (died.worker, died.pid) == (5, launched.pid)


def test_a_child_that_is_killed_before_it_begins_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_late(channel: socket.socket, message: Message) -> None:
        if isinstance(message, Launched):
            time.sleep(0.2)  # until the child has gone
        send(channel, message)

    monkeypatch.setattr(nursery_process, "lead_own_group", lambda: os.kill(os.getpid(), signal.SIGKILL))
    monkeypatch.setattr(nursery_process, "send", send_late)
    with nursery_of(leave) as nursery:
        for worker in range(3):
            nursery.launch(0, worker)
        died = [message for message in receive_until(nursery, Died, 3) if isinstance(message, Died)]
        assert [(message.worker, message.status) for message in died] == [(0, -9), (1, -9), (2, -9)]


def test_a_fork_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    fork, calls = os.fork, iter(range(1000))

    def sometimes() -> int:
        if next(calls) in (2, 3):  # the nursery's second child, twice
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", sometimes)
    with nursery_of(leave) as nursery:
        for worker in range(3):
            nursery.launch(0, worker)
        found = receive_until(nursery, Died, 3)
    assert [message.worker for message in found if isinstance(message, Launched)] == [0, 1, 2]
    told = capfd.readouterr().err
    assert told.count("no process can be forked for the pool (Resource temporarily unavailable)") == 1


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


def test_one_that_is_stopped_is_closed_without_waiting_for_it() -> None:
    def stay(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
        ctypes.CDLL(None).prctl(1, 0)  # as of one that dropped privileges, the kernel does not see to its end
        recycles("it is up")
        signal.pause()
        return ""

    nursery = Nursery.fork(stay)
    nursery.launch(0, 0)
    found = receive_until(nursery, Launched, 1)
    while not any(isinstance(message, Recycles) for message in found):
        found += nursery.receive(10)
    (child,) = [message.pid for message in found if isinstance(message, Launched)]
    os.kill(nursery.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(nursery.pid))
    assert not nursery.children_ended_unseen()
    began = time.monotonic()
    nursery.close(60)
    assert time.monotonic() - began < 50
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_children_that_end_beside_one_that_is_stopped_are_seen() -> None:
    def leave_later(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
        recycles("it is about to leave")
        time.sleep(0.5)
        return ""

    with nursery_of(leave_later) as nursery:
        os.kill(nursery.pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(nursery.pid))
        nursery.launch(0, 0)
        assert not [packet for packet in nursery.receive(0) if isinstance(packet, Launched)]
        os.kill(nursery.pid, signal.SIGCONT)
        receive_until(nursery, Recycles, 1)
        assert not nursery.children_ended_unseen()  # it tells of them itself
        os.kill(nursery.pid, signal.SIGSTOP)
        wait_until(nursery.children_ended_unseen)


def test_its_end_is_told_while_a_process_that_a_handler_forked_holds_the_channel() -> None:
    read_end, write_end = os.pipe()

    def fork_and_go(pool: int, worker: int, recycles: Callable[[str], None]) -> None:
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


def test_only_a_child_that_lives_is_sent_a_signal() -> None:
    """The number of one that was reaped may be somebody else's: here it is this test's own."""

    def sleep(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
        signal.pause()
        return ""

    with nursery_of(sleep) as nursery:
        nursery.launch(0, 0)
        *_, launched = receive_until(nursery, Launched, 1)
        assert isinstance(launched, Launched)
        nursery.signal(os.getpid(), signal.SIGKILL)
        nursery.signal(launched.pid, signal.SIGKILL)
        *_, died = receive_until(nursery, Died, 1)
        assert isinstance(died, Died)
        assert (died.pid, died.status) == (launched.pid, -signal.SIGKILL)


def test_children_hold_nothing_of_their_siblings() -> None:
    """Neither where their last words go, nor the nursery's own pipe."""

    def count(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
        if worker == 3:
            links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
            os._exit(sum("pythia-crash" in str(link) for link in links))
        signal.pause()
        return ""

    with nursery_of(count) as nursery:
        for worker in range(4):
            nursery.launch(0, worker)
        *_, died = receive_until(nursery, Died, 1)
        assert isinstance(died, Died)
        assert died.status == 1


def test_words_that_nobody_reads_do_not_stop_the_nursery(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setattr(crash_text, "STDERR", write_end)

    def abort(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
        os.abort()

    launches = 200  # a stack has some hundred bytes, the pipe 64 KiB
    with nursery_of(abort) as nursery:
        for worker in range(launches):
            nursery.launch(0, worker)
        found = receive_until(nursery, Died, launches)
    assert all("Fatal Python error: Aborted" in message.said for message in found if isinstance(message, Died))
    os.close(write_end)
    os.close(read_end)


def test_without_a_descriptor_for_last_words_children_are_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with nursery_of(leave) as nursery:
        nursery.launch(0, 0)
        *_, died = receive_until(nursery, Died, 1)
        assert isinstance(died, Died)
        assert (died.status, died.said) == (0, "")


def test_a_child_that_ends_itself_says_why_and_an_exception_is_left_to_others_to_tell(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def quit_so(pool: int, worker: int, recycles: Callable[[str], None]) -> str:
        reasons: list[QuitReason] = ["memory", "exception"]
        crash_text.quit_process(reasons[worker], ValueError(f"two\nlines of {worker}"))

    with nursery_of(quit_so) as nursery:
        nursery.launch(0, 0)
        nursery.launch(0, 1)
        found = receive_until(nursery, Died, 2)
    died = {message.worker: message for message in found if isinstance(message, Died)}
    assert [(died[n].status, died[n].quit_reason, died[n].cause) for n in (0, 1)] == [
        (4, "memory", "ValueError: two"),
        (4, "exception", "ValueError: two"),
    ]
    assert [died[n].said for n in (0, 1)] == [f"ValueError: two\nlines of {n}\n" for n in (0, 1)]
    told = capfd.readouterr().err
    assert "lines of 0" in told
    assert "lines of 1" not in told
