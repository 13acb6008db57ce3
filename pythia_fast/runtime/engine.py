"""Engine: one run of an app, from making the arenas to the report.

    1. arenas            shared memory, before anything else exists
    2. nursery           the clean parent of the pool, before any thread or broker handle
    3. pool              launched, and waited for: a handler that cannot start ends the run here
    4. sinks, sources    opened in this process
    5. threads           per handler one intake and one completion thread; this thread watches
    6. drain             sources stop, what was read is finished, positions are committed
    7. down              pool, sinks, sources closed; the report is made

Each step is undone in reverse order, however the run ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pythia_fast.errors import ConfigError, PoolError
from pythia_fast.machine import available_cores, memory_limit_bytes
from pythia_fast.observer import SAMPLE_INTERVAL_S, HandlerInfo, Observer, RunInfo, Snapshot
from pythia_fast.pool.children import ForkedChildren
from pythia_fast.pool.identity import COLUMNS_BYTES, AppIdentity
from pythia_fast.pool.nursery import Nursery, NurseryGoneError
from pythia_fast.pool.script_module import answer_to_script_name
from pythia_fast.pool.supervisor import Supervisor
from pythia_fast.printable import without_controls
from pythia_fast.process_stats import ProcessSampler
from pythia_fast.report import Ending, RunReport
from pythia_fast.routine import Routine
from pythia_fast.runtime.booting import await_nursery
from pythia_fast.runtime.control import ControlServer
from pythia_fast.runtime.handler_run import HandlerRun
from pythia_fast.runtime.orders import Orders
from pythia_fast.runtime.shutdown import StopRequest
from pythia_fast.runtime.slot_plan import SHARE_OF_MEMORY
from pythia_fast.runtime.start_method import choose_start_method
from pythia_fast.runtime.state_dir import prepare_folder

if TYPE_CHECKING:
    from pythia_fast.app import App, StartMethod
    from pythia_fast.registration import Handler

MEMORY_INTERVAL_S = 2.0  #: the tree's memory costs a walk over its page tables
STALL_INTERVAL_S = 1.0  #: between looks at what gets nowhere
CLOSE_TIMEOUT_S = 10.0


class Engine:
    """See the module's docstring; the parameters are those of ``App.run``, which has checked them."""

    def __init__(
        self,
        app: App,
        handlers: Sequence[Handler],
        *,
        workers: int | Literal["auto"],
        until: Literal["end", "forever"],
        state_dir: Path,
        drain_timeout: float,
        connect_timeout: float | None,
        observer: Observer,
        start_method: StartMethod,
    ) -> None:
        self._app = app
        self._until = until
        self._drain_timeout = drain_timeout
        self._observer = observer
        self._observer_failure: Exception | None = None
        self._start_method = start_method
        self._sampler = ProcessSampler()
        self._stop = StopRequest()
        self._ending: Ending = "done"
        self._started_at = 0.0
        self._watched_until = 0.0  #: time.monotonic() when the run was over, but for closing
        self._next_memory = 0.0
        self._latest = Snapshot()
        state_dir = prepare_folder(state_dir, "checkpoints and dead letters", "--state-dir (state_dir= of App.run)")
        self._state_dir = state_dir
        memory_bytes = int(memory_limit_bytes() * SHARE_OF_MEMORY) // max(1, len(handlers))
        self._runs: list[HandlerRun] = []
        for pool, (handler, share) in enumerate(zip(handlers, share_workers(handlers, workers), strict=True)):
            try:
                run = HandlerRun(
                    handler,
                    pool=pool,
                    workers=share,
                    app=app.name,
                    until=until,
                    state_dir=state_dir,
                    connect_timeout=connect_timeout,
                    log=self._event,
                    hurried=lambda: self._stop.killed,
                    drain_timeout=drain_timeout,
                    memory_bytes=memory_bytes,
                )
            except (OSError, ValueError, MemoryError) as error:
                raise ConfigError(
                    f"handler {handler.name!r}: no shared memory for the batches of {share} processes: {error}; "
                    "lower batch_size, max_batch_bytes or workers"
                ) from None
            self._runs.append(run)

    def run(self) -> RunReport:
        """Run to the end. The observer gets the report of a run that fails as well."""
        try:
            self._run()
            if self._observer_failure is not None:
                raise self._observer_failure
        except Exception as error:
            self._ending = "failed"
            self._finish(str(error) or type(error).__name__)
            if isinstance(error, NurseryGoneError):  # how it was told apart in here is nobody else's business
                raise PoolError(str(error)) from None
            raise
        return self._finish()

    def _run(self) -> None:
        with ExitStack() as stack:
            for run in self._runs:
                stack.callback(run.arena.close)
            stack.enter_context(self._stop.signals(self._event))
            nursery = stack.enter_context(self._nursery())
            self._supervisor = Supervisor(nursery, self._runs, self._event, self._remake_nursery)
            if not self._supervisor.launch_all(self._stop):
                self._ending = "killed" if self._stop.killed else "drained"
                return
            for run in self._runs:
                stack.callback(run.close)
                run.open(self._supervisor.launch)
            self._announce()
            self._started_at = time.monotonic()
            for run in self._runs:
                run.start()
            stack.enter_context(self._control())
            try:
                self._watch()
            finally:
                self._watched_until = time.monotonic()
            for run in self._runs:
                run.close(at_once=self._stop.killed)
            if self._stop.killed:
                self._ending = "killed"
            self._next_memory = 0.0
            self._sample()
            if self._ending != "killed" and all(run.at_rest for run in self._runs):  # else some process may hang
                self._supervisor.stop_all(CLOSE_TIMEOUT_S, self._stop)
                if self._stop.killed:
                    self._ending = "killed"

    def _finish(self, error: str = "") -> RunReport:
        report = self._report(error)
        self._observer.finished(report)
        return report

    # -- the pool's parent ---------------------------------------------------------------------

    @contextlib.contextmanager
    def _nursery(self) -> Iterator[Nursery]:
        nursery = self._make_nursery()
        try:
            yield nursery
        finally:
            nursery.close(CLOSE_TIMEOUT_S)
            self._sampler.had(nursery.largest_mb)

    def _make_nursery(self) -> Nursery:
        target = self._app.locate()
        handlers = [run.handler for run in self._runs]
        method = choose_start_method(
            self._start_method, self._app.name, handlers, importable=target is not None, tell=self._event
        )
        if method == "fork":
            return Nursery.fork(ForkedChildren([(run.handler, run.arena) for run in self._runs]).main)
        if target is None:
            raise ConfigError(
                f"start_method={method!r} needs app {self._app.name!r} to be a module-level name in a file: "
                "a new interpreter imports it from there"
            )
        nursery, threads = self._spawn_nursery(target, import_first=method == "forkserver")
        if method == "forkserver" and threads > 1:
            nursery.close(CLOSE_TIMEOUT_S)
            self._event(Routine(f"importing {target[1]} starts threads: each pool process imports it by itself"))
            nursery, _ = self._spawn_nursery(target, import_first=False)
        return nursery

    def _remake_nursery(self) -> Nursery:
        """One that follows a nursery that is gone: a new interpreter, for this process has threads by now."""
        target = self._app.locate()
        if target is None:
            raise PoolError(
                f"app {self._app.name!r} is no module-level name that a new interpreter could import, and this "
                "process, which has threads by now, cannot be forked"
            )
        nursery, threads = self._spawn_nursery(target, import_first=self._start_method != "spawn")
        if threads > 1 and self._start_method != "spawn":
            nursery.close(CLOSE_TIMEOUT_S)
            nursery, _ = self._spawn_nursery(target, import_first=False)
        return nursery

    def _spawn_nursery(self, target: Sequence[str], *, import_first: bool) -> tuple[Nursery, int]:
        """A nursery that is a new interpreter, once it is up, and how many threads it has."""
        shapes = [run.arena_shape(COLUMNS_BYTES // len(self._runs)) for run in self._runs]
        if self._app.in_script:
            answer_to_script_name()
        nursery = Nursery.spawn(target, AppIdentity.of(self._app), shapes, import_first=import_first)
        try:
            return nursery, await_nursery(nursery, target[1], self._stop, begun=self._started_at > 0, tell=self._event)
        except BaseException:
            nursery.close(CLOSE_TIMEOUT_S)
            raise

    @contextlib.contextmanager
    def _control(self) -> Iterator[None]:
        """Let other processes ask how the run stands, and pause it."""
        orders = Orders(self._app.name, self._runs, lambda: self._latest)
        try:
            server = ControlServer(self._state_dir, orders.answer)
        except OSError as error:
            self._event(f"status, pause and resume do not reach this run: no socket in {self._state_dir}: {error}")
            yield
            return
        try:
            yield
        finally:
            server.close()

    # -- watching ------------------------------------------------------------------------------

    def _watch(self) -> None:
        interval: float = getattr(self._observer, "sample_interval_s", SAMPLE_INTERVAL_S)
        next_sample = next_stall = 0.0
        deadline: float | None = None
        while True:
            self._supervisor.serve(min(interval, SAMPLE_INTERVAL_S) / 4)  # however seldom an observer wants to be told
            now = time.monotonic()
            if now >= next_sample:
                next_sample = now + interval
                self._sample()
            if now >= next_stall:
                next_stall = now + STALL_INTERVAL_S
                for run in self._runs:
                    run.tell_stalls(now)
            failure = next((run.failure for run in self._runs if run.failure is not None), None)
            if self._stop.killed:
                self._ending = "killed"
                break
            if deadline is None and (self._stop.asked or failure is not None):
                deadline = now + self._drain_timeout
                self._ending = "drained"
                for run in self._runs:
                    run.stop()
            if all(run.at_rest or run.failure is not None for run in self._runs):
                if not all(run.finished for run in self._runs):
                    self._ending = "deadline"  # nothing would come of waiting for it
                break
            if deadline is not None and now >= deadline:
                self._ending = "deadline"
                break
        failure = next((run.failure for run in self._runs if run.failure is not None), None)
        if failure is not None:
            raise failure

    def _announce(self) -> None:
        info = RunInfo(
            app=self._app.name,
            handlers=tuple(
                HandlerInfo(
                    name=run.handler.name,
                    source=run.handler.source.describe(),
                    sink=run.handler.sink.describe() if run.handler.sink is not None else "",
                    workers=run.workers,
                )
                for run in self._runs
            ),
            workers=sum(run.workers for run in self._runs),
        )
        self._observer.started(info)

    def _event(self, text: str) -> None:
        """Tell the observer. Where it raises the run is stopped, and ends with that exception: whoever tells may be
        about to open a broker, or to commit."""
        try:
            if isinstance(text, Routine):
                tell: Callable[[str], None] = getattr(self._observer, "routine_event", self._observer.event)
                tell(without_controls(text))
            else:
                self._observer.event(without_controls(text))
        except Exception as error:
            self._observer_failure = self._observer_failure or error
            self._stop.ask()

    def _sample(self) -> None:
        whole = time.monotonic() >= self._next_memory
        if whole:
            self._next_memory = time.monotonic() + MEMORY_INTERVAL_S
        processes = self._sampler.sample([("runtime", os.getpid()), *self._supervisor.processes()], whole=whole)
        counts = [run.counts for run in self._runs]
        progress = [part for run in self._runs if (part := run.progress()) is not None]
        self._latest = Snapshot(
            seconds=time.monotonic() - self._started_at,
            rows=sum(count.rows for count in counts),
            bytes=sum(count.bytes for count in counts),
            batches=sum(count.batches for count in counts),
            batches_in_flight=sum(run.arena.in_flight() for run in self._runs),
            rows_waiting=sum(run.rows_waiting() for run in self._runs),
            refused=sum(count.refused for count in counts),
            tombstones_skipped=sum(count.tombstones_skipped for count in counts),
            rejected=sum(count.rejected for count in counts),
            dead_lettered=sum(count.dead_lettered for count in counts),
            retried=sum(count.retried for count in counts),
            crashes=sum(count.crashes for count in counts),
            transactions_aborted=sum(count.transactions_aborted for count in counts),
            oldest_incomplete_s={run.handler.name: run.oldest_incomplete_s() for run in self._runs},
            progress=(sum(part[0] for part in progress), sum(part[1] for part in progress)) if progress else None,
            processes=processes,
            flow=[run.flow() for run in self._runs],
            trouble=[without_controls(sentence) for run in self._runs for sentence in run.trouble()],
        )
        self._observer.sample(self._latest)

    def _report(self, error: str) -> RunReport:
        # A run that comes to its end was over with its last row; one that is stopped, when it stopped waiting.
        last_settled = max(run.counts.last_settled for run in self._runs)
        ended_at = max(last_settled if self._ending == "done" else self._watched_until, self._started_at)
        parts = tuple(run.report() for run in self._runs)

        def total(name: str) -> int:
            return sum(getattr(part, name) for part in parts)

        return RunReport(
            app=self._app.name,
            ending=self._ending,
            error=error,
            rows=total("rows"),
            batches=total("batches"),
            seconds=ended_at - self._started_at,
            bytes=total("bytes"),
            rejected=total("rejected"),
            dead_lettered=total("dead_lettered"),
            retried=total("retried"),
            refused=total("refused"),
            tombstones_skipped=total("tombstones_skipped"),
            unread_bytes=total("unread_bytes"),
            crashes=total("crashes"),
            recycled=total("recycled"),
            pauses=total("pauses"),
            transactions=total("transactions"),
            transactions_aborted=total("transactions_aborted"),
            oldest_incomplete_s=max(part.oldest_incomplete_s for part in parts),
            longest_incomplete_s=max(part.longest_incomplete_s for part in parts),
            unfinished=sum(run.unfinished() for run in self._runs),
            cpu_seconds=self._sampler.cpu_seconds,
            peak_rss_mb=self._sampler.peak_rss_mb,
            workers=sum(run.workers for run in self._runs),
            handlers=parts,
        )


def share_workers(handlers: Sequence[Handler], workers: int | Literal["auto"]) -> list[int]:
    """Pool processes per handler: what each asks for; the rest in equal parts, at least one each."""
    total = available_cores() if workers == "auto" else workers
    asked = sum(handler.workers for handler in handlers if handler.workers is not None)
    open_handlers = [handler for handler in handlers if handler.workers is None]
    filled = 0
    if workers != "auto" and asked + len(open_handlers) > total:
        raise ConfigError(_too_few(total, asked, len(open_handlers)))
    rest = max(total - asked, len(open_handlers))
    shares = []
    for handler in handlers:
        if handler.workers is not None:
            shares.append(handler.workers)
            continue
        shares.append(rest // len(open_handlers) + (1 if filled < rest % len(open_handlers) else 0))
        filled += 1
    return shares


def _too_few(total: int, asked: int, without: int) -> str:
    need = asked + without
    why = f"{without} handlers need at least one process each"
    if asked:
        why = f"the handlers with workers= ask for {asked}"
        if without:
            why += f", and {f'{without} others need one each' if without > 1 else 'one other needs one'}"
    return f"workers={total} is too few: {why}. Give workers={need} or more, or run fewer of them (--handler)"
