"""The process that a drill runs an app in: ``python -m pythia_fast.drill.child DESCRIPTOR``.

The user's app is loaded as ever; then one of its handlers gets the drill's source, sink and dead letters, and the fault
around its function. It stands in a module-level App of this module, so that a pool whose interpreter is new finds the
same. What happens is told as JSON lines on the descriptor.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from pythia_fast import App
from pythia_fast.brokers.base import Sink, Source
from pythia_fast.brokers.file import FileConsumer, FileProducer
from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer
from pythia_fast.cli.exit_codes import code_of_error, code_of_report
from pythia_fast.cli.target import load_app
from pythia_fast.drill.brokers import options_at
from pythia_fast.drill.faults import FAULTS
from pythia_fast.drill.injection import DrilledAdapter, Injection, calls_before
from pythia_fast.drill.outage import Outage
from pythia_fast.drill.settings import (
    FILE_GROUP,
    SAMPLE_EVERY_S,
    FileEnds,
    Finished,
    Sampled,
    Settings,
    Told,
    Word,
    read_settings,
)
from pythia_fast.errors import PythiaError
from pythia_fast.observer import Observer, RunInfo, Snapshot
from pythia_fast.registration import Handler
from pythia_fast.report import RunReport

#: So little is fetched ahead that what happens to the connections is felt.
FETCHED_AHEAD = {
    "queued.min.messages": 100,
    "queued.max.messages.kbytes": 1024,
    "fetch.message.max.bytes": 16_384,  # of a partition; one that is larger comes all the same
}


def drilled(handler: Handler, settings: Settings) -> Handler:
    """The handler, with all that the drill puts in its place."""
    deadline = handler.batch_deadline or settings.batch_deadline
    injection = Injection(
        FAULTS.get(settings.fault),
        Path(settings.folder),
        deadline or 0.0,
        any_rows=handler.output_rows == "any",
        decoder=handler.decoding.name,
        calls_before=calls_before(handler.max_batches_per_process),
    )
    user = handler.adapter
    source, sink = ends(handler, settings)
    return replace(
        handler,
        adapter=DrilledAdapter(user.function, user.view, user.convert, user.schema, injection),
        source=source,
        sink=sink,
        dead_letter=FileProducer(settings.dead_letters),
        batch_size=settings.batch_size,
        batch_deadline=deadline,
        rate_limit=settings.rate_limit,
        transactions=None,  # they are from Kafka to Kafka, with the app's own sink
        dead_letter_limit=None,  # a few samples, over and over, may hold more bad rows than a source does
    )


def ends(handler: Handler, settings: Settings) -> tuple[Source, Sink]:
    """Where rows come from and go to."""
    given = settings.ends
    if isinstance(given, FileEnds):
        fsync = handler.sink.fsync if isinstance(handler.sink, FileProducer) else "batch"
        return (
            FileConsumer(given.input, format=given.format, consumer_group=FILE_GROUP),
            FileProducer(given.output, fsync=fsync),
        )
    own = options_at(handler, given.servers)
    source = KafkaConsumer(given.topic, consumer_group=given.group, options={**own, **FETCHED_AHEAD})
    return source, KafkaProducer(given.results, options=own)


class StatusWriter(Observer):
    """Tells the drill what happens."""

    sample_interval_s = SAMPLE_EVERY_S

    def __init__(self, fd: int, settings: Settings) -> None:
        self._fd = fd
        self._lock = threading.RLock()  # a signal is told by the thread that it interrupts, which may be telling
        self._outage = Outage(settings, self.tell)

    def tell(self, word: Word) -> None:
        """Any thread."""
        line = memoryview(msgspec.json.encode(word) + b"\n")
        with self._lock:
            while line:
                line = line[os.write(self._fd, line) :]

    def started(self, info: RunInfo) -> None:
        """The drill waits for rows."""

    def sample(self, snapshot: Snapshot) -> None:
        self.tell(
            Sampled(
                time.monotonic(),
                snapshot.rows,
                snapshot.batches_in_flight,
                snapshot.dead_lettered,
                snapshot.crashes,
                snapshot.trouble,
            )
        )
        self._outage.look(snapshot.rows, troubled=bool(snapshot.trouble))

    def event(self, text: str) -> None:
        self.tell(Told(time.monotonic(), text))

    def finished(self, report: RunReport) -> None:
        self._outage.close()
        self.tell(Finished(report))


def make_app(settings: Settings) -> App:
    """An App with the one handler."""
    handler = load_app(settings.target).handler(settings.handler)
    made = App(handler.app)
    made.handlers[handler.name] = drilled(handler, settings)
    return made


def main(fd: int) -> int:
    """Run it; the exit code of ``python -m pythia_fast run``."""
    settings = read_settings()
    try:
        report = app.run(
            workers=settings.workers,
            until="end" if isinstance(settings.ends, FileEnds) else "forever",
            state_dir=settings.state_dir,
            drain_timeout=settings.drain_timeout,
            observer=StatusWriter(fd, settings),
        )
    except PythiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return code_of_error(error)
    return code_of_report(report)


app = make_app(read_settings())

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
