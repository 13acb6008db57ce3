"""App: what a user registers handlers with, and how they are run or tried out."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args
from weakref import WeakKeyDictionary

from pythia_fast import options
from pythia_fast.circuit_breaker import CircuitBreaker
from pythia_fast.dead_letter_limit import DeadLetterLimit
from pythia_fast.decoders import Tombstones
from pythia_fast.errors import ConfigError
from pythia_fast.options import named_options, nearest
from pythia_fast.registration import Handler, OnError, Ordering, OutputRows, make_handler
from pythia_fast.retry import RetryPolicy

if TYPE_CHECKING:
    from pythia_fast.brokers.base import Sink, Source
    from pythia_fast.observer import Observer
    from pythia_fast.report import RunReport
    from pythia_fast.trial import Trial

AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Any])

StartMethod = Literal["auto", "fork", "forkserver", "spawn"]

#: How many Apps of each name a module has made.
_made: WeakKeyDictionary[ModuleType, Counter[str]] = WeakKeyDictionary()


class App:
    """A name and the batch handlers registered under it.

    app = App("orders")

    @app.batch_handler(source=KafkaConsumer(topic="orders"), schema=Order)
    def score(batch: Batch[Order]): ...

    if __name__ == "__main__":
        print(app.run(workers=4, until="end"))
    """

    @named_options("App")
    def __init__(self, name: str) -> None:
        self.name = options.name("App", "name", name)
        self.handlers: dict[str, Handler] = {}
        #: Module in which the App was made: where a new interpreter finds it again. Frame 1 is named_options'.
        self._module: str = sys._getframe(2).f_globals.get("__name__", "__main__")
        self.nth = 0  #: among the Apps of this name that the module has made
        module = sys.modules.get(self._module)
        if module is not None:
            made = _made.setdefault(module, Counter())
            self.nth = made[self.name]
            made[self.name] += 1

    def __repr__(self) -> str:
        return f"App({self.name!r}, handlers={list(self.handlers)})"

    @named_options("batch_handler")
    def batch_handler(
        self,
        *,
        source: Source,
        sink: Sink | None = None,
        dead_letter: Sink | None = None,
        schema: Any = None,
        decoder: Any = "json",
        tombstones: Tombstones = "dead_letter",
        batch_size: int = 4096,
        batch_timeout: float = 0.005,
        busy_poll: float = 0.0,
        max_batch_bytes: int | None = None,
        ordering: Ordering = "unordered",
        on_error: OnError = "isolate",
        output_rows: OutputRows = "same",
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - it cannot be changed
        batch_deadline: float | None = None,
        setup_deadline: float | None = 300.0,
        max_batches_per_process: int | None = None,
        max_memory_mb: float | None = None,
        spares: int = 1,
        dead_letter_limit: DeadLetterLimit | float | None = DeadLetterLimit(),  # noqa: B008 - nor can it
        breaker: CircuitBreaker | None = None,
        rate_limit: float | None = None,
        transactional: bool = False,
        transactional_id: str | None = None,
        transaction_interval_s: float = 0.1,
        workers: int | None = None,
        name: str | None = None,
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Register a function, or a class with ``__call__`` (and ``setup``/``teardown``, run once a process).

        Parameters:
            source: where messages come from.
            sink: where what the handler returns goes to; without one a handler may return only None.
            dead_letter: where refused, rejected and failed rows go; by default a file in the state folder.
            schema: a msgspec.Struct; taken from the handler's annotation when that names it.
            decoder: "json", "msgpack", "raw", or a NumPy structured dtype for fixed-layout records.
            tombstones: what becomes of a message whose payload is null, as that of a deleted key in a compacted topic:
                "dead_letter"; "skip": it is done with, and counted; "rows": a row like any, with its key, and in each
                column what that has where a message lacks the field, so every field has a default or is Optional.
                ``batch.tombstones`` says which rows they are.
            batch_size: most rows a batch has.
            batch_timeout: seconds a row waits at most for its batch to fill, while a process has room for it.
            busy_poll: seconds that a process looks for the next batch before it sleeps. It costs up to a core for each
                process and saves the time that waking one takes, about half of a single row's (docs/latency.md).
            max_batch_bytes: payload bytes a batch holds at most, so also the largest payload that reaches
                the handler, and how much text a column of a decoded row may have; default 256 a row, at least 1 MiB.
            ordering: "unordered": any process, any order. "partition": rows of a partition in their order.
                "key": rows with equal keys in their order, different keys side by side.
            on_error: what an exception in the handler, or a returned value that cannot be sent on, costs: "isolate":
                the rows at fault alone (where the handler raised, the batch is tried again in halves);
                "dead_letter": the whole batch; "stop": the run. What is wrong with a result as a whole (no table,
                columns of different lengths, the wrong number of rows) costs the rows of that call, or with "stop"
                the run.
            output_rows: "same": a result has one row for each row of its batch, and the records of rejected and
                retried rows are left out. "any": it may have fewer or more, for handlers that filter or explode;
                where it is as long as the batch, rejected and retried rows are left out all the same.
            retry: how often, and after which wait, rows are handled again that ``batch.retry`` asks another attempt
                for, or whose exception it names. A row is given up, too, when processes have died on it alone.
            batch_deadline: seconds that one call of the handler may take, and with it what is done with its result or
                its exception; the wait for the sink is not. A process that takes longer is ended, with all its stacks
                told, and its batch handled again as after a crash. Looked at 20 times a second. Default: no limit.
            setup_deadline: seconds that ``setup()`` may take. At the start, one that takes longer ends the run; later
                its process is ended and another one made. None: no limit.
            max_batches_per_process: batches after which a process makes room for a fresh one.
            max_memory_mb: memory of its own (10**6 bytes, the arena not counted) beyond which a process makes room for
                a fresh one, after its batch; half as much again, and it is ended within the batch.
            spares: processes that are kept up behind the pool, to take the place of one that dies within milliseconds.
            dead_letter_limit: share of the rows that may be given up, as a number or a DeadLetterLimit; beyond it the
                source is paused and tried again with small batches (docs/flow-control.md). None: no limit.
            breaker: which exceptions tell that a service behind the handler is away; when it is, the source is paused
                and batches in hand wait, without using up their attempts.
            rate_limit: most rows per second over all processes; batches are then 20 ms' worth of rows at most.
            transactional: from Kafka to Kafka exactly once: outputs, dead letters in Kafka and positions become visible
                together or not at all, for readers with isolation.level=read_committed (docs/kafka.md).
            transactional_id: name of this copy of the handler for the brokers; the same after a restart, another one
                for every copy. Default: made of consumer group, handler and machine.
            transaction_interval_s: seconds of reading that one transaction takes.
            workers: this handler's share of the pool; default: what the others leave, in equal parts.
            name: default: the function's or class's name.

        Raises:
            ConfigError: an option that cannot work; UnknownOptionError names the nearest right one.
            SchemaError: a field that cannot become a column.
        """

        def register(function: AnyHandler) -> AnyHandler:
            handler = make_handler(
                function,
                app=self.name,
                name=name,
                source=source,
                sink=sink,
                dead_letter=dead_letter,
                schema=schema,
                decoder=decoder,
                tombstones=tombstones,
                batch_size=batch_size,
                batch_timeout=batch_timeout,
                busy_poll=busy_poll,
                max_batch_bytes=max_batch_bytes,
                ordering=ordering,
                on_error=on_error,
                output_rows=output_rows,
                retry=retry,
                batch_deadline=batch_deadline,
                setup_deadline=setup_deadline,
                max_batches_per_process=max_batches_per_process,
                max_memory_mb=max_memory_mb,
                spares=spares,
                dead_letter_limit=dead_letter_limit,
                breaker=breaker,
                rate_limit=rate_limit,
                transactional=transactional,
                transactional_id=transactional_id,
                transaction_interval_s=transaction_interval_s,
                workers=workers,
            )
            if handler.name in self.handlers:
                raise ConfigError(
                    f"app {self.name!r} has a handler named {handler.name!r} already; give one of them name="
                )
            self.handlers[handler.name] = handler
            return function

        return register

    def handler(self, name: str) -> Handler:
        """The registered handler of this name. Raises ConfigError with the nearest name there is."""
        if not isinstance(name, str) or name not in self.handlers:
            raise ConfigError(
                f"app {self.name!r} has no handler {options.spell(name)}{nearest(str(name), self.handlers)}"
            )
        return self.handlers[name]

    @named_options("App.run")
    def run(
        self,
        *,
        workers: int | Literal["auto"] = "auto",
        until: Literal["end", "forever"] = "forever",
        handlers: Sequence[str] | None = None,
        state_dir: str | Path | None = None,
        drain_timeout: float = 30.0,
        connect_timeout: float | None = None,
        observer: Observer | None = None,
        start_method: StartMethod = "auto",
    ) -> RunReport:
        """Run all handlers, or those named, until their sources end or a signal asks to stop.

        Parameters:
            workers: pool processes in all; "auto": as many as this process may use cores.
            until: "end" stops at the end of the sources as it was when the run began.
            state_dir: checkpoints and dead letters; default ``.pythia/NAME`` in the working folder.
            drain_timeout: seconds that work in hand gets after a signal.
            connect_timeout: seconds without any broker, or any topic that is named or matches, before the run fails;
                None: try for ever.
            handlers: names of those to run; None: all.
            observer: one who is told what happens, see ``pythia_fast.observer.Observer``; None: what is worth a line
                (a process replaced, a broker away, a view that was kept) goes to the logger ``pythia_fast``, as WARNING
                where it is trouble, and to stderr where logging was not set up.
            start_method: how pool processes are born; see docs/architecture.md. "auto" forks where this process has
                one thread, and else goes through a new interpreter.

        Raises:
            ConfigError: nothing to run, or options that cannot work together.
            PoolError: the app's module or a ``setup()`` raised in a pool process, or processes die faster than allowed.
            SourceError, SinkError: a broker that cannot be used.
        """
        from pythia_fast import pool
        from pythia_fast.handler_checks import check_handlers
        from pythia_fast.observer import LogObserver, check_observer
        from pythia_fast.outlet import hold_standard_streams
        from pythia_fast.runtime.engine import Engine

        if pool.serving:
            raise ConfigError(
                "run() was called from within a handler, whose process cannot have a pool of its own: start the other "
                "run as a program, for example with subprocess"
            )
        if pool.in_pool:
            raise ConfigError(
                "run() was called while a pool process imports this module; put the call under "
                'if __name__ == "__main__":'
            )
        where = "App.run"
        chosen = self._chosen(handlers)
        check_handlers(self.name, chosen)
        if not isinstance(workers, str) or workers != "auto":
            workers = options.whole(where, "workers", workers, 1, options.MAX_WORKERS, "processes", ", or 'auto'")
        drain_timeout = options.seconds(where, "drain_timeout", drain_timeout)
        if connect_timeout is not None:
            connect_timeout = options.seconds(where, "connect_timeout", connect_timeout)
        options.choice(where, "until", until, ("end", "forever"))
        options.choice(where, "start_method", start_method, get_args(StartMethod))
        folder = Path(".pythia") / self.name if state_dir is None else Path(options.path(where, "state_dir", state_dir))
        check_observer(observer)
        hold_standard_streams()
        engine = Engine(
            self,
            chosen,
            workers=workers,
            until=until,
            state_dir=folder,
            drain_timeout=drain_timeout,
            connect_timeout=connect_timeout,
            observer=LogObserver() if observer is None else observer,
            start_method=start_method,
        )
        return engine.run()

    def _chosen(self, names: Sequence[str] | None) -> list[Handler]:
        """The handlers to run. Raises ConfigError."""
        if not self.handlers:
            raise ConfigError(f"app {self.name!r} has no handler; register one with @app.batch_handler(...)")
        if names is None:
            return list(self.handlers.values())
        takes = "a list of handlers' names, each once; leave it out to run all"
        given = list(options.items("App.run", "handlers", names, takes))
        chosen = {name: self.handler(name) for name in given}
        if not given or len(chosen) < len(given):
            raise options.refusal("App.run", "handlers", names, takes)
        return list(chosen.values())

    @named_options("App.test")
    def test(self, handler: str | Callable[..., Any], payloads: Iterable[bytes | None]) -> Trial:
        """Run one handler over these payloads in this process: what it returned, rejected, retried, refused, and of
        which rows the results cannot be sent on.

        Raises what the handler raises, ResultError for a result whose rows a run would give up, HandlerError for one
        that would end it.
        """
        from pythia_fast.trial import try_out

        if isinstance(handler, str):
            return try_out(self.handler(handler), payloads)
        for registered in self.handlers.values():
            if registered.function is handler:
                return try_out(registered, payloads)
        raise ConfigError(f"{options.spell(handler)} is not a handler of app {self.name!r}")

    @property
    def in_script(self) -> bool:
        """Whether it was made in the program's own file, which runs once: an imported module may be reloaded."""
        return self._module == "__main__"

    def locate(self) -> list[str] | None:
        """How another interpreter finds this App: ["module", NAME, ATTRIBUTE], ["file", PATH, ATTRIBUTE] or None."""
        module = sys.modules.get(self._module)
        if module is None:
            return None
        attribute = next((key for key, value in vars(module).items() if value is self), None)
        if attribute is None:
            return None
        if self._module != "__main__":
            return ["module", self._module, attribute]
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name != "__main__":  # python -m package.module
            return ["module", spec.name, attribute]
        path = getattr(module, "__file__", None)
        return ["file", os.path.abspath(path), attribute] if path and os.path.exists(path) else None
