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
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pythia_fast import pool
from pythia_fast._ext.arena_memory import die_with_parent
from pythia_fast.errors import PoolError
from pythia_fast.pool import crash_text
from pythia_fast.pool.messages import (
    ArenaShape,
    BootFailed,
    Died,
    Launch,
    Launched,
    Message,
    Ready,
    Setup,
    Signal,
    TeardownFailed,
    receive,
    send,
    shorten,
)

#: Runs in a child: (pool, seat) -> its exit status and the traceback of its teardown() or nothing, once it is to leave.
ChildMain = Callable[[int, int], tuple[int, str]]

EXIT_BOOT_FAILED = 3
FORK_RETRY_S = 0.5  #: until a fork that failed is tried again


def thread_count() -> int:
    """Threads of this process, native ones included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


class Nursery:
    """The runtime's handle on the clean parent."""

    def __init__(self, pid: int, channel: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._channel = channel
        self._process = process
        self._channel.setblocking(False)
        self._unsent: deque[Launch | Signal] = deque()  # those for which the channel had no room
        self._sending = threading.Lock()
        self._pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None  # readable once it has ended

    @classmethod
    def fork(cls, child_main: ChildMain) -> Nursery:
        """Fork the calling process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # The caller has judged the threads that there are (see Engine._make_nursery).
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ours.close()
                _serve(theirs, child_main, os.getppid())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        return cls(pid, ours, None)

    @classmethod
    def spawn(cls, target: Sequence[str], arenas: Sequence[ArenaShape], *, import_first: bool) -> Nursery:
        """Start a new interpreter that finds the app through ``target``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [theirs.fileno(), *(shape.fd for shape in arenas)]
        environment = {**pool.ONE_THREAD_EACH, **os.environ}
        command = [sys.executable, "-m", "pythia_fast.pool.nursery", str(theirs.fileno())]
        package_root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(command, pass_fds=fds, env=environment, stdin=subprocess.DEVNULL)
        theirs.close()
        send(ours, Setup(list(target), sys.path, sys.argv, import_first, list(arenas)))
        return cls(process.pid, ours, process)

    def fileno(self) -> int:
        return self._channel.fileno()

    def launch(self, pool_index: int, worker: int) -> None:
        """Ask for a process; a Launched packet answers. Any thread; the channel being full, ``receive`` sends it."""
        self._ask(Launch(pool_index, worker))

    def signal(self, pid: int, number: int) -> None:
        """Have a signal sent to a pool process, unless it has ended. Any thread, as for ``launch``."""
        self._ask(Signal(pid, number))

    def _ask(self, message: Launch | Signal) -> None:
        with self._sending:
            self._unsent.append(message)
            self._send_unsent()

    def _send_unsent(self) -> None:
        """As many as there is room for. Under the lock: packets go out in the order they were asked for."""
        try:
            while self._unsent:
                send(self._channel, self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:  # the nursery is busy, perhaps waiting for us to receive what it has to say
            return
        except OSError as error:
            raise self._gone() from error

    def receive(self, timeout: float) -> list[Message]:
        """Packets that have come, waiting up to ``timeout`` seconds for the first. Raises PoolError when it is gone.

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
            found.append(message)
        return found

    def _gone(self) -> PoolError:
        return PoolError(
            f"the pool's parent process {self.pid} is gone: was it killed (kill -9, out of memory), or ended from "
            "within a handler? What was not finished is handled by the next run; nothing is lost"
        )

    def close(self, timeout: float) -> None:
        """Have it end, children included, and reap it."""
        self._channel.close()  # end of file: it kills what children are left and leaves
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            return
        with contextlib.suppress(ChildProcessError):
            _wait_or_kill(self.pid, timeout)


def _wait_or_kill(pid: int, timeout: float) -> None:
    handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    if handle is not None:
        try:
            if not select.select([handle], [], [], timeout)[0]:
                os.kill(pid, signal.SIGKILL)
        finally:
            os.close(handle)
    os.waitpid(pid, 0)


# -- the nursery process ---------------------------------------------------------------------------


def _serve(channel: socket.socket, child_main: ChildMain, parent: int) -> None:
    """Fork on demand, reap, report; returns when the runtime closes its end."""
    pool.in_pool = True
    channel.setblocking(True)  # whatever socket.setdefaulttimeout() says: a packet that finds no room waits
    die_with_parent()
    if os.getppid() != parent:  # it died before the line above could take effect
        return
    # The runtime alone decides when a child ends; a signal to the whole group is for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
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
                pid = _fork_child(self._channel, self._child_main, launch, others, said)
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
            send(self._channel, Launched(launch.pool, launch.worker, pid))
        self.retry_s = None


def _reap(channel: socket.socket, children: dict[int, _Child]) -> None:
    """Only our own pids are waited for: the app may have children of its own in here."""
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            child = children.pop(pid)
            said = shorten(crash_text.take(child.said_fd))
            send(channel, Died(child.pool, child.worker, pid, os.waitstatus_to_exitcode(status), said))


def _fork_child(
    channel: socket.socket, child_main: ChildMain, launch: Launch, others: Sequence[int], said_fd: int
) -> int:
    """``others``: descriptors that are none of the child's business."""
    nursery = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    status = EXIT_BOOT_FAILED
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in others:
            if fd != crash_text.NO_FILE:
                os.close(fd)
        crash_text.keep_in(said_fd)
        die_with_parent()
        if os.getppid() == nursery:
            status, trouble = child_main(launch.pool, launch.worker)
            if trouble:
                send(channel, TeardownFailed(launch.pool, launch.worker, os.getpid(), shorten(trouble)))
    except BaseException:
        with contextlib.suppress(OSError):
            send(channel, BootFailed(launch.pool, launch.worker, os.getpid(), shorten(traceback.format_exc())))
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def main(channel_fd: int) -> int:
    """The nursery as a new interpreter (``Nursery.spawn``)."""
    parent = os.getppid()
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(True)
    channel.setblocking(True)
    setup = receive(channel)
    if not isinstance(setup, Setup):
        return 1
    sys.path[:] = setup.sys_path
    sys.argv[:] = setup.argv
    pool.in_pool = True
    from pythia_fast.pool.children import ImportedChildren

    children = ImportedChildren(setup.target, setup.arenas)
    if setup.import_first:
        try:
            children.load()
        except BaseException:
            send(channel, BootFailed(-1, -1, os.getpid(), shorten(traceback.format_exc())))
            return EXIT_BOOT_FAILED
    _serve(channel, children.main, parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
