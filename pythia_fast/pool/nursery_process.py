"""The nursery's own process: it forks on demand, reaps, and reports. pool/nursery.py is the runtime's handle on it."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pythia_fast import pool
from pythia_fast._ext.arena_memory import die_with_parent
from pythia_fast.errors import ConfigError
from pythia_fast.pool import crash_text
from pythia_fast.pool.forked import lead_own_group
from pythia_fast.pool.identity import AppChangedError
from pythia_fast.pool.import_watch import ImportWatch
from pythia_fast.pool.messages import (
    BootFailed,
    Died,
    Importing,
    Launch,
    Launched,
    Ping,
    Pong,
    Ready,
    Recycles,
    Setup,
    Signal,
    TeardownFailed,
    receive,
    send,
    shorten,
)
from pythia_fast.pool.users_frames import cause_of, format_error, is_ours

#: Runs in a child: (pool, seat, to be told which limit was reached) -> the traceback of its teardown(), or nothing.
ChildMain = Callable[[int, int, Callable[[str], None]], str]

EXIT_BOOT_FAILED = 3
CAUSE_CHARACTERS = 500
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  #: unit of ru_maxrss, getrusage(2)
#: The runtime alone decides when a process of the pool ends.
STOPS = (signal.SIGINT, signal.SIGTERM)
FORK_RETRY_S = 0.5  #: until a fork that failed is tried again


def thread_count() -> int:
    """Threads of this process, native ones included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


def serve_nursery(channel: socket.socket, child_main: ChildMain, parent: int) -> None:
    """Fork on demand, reap, report; returns when the runtime closes its end."""
    pool.in_pool = True
    channel.setblocking(True)  # whatever socket.setdefaulttimeout() says: a packet that finds no room waits
    die_with_parent()
    if os.getppid() != parent:  # it died before the line above could take effect
        return
    for number in STOPS:  # a signal to the whole group is for the runtime
        signal.signal(number, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    # Whoever started the run, or the user's module, may have blocked it: deaths would not be told.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    children: dict[int, _Child] = {}
    launches = _Launches(channel, child_main, children, (wake_read, wake_write))
    # Once for all children: a collection of theirs would look at every object, and copy the pages that they lie on.
    gc.collect()
    gc.freeze()
    try:
        send(channel, Ready(os.getpid(), thread_count()))
        while True:
            ready = select.select([channel.fileno(), wake_read], [], [], launches.retry_s)[0]
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                _reap(channel, children)
            if channel.fileno() in ready:
                message = receive(channel)
                if message is None:
                    return
                if isinstance(message, Launch):
                    launches.add(message)
                elif isinstance(message, Signal) and message.pid in children:
                    os.kill(message.pid, message.number)
                elif isinstance(message, Ping):
                    send(channel, Pong())
            launches.make()
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


class _Child(NamedTuple):
    """A process of ours."""

    pool: int
    worker: int
    said_fd: int  #: where its last words are, or NO_FILE


class _Launches:
    """The children that are asked for. One that cannot be forked now, for want of memory or because of a limit on
    processes, is tried again: until then the others go on."""

    def __init__(
        self, channel: socket.socket, child_main: ChildMain, children: dict[int, _Child], own_fds: Sequence[int]
    ) -> None:
        self._channel = channel
        self._child_main = child_main
        self._children = children
        self._own_fds = own_fds
        self._asked: deque[Launch] = deque()
        self.retry_s: float | None = None  #: when ``make`` is to be called again; None: there is nothing to try again

    def add(self, launch: Launch) -> None:
        self._asked.append(launch)

    def make(self) -> None:
        """Fork those that are asked for, as far as that is possible now."""
        while self._asked:
            launch = self._asked[0]
            said = crash_text.make_file()
            others = [*self._own_fds, *(child.said_fd for child in self._children.values())]
            try:
                pid, gate = _fork_child(self._channel, self._child_main, launch, others, said)
            except OSError as error:
                if said != crash_text.NO_FILE:
                    os.close(said)
                if self.retry_s is None:
                    crash_text.tell(
                        f"pythia_fast: no process can be forked for the pool ({error.strerror}); trying again every "
                        f"{FORK_RETRY_S:g} s. Is there a limit on processes (ulimit -u, a container's pids), or no "
                        "memory left?\n"
                    )
                self.retry_s = FORK_RETRY_S
                return
            self._asked.popleft()
            self._children[pid] = _Child(launch.pool, launch.worker, said)
            try:
                send(self._channel, Launched(launch.pool, launch.worker, pid))
                with contextlib.suppress(BrokenPipeError):  # it may have been killed already, as its end will tell
                    os.write(gate, b"!")
            finally:
                os.close(gate)
        self.retry_s = None


def _reap(channel: socket.socket, children: dict[int, _Child]) -> None:
    """Only our own pids are waited for: the app may have children of its own in here."""
    for pid in list(children):
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            child = children.pop(pid)
            words = crash_text.take(child.said_fd)
            exit_code = os.waitstatus_to_exitcode(status)
            peak_mb = usage.ru_maxrss * MAXRSS_BYTES / 1e6
            said = shorten(words.text)
            why = words.quit_reason, words.cause
            send(channel, Died(child.pool, child.worker, pid, exit_code, said, *why, peak_mb))


def _fork_child(
    channel: socket.socket, child_main: ChildMain, launch: Launch, others: Sequence[int], said_fd: int
) -> tuple[int, int]:
    """(pid, gate): the child waits at the gate until something is written there, once the runtime was told of it.

    A child that takes a batch, or runs the user's code, and brings the nursery down before it was told of would be
    known to nobody: its batch would never be handed on, and the next process of its place would be taken for it.

    ``others``: descriptors that are none of the child's business.
    """
    nursery = os.getpid()
    gate_of_child, gate = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError:
        os.close(gate)
        os.close(gate_of_child)
        raise
    if pid:
        os.close(gate_of_child)
        return pid, gate
    status = EXIT_BOOT_FAILED
    try:
        os.close(gate)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in others:
            if fd != crash_text.NO_FILE:
                os.close(fd)
        crash_text.keep_in(said_fd)
        die_with_parent()
        lead_own_group()
        told_of = os.read(gate_of_child, 1) != b""  # else the nursery is gone
        os.close(gate_of_child)
        if told_of and os.getppid() == nursery:
            trouble = child_main(
                launch.pool,
                launch.worker,
                lambda why: send(channel, Recycles(launch.pool, launch.worker, os.getpid(), why)),
            )
            status = 0
            if trouble:
                send(channel, TeardownFailed(launch.pool, launch.worker, os.getpid(), shorten(trouble)))
    except BaseException as error:
        with contextlib.suppress(OSError):
            send(channel, _boot_failed(launch, error))
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _boot_failed(launch: Launch, error: BaseException) -> BootFailed:
    changed = isinstance(error, AppChangedError)
    misconfigured = isinstance(error, ConfigError) and not changed and is_ours(error)
    text = str(error) if changed or misconfigured else format_error(error)
    cause = shorten(cause_of(error)[:CAUSE_CHARACTERS])
    return BootFailed(launch.pool, launch.worker, os.getpid(), shorten(text), cause, changed, misconfigured)


def _tell_place(channel: socket.socket, stack: str) -> None:
    """Where the import of the app is."""
    with contextlib.suppress(OSError):  # the runtime is gone, and this process with it
        send(channel, Importing(shorten(stack)))


def main(channel_fd: int) -> int:
    """The nursery as a new interpreter (``Nursery.spawn``)."""
    parent = os.getppid()
    die_with_parent()  # before the app is imported, which may take long
    # A signal to the whole group is for the runtime here too. They are caught, not ignored: what is ignored stays so in
    # a program that the app's module starts.
    for number in STOPS:
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # Nursery.spawn has held them back until now
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(True)
    channel.setblocking(True)
    setup = receive(channel)
    if not isinstance(setup, Setup):
        return 1
    sys.path[:] = map(os.fsdecode, setup.sys_path)
    sys.argv[:] = map(os.fsdecode, setup.argv)
    pool.in_pool = True
    from pythia_fast.pool.children import ImportedChildren

    children = ImportedChildren([os.fsdecode(text) for text in setup.target], setup.app, setup.arenas)
    if setup.import_first:
        try:
            with ImportWatch(lambda stack: _tell_place(channel, stack)):
                children.load()
        except BaseException as error:
            send(channel, _boot_failed(Launch(-1, -1), error))
            return EXIT_BOOT_FAILED
    serve_nursery(channel, children.main, parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
