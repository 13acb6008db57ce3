"""pool/import_watch.py: where this thread is, told from another one that leaves no trace."""

from __future__ import annotations

import runpy
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast.pool import import_watch, users_frames
from pythia_fast.pool.import_watch import ImportWatch
from pythia_fast.pool.messages import Importing, receive
from pythia_fast.pool.nursery_process import thread_count


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def receive_from(channel: socket.socket, place: str) -> Importing:
    """The first stack that was taken there; those before it are of the way there."""
    while True:
        message = receive(channel)
        assert isinstance(message, Importing)
        if place in message.stack:
            return message


def test_the_stack_of_a_slow_import_is_the_users(
    channel: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_watch, "STACK_EVERY_S", 0.01)
    ours, theirs = channel
    script = tmp_path / "orders.py"
    script.write_text("def wait():\n    WAIT()\n\nwait()\n")
    said = []
    threads = thread_count()
    with ImportWatch(theirs):
        runpy.run_path(str(script), {"WAIT": lambda: said.append(receive_from(ours, "in receive_from"))})
    assert thread_count() == threads
    (message,) = said
    place = message.stack.index(f'  File "{script}", line 4, in <module>\n    wait()\n')
    assert message.stack[place:].startswith(
        f'  File "{script}", line 4, in <module>\n    wait()\n  File "{script}", line 2, in wait\n    WAIT()\n'
    )
    assert 'File "<frozen runpy>"' not in message.stack


def test_of_a_deep_stack_both_ends_are_told(
    channel: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_watch, "STACK_EVERY_S", 0.01)
    ours, theirs = channel

    def descend(depth: int) -> Importing:
        return again(depth - 1)

    def again(depth: int) -> Importing:  # frames that are alike are told as one
        if depth:
            return descend(depth)
        return receive_from(ours, "in receive_from")

    with ImportWatch(theirs):
        message = descend(100)
    assert message.stack.count("  File ") == 2 * users_frames.SHOWN_FRAMES
    assert message.stack.count("in again") + message.stack.count("in descend") == users_frames.SHOWN_FRAMES - 1
