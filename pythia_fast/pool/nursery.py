"""The clean parent: a process with one thread and no broker handle, from which every pool process is forked.

    runtime ──launch──▶ nursery ──fork──▶ pool process 0, 1, ...
       ▲                   │ waitpid            │
       └── launched, died ─┴──── boot_failed ───┘

A channel holds some 280 packets. The runtime never waits for room in it: what does not fit is kept and sent while it
receives. The nursery and its children do wait, so somebody always empties the other direction.

It is made before the runtime opens a source or starts a thread. Where the calling process is clean
already (one thread), the nursery is a fork of it and the app need not be imported again. Otherwise it is
a new interpreter that imports the app; an app that starts threads when it is imported is imported by each
child instead, after the fork. It ends, and its children with it, when the runtime ends for any reason.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pythia_fast import pool
from pythia_fast.errors import PoolError
from pythia_fast.interpreters import module_environment
from pythia_fast.pool.identity import AppIdentity
from pythia_fast.pool.messages import (
    ArenaShape,
    Died,
    Launch,
    Launched,
    Message,
    Ping,
    Pong,
    Ready,
    Setup,
    Signal,
    receive,
    send,
)
from pythia_fast.pool.nursery_process import STOPS, ChildMain, serve_nursery
from pythia_fast.pool.obituary import describe_status

#: How long children of a nursery that is gone, which the kernel kills, may take to be gone too.
BURIAL_S = 10.0
END_S = 1.0  #: from the end of its channel to that of a nursery that is gone
LOOK_S = 0.1  #: between looks whether a nursery that is to end is stopped


class NurseryGoneError(PoolError):
    """The pool's parent process has ended, and with it the pool.

    ``what``: that, as the beginning of a sentence.
    """

    def __init__(self, what: str, more: str = "") -> None:
        super().__init__(f"{what}{more}")
        self.what = what


class _Child(NamedTuple):
    """A process that the nursery has forked and has not reaped, as far as it has told."""

    pool: int
    worker: int
    pidfd: int | None  #: None: it was gone already

    def ended(self, timeout: float = 0.0) -> bool:
        """Whether it has, within so many seconds; it may not be reaped yet."""
        return self.pidfd is None or bool(select.select([self.pidfd], [], [], max(0.0, timeout))[0])

    def kill(self, deadline: float) -> bool:
        """Kill it and wait for its end until ``deadline`` (time.monotonic()); whether it has ended."""
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        return self.ended(deadline - time.monotonic())


class Nursery:
    """The runtime's handle on the clean parent."""

    def __init__(
        self, pid: int, channel: socket.socket, process: subprocess.Popen[bytes] | None = None, importing: str = ""
    ) -> None:
        self.pid = pid
        self._channel = channel
        self._process = process
        self._importing = importing  # the module or file; empty: it is up
        self._channel.setblocking(False)
        self._unsent: deque[Launch | Signal | Ping] = deque()  # those for which the channel had no room
        self._asked: deque[Launch] = deque()  # those that no Launched packet has answered, in order
        self._children: dict[int, _Child] = {}  # pid
        self._pinged_at: float | None = None  # time.monotonic(); None: it has answered
        self.largest_mb = 0.0  #: the most resident memory that one of its processes, which has ended, had at once
        self._sending = threading.Lock()
        self._pidfd = _open_pidfd(pid)  # readable once it has ended

    @classmethod
    def fork(cls, child_main: ChildMain) -> Nursery:
        """Fork the calling process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the app may have closed it, or given it to nobody who reads
                stream.flush()
        with warnings.catch_warnings():
            # The caller has judged the threads that there are (see Engine._make_nursery).
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ours.close()
                serve_nursery(theirs, child_main, os.getppid())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        return cls(pid, ours)

    @classmethod
    def spawn(
        cls, target: Sequence[str], app: AppIdentity, arenas: Sequence[ArenaShape], *, import_first: bool
    ) -> Nursery:
        """Start a new interpreter that finds the app through ``target``; one that is not ``app`` does not start."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [theirs.fileno(), *(shape.fd for shape in arenas)]
        environment = {**pool.ONE_THREAD_EACH, **module_environment()}
        command = [sys.executable, "-m", "pythia_fast.pool.nursery_process", str(theirs.fileno())]
        # One that came before it catches them would end it with a traceback of its own.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            process = subprocess.Popen(command, pass_fds=fds, env=environment, stdin=subprocess.DEVNULL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        found, path, argv = ([os.fsencode(text) for text in texts] for texts in (target, sys.path, sys.argv))
        send(ours, Setup(found, app, path, argv, import_first, list(arenas)))
        return cls(process.pid, ours, process, target[1])

    def fileno(self) -> int:
        return self._channel.fileno()

    def launch(self, pool_index: int, worker: int) -> None:
        """Ask for a process; a Launched packet answers. Any thread; the channel being full, ``receive`` sends it, and
        where the nursery is gone, the one that follows it is asked."""
        self._ask(Launch(pool_index, worker))

    def signal(self, pid: int, number: int) -> None:
        """Have a signal sent to a pool process, unless it has ended. Any thread, as for ``launch``."""
        self._ask(Signal(pid, number))

    def ping(self, now: float) -> float:
        """Ask whether it is there, unless it was asked already; how many seconds the answer is outstanding."""
        if self._pinged_at is None:
            self._pinged_at = now
            self._ask(Ping())
        return now - self._pinged_at

    def _ask(self, message: Launch | Signal | Ping) -> None:
        with self._sending:
            if isinstance(message, Launch):
                self._asked.append(message)
            self._unsent.append(message)
            self._send_unsent()

    def _send_unsent(self) -> None:
        """As many as there is room for. Under the lock: packets go out in the order they were asked for."""
        try:
            while self._unsent:
                send(self._channel, self._unsent[0])
                self._unsent.popleft()
        except OSError:
            # It is busy, perhaps waiting for us to receive what it has to say; or gone, which ``receive`` notices.
            return

    def receive(self, timeout: float) -> list[Message]:
        """Packets that have come, waiting up to ``timeout`` seconds for the first. Raises NurseryGoneError.

        What found no room is sent here, so it is to be called again and again, whatever it returns.
        """
        wanted = select.POLLIN | (select.POLLOUT if self._unsent else 0)
        poll = select.poll()
        poll.register(self._channel, wanted)
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
        ready = dict(poll.poll(timeout * 1000))
        # A process that a handler started may hold the channel open: that its end is told does not depend on it.
        ended = self._pidfd is not None and ready.pop(self._pidfd, 0) != 0
        events = sum(ready.values())
        if events & select.POLLOUT:
            with self._sending:
                self._send_unsent()
        found: list[Message] = []
        while ended or events & ~select.POLLOUT:
            try:
                message = receive(self._channel)
            except BlockingIOError:
                if ended and not found:
                    raise self._gone() from None
                break
            if message is None:
                if found:
                    break  # what it said last comes first: the end is seen again at the next call
                raise self._gone()
            self._note(message)
            if not isinstance(message, Pong):
                found.append(message)
        return found

    def _note(self, message: Message) -> None:
        if isinstance(message, Launched):
            with self._sending:
                self._asked.popleft()
            self._children[message.pid] = _Child(message.pool, message.worker, _open_pidfd(message.pid))
        elif isinstance(message, Died):
            self.largest_mb = max(self.largest_mb, message.peak_mb)
            child = self._children.pop(message.pid, None)
            if child is not None and child.pidfd is not None:
                os.close(child.pidfd)
        elif isinstance(message, Pong):
            self._pinged_at = None
        elif isinstance(message, Ready):
            self._importing = ""

    def bury_children(self) -> list[Died]:
        """Wait for the end of those that a nursery which is gone has left, which the kernel kills with it.

        Raises PoolError if some do not end, or if that cannot be seen here: then nobody else may have their batches.
        """
        if not hasattr(os, "pidfd_open"):
            raise self._gone()
        deadline = time.monotonic() + BURIAL_S
        died = []
        for pid, child in self._children.items():
            if not child.kill(deadline):
                raise PoolError(f"{self._gone()}. Its child {pid} does not end, so nobody may take its place")
            died.append(Died(child.pool, child.worker, pid, -signal.SIGKILL))
        self._forget_children()
        return died

    def children_ended_unseen(self) -> bool:
        """Whether all children have ended while the nursery is stopped (SIGSTOP), so that it tells of none."""
        watched = hasattr(os, "pidfd_open") and is_stopped(self.pid)
        return watched and all(child.ended() for child in self._children.values())

    def _forget_children(self) -> None:
        for child in self._children.values():
            if child.pidfd is not None:
                os.close(child.pidfd)
        self._children.clear()

    def follow_by(self, fresh: Nursery) -> None:
        """Be the handle on a fresh nursery, which is asked for all that this one, which is gone, was asked for in vain.

        To be called once its children are buried.
        """
        assert not self._children
        self.close(BURIAL_S)
        with self._sending:
            self.pid, self._channel = fresh.pid, fresh._channel
            self._process, self._pidfd = fresh._process, fresh._pidfd
            self._importing = fresh._importing
            self._pinged_at = None
            self._unsent = deque(self._asked)
            self._send_unsent()

    def _gone(self) -> NurseryGoneError:
        status = self._status_of_import()
        if status is not None:
            how = describe_status(status)
            stack = "" if status >= 0 or -status == signal.SIGKILL else "; PYTHONFAULTHANDLER=1 has it tell where"
            return NurseryGoneError(
                f"the pool's parent process {self.pid} {how} while it imported {self._importing}",
                f"{stack}. No handler ran in it. What was not finished is handled by the next run; nothing is lost",
            )
        return NurseryGoneError(
            f"the pool's parent process {self.pid} is gone",
            ": was it killed (kill -9, out of memory), or ended from within a handler? What was not finished is "
            "handled by the next run; nothing is lost",
        )

    def _status_of_import(self) -> int | None:
        """What it ended with while it imported the app, as an exit code or minus a signal; None: it was up, or what
        it imports has closed the channel and goes on."""
        if self._process is None or not self._importing:
            return None
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return None

    def close(self, timeout: float) -> None:
        """Have it end, children included, and reap it. One that is slow is killed after ``timeout`` seconds, one that
        is stopped or still imports the app, which notices nothing, at once."""
        self._channel.close()  # end of file: it kills what children are left and leaves
        if self._pidfd is not None:
            if not self._leaves(self._pidfd, time.monotonic() + timeout):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                deadline = time.monotonic() + BURIAL_S
                for child in self._children.values():  # the kernel does not kill one that has dropped privileges
                    child.kill(deadline)
            os.close(self._pidfd)
            self._pidfd = None
        self._forget_children()
        if self._process is not None:
            try:
                self._process.wait(0 if self._importing else timeout)
            except subprocess.TimeoutExpired:  # seen only where there are no pidfds
                self._process.kill()
                self._process.wait()
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _leaves(self, pidfd: int, deadline: float) -> bool:
        """Whether it ends by itself, until ``deadline``."""
        while not select.select([pidfd], [], [], LOOK_S)[0]:
            if time.monotonic() >= deadline or self._importing or is_stopped(self.pid):
                return False
        return True


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that is readable once the process has ended; None: it is gone, or there are none such here."""
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return None


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP, a debugger)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False
